"""kill -9 of an emitter at every commit and around every send, against a receiver and a chain over HTTP.

At its restart it has learned something else of the same blocks, and the receiver takes another schema: what it may
have signed stays what it signs.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest
import trio
from sqlalchemy import select

from config.model import HttpSettings
from engram import kill_points
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.rpc import JsonRpcEndpoint
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.relay import MemoryPayload, chain_heads
from engram.relay import actor as relay_actor
from engram.relay.chain_heads import ChainHeads
from engram.relay.model import SCHEMA_VERSION, SCHEMA_VERSION_2, NodeMemory
from engram.relay.receiver import Receiver
from engram.relay.rules import memory_payload
from engram.relay.tables import relay_outbox
from engram.telemetry.metrics import Metrics
from engram.xeris.app import xeris_app
from engram.xeris.receiver import XerisReceiver
from engram.xeris.tables import accepted, submissions
from tests import forked
from tests.fakes.chain import ChainDouble, ChainServer
from tests.http.harness import serving
from tests.relay.emitting import DiesAround, deliver
from tests.relay.samples import KEYPAIR
from tests.relay.test_roots import root
from tests.sampling import sample

OWN = Keypair.from_seed(bytes([9]) * 32)
BLOCKS = 4
GONE = 3
"""The block of this number became another one after the first start had learned of it."""
FIRST_BLOCK = 1_001
SENDS = [
    *[f"{moment} send {number}" for number in range(1, BLOCKS) for moment in ("before", "after")],
    *[f"{moment} send 0" for moment in ("before", "after")],
]
"""0: GET /schemas."""
COMMITS = [f"{moment}:{number}" for number in range(1, 26) for moment in ("begin", "commit")]
"""Of a whole first run, in their order: four payloads queued, what was interrupted, the purge, what the receiver takes;
then, as the chain goes on, claims that find a block not final enough, each followed by the waiting of its stream, the
block that is another one withdrawn, and claims and outcomes of what is sent."""
OF_THE_GUARD = [point for point in COMMITS if 7 <= int(point.partition(":")[2]) <= 24]
SETTINGS = HttpSettings(requests_per_minute_per_ip=0)


class Growing(ChainDouble):
    """Has another block whenever its finalized head is asked for."""

    def answer(self, call: RpcCall) -> Json:
        if call.method == "chain_getFinalizedHead":
            self.head += 1
        return super().answer(call)


class Bench(msgspec.Struct):
    """A receiver and a chain, and where they are."""

    ledger: InlineLedger
    receiver: XerisReceiver
    url: str
    chain: Growing
    chain_url: str


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    ledger, clock = open_inline(), SystemClock()
    receiver = XerisReceiver(
        ledger,
        OWN,
        clock,
        gateways=frozenset({KEYPAIR.public_key}),
        netuids=(450,),
        quorum=1,
        keep_s=86_400.0,
    )
    chain = Growing(head=FIRST_BLOCK)
    app = xeris_app(receiver, ledger, settings=SETTINGS, clock=clock, ids=SeededIds(1), metrics=Metrics())
    async with trio.open_nursery() as nursery, serving(app, SETTINGS) as running:
        chain_url = await nursery.start(ChainServer(chain).run)
        yield Bench(ledger, receiver, f"{running.address.url}/payloads", chain, chain_url)
        nursery.cancel_scope.cancel()
    ledger.close()


async def emit(
    path: Path,
    bench: Bench,
    payloads: list[MemoryPayload],
    hashes: Mapping[str, bytes],
    dies: str = "",
    trace: str = "",
) -> None:
    kill_points._trace = trace
    relay_actor.FINALITY_LOOK_S = 0.02
    chain_heads.REMEMBER_S = 0.0  # type: ignore[misc]  # of this process alone
    http = HttpClient()
    guard = ChainHeads([JsonRpcEndpoint(http, bench.chain_url, 5.0)], SystemClock())
    real = Receiver(http, bench.url, timeout_s=5.0)
    moment, _, send = dies.partition(" send ")
    receiver = DiesAround(real, int(send), after=moment == "after") if send else real
    await deliver(path, receiver, payloads, guard=guard, hashes=hashes, ask_terms=receiver.ask_terms)


async def first_run(path: Path, bench: Bench, point: str = "", trace: str = "") -> int:
    """Let the receiver take memory without roots, as an older one does."""
    first, hashes = learned(SystemClock().now()), {}
    for each in first:
        is_gone = each.block == FIRST_BLOCK + GONE - 1
        hashes[each.nonce] = bytes(32) if is_gone else bytes.fromhex(bench.chain.hash(each.block)[2:])
    newer, bench.receiver.taken = bench.receiver.taken, {"memory": (SCHEMA_VERSION,), "gap": (SCHEMA_VERSION_2,)}
    try:
        kill_at = point if ":" in point else ""
        return await forked.run(lambda: emit(path, bench, first, hashes, point, trace), kill_at=kill_at)
    finally:
        bench.receiver.taken = newer


def learned(now: float, vectors: int = 0) -> list[MemoryPayload]:
    """Payloads of blocks one after the other; with other figures, what a second round would learn of the same."""
    ms = int(now * 1000)
    signed = root(KEYPAIR, at_ms=ms)
    found = []
    for number in range(BLOCKS):
        node = NodeMemory(vectors=vectors + number, proof_rate=1.0, root=signed, root_hex=signed.root_hex)
        block, nodes = FIRST_BLOCK + number, {KEYPAIR.ss58: node}
        found.append(memory_payload(nodes, netuid=450, block=block, source="gateway", round_ts=now + number))
    return found


async def test_the_plan_of_kills_has_every_commit_of_a_run(tmp_path: Path, bench: Bench) -> None:
    trace = tmp_path / "trace"
    assert await first_run(tmp_path / "ledger.sqlite3", bench, trace=str(trace)) == 0
    passed = [line for line in trace.read_text().splitlines() if line.startswith(("begin:", "commit:"))]
    assert passed[: len(COMMITS)] == COMMITS
    assert len(passed) <= len(COMMITS) + 4, "on a busy machine a claim or two find nothing, and no more"


BY_DAY = sorted({*sample("emitter kills", [*COMMITS, *SENDS], 3), *sample("guarded kills", OF_THE_GUARD, 2)})


@pytest.mark.parametrize("point", BY_DAY)
async def test_the_accepted_set_is_the_emitted_set_and_no_block_has_two_hashes(
    point: str, tmp_path: Path, bench: Bench
) -> None:
    ledger, path = bench.ledger, tmp_path / "ledger.sqlite3"
    assert await first_run(path, bench, point) == forked.KILLED
    left = open_inline(path)
    queued = left.read_now(lambda c: list(c.scalars(select(relay_outbox.c.nonce)).all()))
    left.close()
    again = learned(SystemClock().now(), vectors=100)
    hashes = {each.nonce: bytes.fromhex(bench.chain.hash(each.block)[2:]) for each in again}
    assert await forked.run(lambda: emit(path, bench, again, hashes)) == 0
    seen: dict[int, set[str]] = defaultdict(set)
    lines = select(submissions.c.block, submissions.c.signed_hash, submissions.c.verdict)
    for block, digest, verdict in ledger.read_now(lambda c: c.execute(lines).all()):
        seen[block].add(digest)
        assert verdict in ("accepted", "repeated"), verdict
    assert {block: len(digests) for block, digests in seen.items()} == {each.block: 1 for each in again}
    sent = open_inline(path)
    rows = select(relay_outbox.c.signed_hash, relay_outbox.c.state).order_by(relay_outbox.c.seq)
    entries = sent.read_now(lambda c: c.execute(rows).all())
    emitted = [digest for digest, _ in entries if digest is not None]
    kept = ledger.read_now(lambda c: list(c.scalars(select(accepted.c.signed_hash).order_by(accepted.c.id)).all()))
    assert kept == emitted, "each once, informalsystems/hermes#2670: in the order of the stream, also after a kill"
    assert sorted(state for _, state in entries) == ["delivered"] * BLOCKS + ["withdrawn"] * len(queued)
    sent.close()
