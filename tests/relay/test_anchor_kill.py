"""kill -9 of what anchors: one commit an epoch at most, one anchor for each stream, and every output under a root."""

from pathlib import Path

import msgspec
import pytest
import trio
from sqlalchemy import select

from engram.chain.epochs import epoch_of
from engram.chain.read.rpc import JsonRpcEndpoint
from engram.chain.read.view import open_view
from engram.chain.submit.sender import Sender
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.relay import MinerScore, PayloadSigner, scores_payload
from engram.relay.anchoring import rules
from engram.relay.anchoring.committing import Committing, CommittingPorts
from engram.relay.records import enqueue
from engram.relay.tables import relay_outbox
from engram.telemetry.metrics import Metrics
from tests import forked
from tests.chain.test_sender import QUICK
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import NETUID, TEMPO, LivingChain
from tests.relay.test_anchoring import NOW, OWN
from tests.sampling import sample

LOOKS = 120
"""More than the 64 blocks for which an extrinsic that was sent may still be included; each look finds a new block."""
# Commits of a first run: 1 the root is intended, 2 it is about to be sent, 3 the anchors are queued.
POINTS = [
    "anchor:before",
    "anchor:after",
    *[f"{moment}:{number}" for number in (1, 2, 3) for moment in ("begin", "commit")],
]


def delivered(path: Path) -> list[str]:
    """A ledger with two outputs that the receiver has acknowledged; returns their hashes."""
    ledger, signer, hashes = open_inline(path), PayloadSigner.of(OWN), list[str]()
    for number in (1, 2):
        scores = {"1": MinerScore(number / 100, None, 1.0)}
        payload = scores_payload(scores, netuid=NETUID, block=1_000 + number, uid=0, round_ts=NOW)
        signed = signer.sign(msgspec.json.encode(payload))
        ledger.write_now(lambda c, p=payload, s=signed: enqueue(c, p, NOW, signer=OWN.ss58, signed=s))  # type: ignore[misc]
        hashes.append(payload.output_hash)
    ledger.write_now(lambda c: c.execute(relay_outbox.update().values(state="delivered")))
    ledger.close()
    return hashes


def anchors(path: Path) -> list[str]:
    ledger = open_inline(path)
    found = ledger.write_now(
        lambda c: list(c.scalars(select(relay_outbox.c.payload).where(relay_outbox.c.kind == "anchor")).all())
    )
    ledger.close()
    return [msgspec.json.decode(payload)["root"] for payload in found]


async def anchor(path: Path, url: str) -> None:
    """A start of the job: it looks until the anchor is queued."""
    ledger, http, clock = open_inline(path), HttpClient(), SystemClock()
    node = JsonRpcEndpoint(http, url, 5.0)
    metagraph = await (await open_view([node])).metagraph(NETUID, 0.0)
    metagraph = msgspec.structs.replace(
        metagraph, last_epoch_block=0, parameters=msgspec.structs.replace(metagraph.parameters, tempo=TEMPO)
    )
    committing = Committing(
        CommittingPorts(
            ledger=ledger,
            keypair=OWN,
            clock=clock,
            netuid=NETUID,
            metagraph=lambda: metagraph,
            nodes=[node],
            sender=Sender([node], waiting=QUICK),
            bound=1_000,
            queued=lambda: None,
            metrics=Metrics(),
        )
    )
    queued = select(relay_outbox.c.id).where(relay_outbox.c.kind == "anchor")
    for _ in range(LOOKS):
        await committing.look()
        if ledger.write_now(lambda c: c.scalar(queued)) is not None:
            break
    await http.aclose()
    ledger.close()


@pytest.mark.parametrize("point", sample("anchor kills", POINTS, 2))
async def test_a_root_is_committed_and_anchored_once_whenever_it_is_killed(point: str, tmp_path: Path) -> None:
    chain, path = LivingChain(), tmp_path / "ledger"
    root = rules.root_of(delivered(path)).hex()
    committed: list[int] = []
    commit = chain._calls["set_commitment"]

    def noted(who: bytes, arguments: dict[str, object]) -> None:
        commit(who, arguments)
        committed.append(chain.head)

    chain._calls["set_commitment"] = noted
    async with trio.open_nursery() as nursery:
        url = await nursery.start(ChainServer(chain).run)
        assert await forked.run(lambda: anchor(path, url), kill_at=point) == forked.KILLED
        assert await forked.run(lambda: anchor(path, url)) == 0
        nursery.cancel_scope.cancel()
    assert anchors(path) == [root]
    epochs = [epoch_of(block, NETUID, TEMPO).index for block in committed]
    assert len(epochs) == len(set(epochs)), "at most one commit an epoch"
    assert len(epochs) == 1, "what was sent is never sent again while it may be included, nor once it was"
