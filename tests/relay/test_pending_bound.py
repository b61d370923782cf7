"""An outbox with as many entries as may wait: enqueueing, status and a claim cost what they cost with few, and draining
it needs no more memory."""

import gc
import resource
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from sqlalchemy import Connection, func, literal_column, select, true

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from engram.clock import SystemClock
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.relay import RetryPolicy, records
from engram.relay.actor import EmitterPorts, RelayEmitter
from engram.relay.gauges import measure
from engram.relay.model import Answered, Enqueued, EntryState, Outcome
from engram.relay.protocol import GetRelayStatus
from engram.relay.records.streams import add, change
from engram.relay.rounds import RoundLosses
from engram.relay.rules import Decision
from engram.relay.signer import Signed
from engram.relay.tables import relay_outbox
from engram.telemetry.metrics import Metrics
from tests import forked
from tests.relay.samples import KEYRING, NOW, SIGNER, payload, queue, write
from tests.sampling import NIGHTLY

FEW, MANY = 500, records.OPEN_BOUND - 10 if NIGHTLY else 10_000
STEPS = 100
"""Instructions of SQLite's machine between two counts."""
GROWTH_MIB = 50


def filled(entries: int, path: Path | None = None) -> InlineLedger:
    """A ledger in which so many payloads of one stream wait, written as one statement."""
    ledger = open_inline(path)
    queue(ledger, 1)

    def fill(connection: Connection) -> None:
        names = [column.name for column in relay_outbox.columns if column.name != "id"]
        numbers = select(literal_column("1").label("number")).cte("numbers", recursive=True)
        numbers = numbers.union_all(select(numbers.c.number + 1).where(numbers.c.number < entries - 1))
        changed: dict[str, Any] = {
            "nonce": relay_outbox.c.nonce + literal_column("':'") + numbers.c.number,
            "block": relay_outbox.c.block + numbers.c.number,
            "seq": relay_outbox.c.seq + numbers.c.number,
        }
        rows = select(*[changed.get(name, relay_outbox.c[name]) for name in names]).select_from(
            relay_outbox.join(numbers, true())
        )
        connection.execute(relay_outbox.insert().from_select(names, rows))
        (stream,) = records.streams(connection)
        change(connection, stream.id, pending=entries, next_seq=entries + 1)
        add(connection, "pending", entries - 1)

    write(ledger, fill)
    assert write(ledger, lambda c: c.scalar(select(func.count()).select_from(relay_outbox))) == entries
    return ledger


def instructions(ledger: InlineLedger, work: Callable[[Connection], object]) -> int:
    """Return what `work` costs, in hundreds of instructions of SQLite's machine."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    raw: Any = ledger.handle.connection.dbapi_connection
    write(ledger, work)  # its statements are prepared
    raw.set_progress_handler(count, STEPS)
    write(ledger, work)
    raw.set_progress_handler(None, 0)
    return counted


def enqueue(connection: Connection) -> None:
    number = enqueue.number = getattr(enqueue, "number", 10**6) + 1  # type: ignore[attr-defined]  # a new payload each
    assert records.enqueue(connection, payload(number), NOW, signer=SIGNER.hotkey) is Enqueued.QUEUED


def status(connection: Connection) -> None:
    assert records.status(connection, enabled=True, failures_in_a_row=0).outbox_pending >= FEW


def claim_and_settle(connection: Connection) -> None:
    (entry,) = records.claim(connection, NOW, KEYRING.sign)
    records.settle(connection, entry, Answered(200), Decision(EntryState.DELIVERED, 1, NOW, ""), NOW)


def gauges(connection: Connection) -> None:
    measure(METRICS, connection, NOW)


METRICS = Metrics()


@pytest.mark.parametrize("work", [enqueue, status, claim_and_settle, gauges])
def test_what_the_relay_does_all_the_time_costs_the_same_however_many_entries_wait(
    work: Callable[[Connection], object],
) -> None:
    few, many = filled(FEW), filled(MANY)
    cheap, dear = instructions(few, work), instructions(many, work)
    assert dear <= cheap + 10, "a deeper tree, not a scan"
    for ledger in (few, many):
        ledger.close()


def test_the_count_of_instructions_notices_a_scan() -> None:
    few, many = filled(FEW), filled(MANY)

    def scan(connection: Connection) -> None:
        connection.scalar(select(func.count()).where(relay_outbox.c.state == "pending"))

    assert instructions(many, scan) > 10 * instructions(few, scan)
    for ledger in (few, many):
        ledger.close()


class Taking:
    async def submit(self, signed: Signed) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Answered(200)


def resident_mib() -> float:
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def drain(path: Path, entries: int) -> None:
    """Relay until so many are delivered; fails when that takes more memory than the bound, at any time."""
    ledger, registry, metrics, before = open_inline(path), Registry(), Metrics(), resident_mib()
    ports = EmitterPorts(
        ledger=ledger,
        receiver=Taking(),
        keyring=KEYRING,
        policy=RetryPolicy(),
        clock=SystemClock(),
        rng=Random(1),
        metrics=metrics,
        losses=RoundLosses(metrics),
    )
    tree = SupervisorSpec("root", [ChildSpec("relay", lambda: RelayEmitter(ports), name="relay")])
    async with open_system(tree, registry=registry):
        emitter = registry.ref(RelayEmitter, "relay")
        while (found := await emitter.call(GetRelayStatus())).total_ok < entries:  # noqa: ASYNC110  # no event crosses the actor
            await trio.sleep(0.05)
        grown = resident_mib() - before
        assert grown <= GROWTH_MIB, f"{grown:.0f} MiB more, after {found.total_ok} entries"
    ledger.close()


async def test_draining_the_outbox_needs_no_more_memory(tmp_path: Path) -> None:
    path, entries = tmp_path / "ledger", 5_000 if NIGHTLY else 200
    filled(MANY, path).close()
    assert await forked.run(lambda: drain(path, entries), within_s=900.0) == 0
