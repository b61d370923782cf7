"""What the receiver forgets and when, and that an outage of its ledger ends none of its jobs."""

from collections.abc import Callable
from typing import TypeVar

import msgspec
import trio
from sqlalchemy import Connection, func, insert, literal_column, select, update
from trio.testing import MockClock

from actors import Context, Job, Registry, SupervisorSpec, open_system
from engram.chain.model import Metagraph
from engram.chain.read.view import open_view
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock, ManualClock, TrioClock
from engram.ledger import LedgerUnavailable, open_inline
from engram.ledger.inline import InlineLedger
from engram.ledger.lane import Lookup, R
from engram.roles.process import spare
from engram.telemetry.metrics import Metrics
from engram.xeris import records, submissions, tables
from engram.xeris.judging import SKEW_S
from engram.xeris.submissions import Claims
from engram.xeris.upkeep import PermitWatch, Retention
from tests.fakes.living_chain import NETUID, LivingChain
from tests.xeris.test_judging import NOW, ONE, memory, resigned, scores
from tests.xeris.test_pages import keep
from tests.xeris.test_receiver import Bench, bench

__all__ = ("bench",)

T = TypeVar("T")
KEEP_S = 86_400.0
OUTAGE_S = 3_600.0


class FlakyLedger:
    """A ledger whose server goes away and comes back."""

    def __init__(self) -> None:
        self.inner: InlineLedger = open_inline()
        self.is_away = False
        self.holds = True

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self._with(query)

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        return await self._with(transaction)

    def rows(self, lookup: Lookup[R], *values: object) -> list[R]:
        return self.inner.rows(lookup, *values)

    async def _with(self, transaction: Callable[[Connection], T]) -> T:
        if self.is_away:
            raise LedgerUnavailable("the server is away")
        return await self.inner.write(transaction)


def retention(ledger: InlineLedger | FlakyLedger, clock: Clock, log_kept_s: float = KEEP_S) -> Retention:
    return Retention(ledger, clock, keep_s=KEEP_S, log_kept_s=log_kept_s)


def lines(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(tables.submissions)) or 0


def flood(ledger: InlineLedger, count: int, at: float = NOW) -> None:
    """Log so many refusals as one statement."""
    ledger.write_now(lambda c: submissions.note(c, Claims(), "schema", at, "no payload"))

    def fill(connection: Connection) -> None:
        names = [column.name for column in tables.submissions.columns if column.name != "id"]
        numbers = select(literal_column("1").label("number")).cte("numbers", recursive=True)
        numbers = numbers.union_all(select(numbers.c.number + 1).where(numbers.c.number < count - 1))
        newest = select(func.max(tables.submissions.c.id)).scalar_subquery()
        line = select(*[tables.submissions.c[name] for name in names]).where(tables.submissions.c.id == newest)
        rows = line.join_from(tables.submissions, numbers, literal_column("1") == literal_column("1"))
        connection.execute(insert(tables.submissions).from_select(names, rows))

    ledger.write_now(fill)


async def test_however_many_refusals_an_hour_brings_the_log_holds_a_million_lines() -> None:
    ledger = open_inline()
    flood(ledger, submissions.ROWS_KEPT + 36_000)
    await retention(ledger, ManualClock(NOW)).forget()
    assert ledger.read_now(lines) == submissions.ROWS_KEPT
    oldest = ledger.read_now(lambda c: c.scalar(select(func.min(tables.submissions.c.id))))
    assert oldest == 36_001, "the newest are kept"
    ledger.close()


async def test_all_lines_that_are_too_old_go_at_once_and_other_writes_come_between() -> None:
    ledger, others = open_inline(), list[int]()
    flood(ledger, 3 * submissions.PURGED_AT_ONCE + 5, NOW - KEEP_S - 1)
    flood(ledger, 7, NOW - KEEP_S + 1)

    async def another_write() -> None:
        while True:
            others.append(await ledger.write(lines))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(another_write)
        await retention(ledger, ManualClock(NOW)).forget()
        nursery.cancel_scope.cancel()
    assert ledger.read_now(lines) == 7
    assert any(7 < each < 3 * submissions.PURGED_AT_ONCE for each in others), "between two batches"
    ledger.close()


async def test_old_payloads_go_in_batches_and_other_writes_come_between() -> None:
    ledger, others = open_inline(), list[int]()
    count = 3 * records.PURGED_AT_ONCE + 5

    def fill(connection: Connection) -> None:
        for number in range(count):
            keep(connection, number, 10)
        rows = [
            {"signer": bytes(32), "netuid": 450, "kind": "memory", "block": number, "source": "nodes"}
            | {"output_hash": "ab" * 32, "at": 1.0}
            for number in range(count)
        ]
        connection.execute(insert(tables.signatures), rows)
        rows = [
            {"netuid": 450, "signer": bytes(32), "kind": "memory", "epoch": 1, "block": number}
            | {"root": bytes(32), "leaves": "[]", "at": 1.0}
            for number in range(count)
        ]
        connection.execute(insert(tables.anchors), rows)

    ledger.write_now(fill)
    ledger.write_now(
        lambda c: c.execute(update(tables.accepted).values(received_at=NOW).where(tables.accepted.c.id == 1))
    )

    async def another_write() -> None:
        while True:
            others.append(await ledger.write(records.count))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(another_write)
        await retention(ledger, ManualClock(NOW)).forget()
        nursery.cancel_scope.cancel()
    assert any(1 < each < count for each in others), "between two batches"
    left = [
        ledger.read_now(lambda c, t=table: c.scalar(select(func.count()).select_from(t)))  # type: ignore[misc]
        for table in (tables.accepted, tables.signatures, tables.anchors)
    ]
    assert left == [1, 0, 0], "the new one alone"
    ledger.close()


async def test_a_payload_dated_ahead_of_the_clock_cannot_be_submitted_again_once_it_is_forgotten(bench: Bench) -> None:
    await bench.permit(1000, ONE)
    ahead = resigned(scores() | {"round_ts": NOW + SKEW_S})
    status, first = await bench.post(ahead)
    assert status == 200
    forgetting = retention(bench.ledger, bench.clock)
    bench.clock.advance(KEEP_S + SKEW_S / 2)
    await forgetting.forget()
    assert await bench.post(ahead) == (200, first), "a repeat, as its nonce is known"
    bench.clock.advance(SKEW_S / 2 + 1)
    assert (await bench.post(resigned(memory() | {"round_ts": bench.clock.now()})))[0] == 200
    await forgetting.forget()
    assert await bench.ledger.read(records.count) == 1, "the new one alone"
    status, refused = await bench.post(ahead)
    assert (status, refused["code"]) == (410, "too_old")


async def _metagraph() -> Metagraph:
    return await (await open_view([LivingChain()])).metagraph(NETUID, 0.0)


async def test_permits_are_recorded_again_after_an_hour_without_the_ledger(autojump_clock: MockClock) -> None:
    ledger, clock = FlakyLedger(), TrioClock()
    found = await _metagraph()
    subnets = Subnets(clock, (NETUID,), 60.0)
    watch = PermitWatch(ledger, subnets, (NETUID,), clock, Metrics(), anchor_epochs=2)

    def known(block: int) -> bool:
        return ledger.inner.read_now(lambda c: records.permits_at(c, NETUID, block)) is not None

    async with open_system(SupervisorSpec("root", [spare("permits", lambda: Job(watch.run))]), registry=Registry()):
        subnets.publish(found, ())
        await trio.sleep(10)
        assert known(found.block)
        ledger.is_away = True
        subnets.publish(msgspec.structs.replace(found, block=found.block + 10), ())
        await trio.sleep(OUTAGE_S)
        assert not known(found.block + 10)
        ledger.is_away = False
        await trio.sleep(10)
        assert known(found.block + 10)


async def test_what_is_old_is_forgotten_after_an_outage_of_the_ledger(autojump_clock: MockClock) -> None:
    ledger, clock = FlakyLedger(), TrioClock()
    ledger.is_away = True

    async def run(context: Context) -> None:
        await retention(ledger, clock).run(context)

    async with open_system(SupervisorSpec("root", [spare("purge", lambda: Job(run))]), registry=Registry()):
        await trio.sleep(OUTAGE_S / 2)
        flood(ledger.inner, 5, clock.now() - KEEP_S - 1)
        ledger.is_away = False
        await trio.sleep(OUTAGE_S)
        assert ledger.inner.read_now(lines) == 0
