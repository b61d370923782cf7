"""kill -9 of an emitter at every commit and around every send, against a receiver over HTTP.

At its restart it has learned something else of the same blocks: what it may have signed stays what it signs.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from config.model import HttpSettings
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.relay import MemoryPayload
from engram.relay.receiver import Receiver
from engram.relay.tables import relay_outbox
from engram.telemetry.metrics import Metrics
from engram.xeris.app import xeris_app
from engram.xeris.receiver import XerisReceiver
from engram.xeris.tables import accepted, submissions
from tests import forked
from tests.http.harness import serving
from tests.relay.emitting import DiesAround, deliver
from tests.relay.samples import KEYPAIR, payload
from tests.sampling import sample

OWN = Keypair.from_seed(bytes([9]) * 32)
BLOCKS = 3
SENDS = [f"{moment} send {number}" for number in range(1, 1 + BLOCKS) for moment in ("before", "after")]
COMMITS = [f"{moment}:{number}" for number in range(1, 10) for moment in ("begin", "commit")]
"""Of a whole first run: three times queued, interrupted, purged, claimed, three times settled."""
SETTINGS = HttpSettings(requests_per_minute_per_ip=0)


@pytest.fixture
async def received() -> AsyncIterator[tuple[InlineLedger, str]]:
    """The ledger of a receiver, and where it is sent to."""
    ledger, clock = open_inline(), SystemClock()
    own = frozenset({KEYPAIR.public_key})
    receiver = XerisReceiver(ledger, OWN, clock, gateways=own, netuids=(450,), quorum=1, keep_s=86_400.0)
    app = xeris_app(receiver, ledger, settings=SETTINGS, clock=clock, ids=SeededIds(1), metrics=Metrics())
    async with serving(app, SETTINGS) as running:
        yield ledger, f"{running.address.url}/payloads"
    ledger.close()


async def emit(path: Path, url: str, payloads: list[MemoryPayload], dies: str = "") -> None:
    receiver = Receiver(HttpClient(), url, timeout_s=5.0)
    if not dies.partition(" ")[2]:
        await deliver(path, receiver, payloads)
        return
    moment, _, send = dies.split()
    await deliver(path, DiesAround(receiver, int(send), after=moment == "after"), payloads)


@pytest.mark.parametrize("point", sample("emitter kills", [*COMMITS, *SENDS], 3))
async def test_the_accepted_set_is_the_emitted_set_and_no_block_has_two_hashes(
    point: str, tmp_path: Path, received: tuple[InlineLedger, str]
) -> None:
    ledger, url = received
    path, now = tmp_path / "ledger.sqlite3", SystemClock().now()
    first = [payload(number, now) for number in range(1, 1 + BLOCKS)]
    other = [again(each) for each in first]
    is_commit = ":" in point
    ended = await forked.run(lambda: emit(path, url, first, point), kill_at=point if is_commit else "")
    assert ended == forked.KILLED
    assert await forked.run(lambda: emit(path, url, [*first, *other])) == 0
    seen: dict[int, set[str]] = defaultdict(set)
    lines = select(submissions.c.block, submissions.c.signed_hash, submissions.c.verdict)
    for block, digest, verdict in ledger.read_now(lambda c: c.execute(lines).all()):
        seen[block].add(digest)
        assert verdict in ("accepted", "repeated"), verdict
    assert {block: len(digests) for block, digests in seen.items()} == {each.block: 1 for each in first}
    sent = open_inline(path)
    rows = select(relay_outbox.c.signed_hash, relay_outbox.c.state)
    emitted = {digest: state for digest, state in sent.read_now(lambda c: c.execute(rows).all()) if digest is not None}
    states = sent.read_now(lambda c: sorted(c.scalars(select(relay_outbox.c.state)).all()))
    kept = ledger.read_now(lambda c: list(c.scalars(select(accepted.c.signed_hash)).all()))
    assert sorted(kept) == sorted(emitted), "each once"
    order = ledger.read_now(lambda c: list(c.scalars(select(accepted.c.block).order_by(accepted.c.id)).all()))
    assert order == sorted(order), "informalsystems/hermes#2670: in the order of the stream, also after a kill"
    assert states == ["delivered"] * BLOCKS + ["withdrawn"] * BLOCKS
    sent.close()


def again(found: MemoryPayload) -> MemoryPayload:
    """Another payload of the same block and source, as a second round would learn it."""
    ms = int(found.nonce.rpartition(":")[2]) + 1
    later = payload(found.block - 1000 + 100, ms / 1000)
    nonce = f"{found.nonce.rpartition(':')[0]}:{ms}"
    return msgspec.structs.replace(later, block=found.block, nonce=nonce)
