"""As many payloads as may wait, drained by an emitter with a ledger on the disk: order, memory and pace."""

import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest
import trio
from sqlalchemy import Connection

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from engram import wire
from engram.clock import SystemClock
from engram.ledger import LEDGER_FILE, LedgerActor, LedgerClient, open_inline
from engram.relay import NodeMemory, RetryPolicy, memory_payload, records
from engram.relay.actor import EmitterPorts, RelayEmitter
from engram.relay.model import Answered, Enqueued, Entry, Outcome, RelayStatus
from engram.relay.rounds import RoundLosses
from engram.relay.signer import Signed
from engram.telemetry.metrics import Metrics
from tests import forked
from tests.relay.samples import KEYPAIR, KEYRING, NOW, SIGNER
from tests.relay.test_pending_bound import GROWTH_MIB, resident_mib
from tests.sampling import NIGHTLY

STREAMS = 64
ENTRIES, PARTS = (records.OPEN_BOUND, 16) if NIGHTLY else (600, 2)
"""Drained in so many parts, each by a process of its own: as one test it would take longer than a test may."""
AT_ONCE = 5_000
FIRST_NETUID = 1
LEAST_A_SECOND = 50
"""Far below what any machine does: this finds a pace that falls with what waits, not a slow disk."""
pytestmark = pytest.mark.xdist_group("drain")  # one worker drains it, part by part


class Sent(msgspec.Struct, frozen=True):
    netuid: int
    block: int


class NotesOrder:
    """Takes everything; keeps the newest block of each stream and counts what came out of order."""

    def __init__(self, newest: Mapping[int, int]) -> None:
        self.newest = dict(newest)
        self.taken = 0
        self.out_of_order = 0

    async def submit(self, signed: Signed) -> Outcome:
        await trio.lowlevel.checkpoint()
        sent = wire.decode(signed.body, Sent)
        self.taken += 1
        self.out_of_order += sent.block != self.newest.get(sent.netuid, 0) + 1
        self.newest[sent.netuid] = sent.block
        return Answered(200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a ledger in which ENTRIES wait."""
    folder = tmp_path_factory.mktemp("full")
    fill(folder, ENTRIES)
    return folder


def fill(folder: Path, entries: int) -> None:
    ledger = open_inline(folder / LEDGER_FILE)

    def queue(connection: Connection, first: int) -> None:
        for number in range(first, min(first + AT_ONCE, entries)):
            netuid, block = FIRST_NETUID + number % STREAMS, 1 + number // STREAMS
            nodes = {KEYPAIR.ss58: NodeMemory(vectors=number, proof_rate=1.0)}
            payload = memory_payload(nodes, netuid=netuid, block=block, source="nodes0", round_ts=NOW + block)
            assert records.enqueue(connection, payload, NOW, signer=SIGNER.hotkey) is Enqueued.QUEUED

    for first in range(0, entries, AT_ONCE):
        ledger.write_now(lambda c, f=first: queue(c, f))  # type: ignore[misc]
    ledger.close()


async def drain(folder: Path, until: int) -> None:
    """Relay until so many are delivered, from where the part before has ended."""
    kept = folder / "newest.json"
    newest = wire.decode(kept.read_bytes(), dict[int, int]) if kept.exists() else {}
    registry, metrics, receiver = Registry(), Metrics(), NotesOrder(newest)
    ledger = LedgerClient(registry.ref(LedgerActor, "ledger"), folder)
    before_ok = sum(newest.values())
    done, left = trio.Event(), until - before_ok

    def settled(_: Entry) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            done.set()

    ports = EmitterPorts(
        ledger=ledger,
        receiver=receiver,
        keyring=KEYRING,
        policy=RetryPolicy(),
        clock=SystemClock(),
        rng=Random(1),
        metrics=metrics,
        losses=RoundLosses(metrics),
        concurrency=STREAMS,
        settled=settled,
    )
    tree = SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", lambda: LedgerActor(folder, lambda error: None), name="ledger"),
            ChildSpec("relay", lambda: RelayEmitter(ports), name="relay", shutdown=30.0),
        ],
    )
    before, began = resident_mib(), time.monotonic()
    async with open_system(tree, registry=registry):
        await done.wait()
        per_s = (until - before_ok) / (time.monotonic() - began)
    grown = resident_mib() - before
    ledger.close()
    kept.write_bytes(msgspec.json.encode(receiver.newest))
    (folder / "report").write_text(f"{per_s:.0f} a second, {grown:.0f} MiB more, of {until}\n")
    assert receiver.out_of_order == 0
    assert receiver.taken == sum(receiver.newest.values()) - before_ok, "each once"
    assert per_s >= LEAST_A_SECOND
    assert grown <= GROWTH_MIB


def standing(folder: Path) -> RelayStatus:
    ledger = open_inline(folder / LEDGER_FILE)
    found = ledger.read_now(lambda c: records.status(c, enabled=True, failures_in_a_row=0))
    ledger.close()
    return found


def test_an_outbox_takes_as_many_as_may_wait(folder: Path) -> None:
    assert standing(folder).outbox_pending == ENTRIES


@pytest.mark.parametrize("part", range(1, PARTS + 1))
async def test_a_full_outbox_is_drained_in_the_order_of_its_streams_and_in_bounded_memory(
    folder: Path, part: int
) -> None:
    until = ENTRIES * part // PARTS
    assert await forked.run(lambda: drain(folder, until), within_s=230.0) == 0
    found = standing(folder)
    assert until <= found.total_ok == ENTRIES - found.outbox_pending
    assert (found.dlq_abandoned, found.total_failed) == (0, 0)
    if part == PARTS:
        newest = wire.decode((folder / "newest.json").read_bytes(), dict[int, int])
        assert (found.outbox_pending, sum(newest.values())) == (0, ENTRIES)
        assert max(newest.values()) - min(newest.values()) <= 1, "each stream is whole"
    print((folder / "report").read_text())
