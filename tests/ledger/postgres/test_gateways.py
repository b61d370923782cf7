"""Several processes' ledgers on one server: the real actor and writer, leases, and a server that goes away."""

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
import trio.testing
from sqlalchemy import Connection, bindparam, insert, select

from actors import ChildSpec, Intensity, Registry, SupervisorSpec, open_system
from engram.cli.operate import gateways
from engram.cli.options import Sources
from engram.durable import WriteRequest
from engram.ledger import LedgerActor, LedgerClient, LedgerError, LedgerUnavailable, owners
from engram.ledger.facts import get, put
from engram.ledger.postgres import lease
from engram.ledger.postgres.group import TURN
from engram.ledger.postgres.server import PostgresServer
from engram.ledger.postgres.writer import PostgresWriter
from engram.ledger.prepared import Prepared
from engram.ledger.singletons import claim, wait_for_turn
from engram.ledger.tables import meta
from engram.payments import records
from engram.payments.tables import payments
from engram.sessions import EndReason, Instant, SessionEvent, SessionState, paid_clock
from engram.sessions import records as session_records
from tests.crashes import may_crash
from tests.payments.builders import payment, session_of
from tests.postgres import cluster, needs_postgresql, rows

pytestmark = needs_postgresql


@contextlib.asynccontextmanager
async def running(url: str, fatal: list[LedgerError], ttl_s: float = 30.0) -> AsyncIterator[LedgerClient]:
    registry, server = Registry(), PostgresServer(url, ttl_s=ttl_s)
    spec = SupervisorSpec(
        "root",
        (ChildSpec("ledger", lambda: LedgerActor(Path(), fatal.append, server=server), name="ledger"),),
        intensity=Intensity(5, 60.0),
    )
    async with open_system(spec, registry=registry):
        ledger = LedgerClient(registry.ref(LedgerActor, "ledger"), Path(), server)
        try:
            yield ledger
        finally:
            ledger.close()


def owned(connection: Connection, number: int) -> None:
    """A payment whose work is due."""
    row = records.columns_of(payment(str(number))) | {"owner_epoch": owners.me(connection)}
    connection.execute(insert(payments).values(row))


async def test_many_writers_share_commits_and_each_gets_its_own_answer(url: str) -> None:
    async with running(url, []) as ledger:
        answers: dict[int, int] = {}

        async def write(number: int) -> None:
            def transaction(connection: Connection) -> int:
                put(connection, f"key-{number}", str(number))
                return number

            answers[number] = await ledger.write(transaction)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(write, number)
        assert answers == {number: number for number in range(200)}
        assert (await ledger.commits()).commits < 200
        assert await ledger.read(lambda connection: get(connection, "key-199")) == "199"
        with pytest.raises(Exception, match="read-only"):
            await ledger.read(lambda connection: put(connection, "a", "1"))


async def test_limits_that_are_counted_hold_over_four_gateways(url: str) -> None:
    """Ten places and eighty that want one, over four ledgers at once: ten get one, and no one gets an error."""
    got: list[bool] = []

    def take(connection: Connection, name: str) -> bool:
        taken = connection.execute(select(meta.c.key).where(meta.c.key.like("place-%"))).all()
        if len(taken) >= 10:
            return False
        put(connection, f"place-{name}", "1")
        return True

    async def buy(ledger: LedgerClient, name: str) -> None:
        got.append(await ledger.write(partial(take, name=name)))

    async with contextlib.AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(running(url, [])) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for number in range(80):
                nursery.start_soon(buy, ledgers[number % 4], str(number))
    assert (sum(got), len(got)) == (10, 80)
    assert len(rows(url, "SELECT key FROM meta WHERE key LIKE 'place-%'")) == 10


async def test_the_work_of_a_gateway_that_is_silent_is_taken_over_and_it_is_fenced(url: str) -> None:
    fatal: list[LedgerError] = []
    async with running(url, fatal, ttl_s=2.0) as silent, running(url, [], ttl_s=2.0) as other:
        await silent.write(partial(owned, number=1))
        mine = lambda c: [due.id for due in records.due(c, 1e12, 10)]  # noqa: E731
        assert len(await silent.read(mine)) == 1
        assert await other.read(mine) == []
        (epoch,) = rows(url, "SELECT min(epoch) FROM gateways")[0]
        # As if it had been stopped for longer than its ttl: its next renewal comes too late.
        rows(url, f"UPDATE gateways SET ended_at = clock_timestamp() WHERE epoch = {epoch} RETURNING epoch")
        with trio.fail_after(20):
            while not await other.read(mine):
                await trio.testing.wait_all_tasks_blocked(0.05)
        with contextlib.suppress(LedgerError):
            await silent.write(partial(put, key="zombie", value="1"))
        assert len(fatal) == 1
        assert await other.read(lambda c: get(c, "zombie")) is None


def left_behind(connection: Connection) -> None:
    for number in range(2 * lease.PAGE + 1):
        owned(connection, number)


def seen_open(connection: Connection) -> int:
    return len(records.due(connection, 1e12, 1_000))


async def test_a_gateway_that_writes_without_a_pause_takes_over_all_the_same(url: str) -> None:
    async with running(url, [], ttl_s=2.0) as busy:
        async with running(url, []) as ends:
            await ends.write(left_behind)
        with trio.fail_after(20):
            while await busy.write(seen_open) <= 2 * lease.PAGE:
                pass


def test_what_waits_to_be_written_is_committed_after_each_page_that_is_taken_over(url: str) -> None:
    """Else buyers wait until all of it is taken over: a minute, where a large gateway has ended."""
    ends, survives = (PostgresServer(url).open_writer(lambda e: None, lambda g: None) for _ in range(2))
    assert ends._commit([left_behind])[0].error is None
    ends._close()
    assert survives._idle() is None
    seen: list[int] = []
    while not seen or seen[-1] <= 2 * lease.PAGE:
        survives.submit(WriteRequest(seen_open, lambda outcome: None))
        if batch := survives._next_batch():
            seen.append(survives._commit([batch[0].transaction])[0].value)
        else:
            assert survives._idle() is None
    assert seen == [lease.PAGE, 2 * lease.PAGE, 2 * lease.PAGE + 1]
    survives._close()


async def test_a_gateway_that_ends_leaves_its_work_to_the_others_at_once(url: str) -> None:
    async with running(url, [], ttl_s=2.0) as other:
        async with running(url, []) as ends:
            await ends.write(partial(owned, number=1))
        with trio.fail_after(20):
            while not await other.read(lambda c: records.due(c, 1e12, 10)):
                await trio.testing.wait_all_tasks_blocked(0.05)


async def test_paid_time_is_counted_by_the_servers_clock_whatever_the_gateways_clocks_say(url: str) -> None:
    """Two machines, ten minutes apart, move the one clock on in turns: nobody's time runs faster."""
    async with running(url, []) as early, running(url, []) as late:
        bought = session_of(payment(), state=SessionState.PROVISIONING)
        await early.write(lambda c: session_records.insert_session(c, bought))
        clocks = [(early, Instant(1e9, 5.0, "one")), (late, Instant(1e9 + 600, 7.0, "two"))]
        ready = lambda c: session_records.transition(c, bought.id, SessionEvent.NODE_READY, clocks[1][1])  # noqa: E731
        assert await early.write(ready) is not None
        for ledger, now in 5 * clocks:
            await ledger.write(partial(paid_clock.checkpoint, now=now))
            assert await ledger.read(partial(paid_clock.expired, now=now)) == []
        ended = partial(session_records.transition, session_id=bought.id, event=SessionEvent.END, now=clocks[0][1])
        after = await late.write(partial(ended, reason=EndReason.USER))
        assert after is not None
        assert 0.0 <= after.used_s < 60.0


def after(seconds: float) -> Instant:
    return Instant(1e9 + seconds, seconds, "one")


@pytest.mark.parametrize("set_by_s", [3_600.0, -3_600.0])
async def test_a_server_whose_clock_is_set_takes_no_paid_time_and_gives_none(url: str, set_by_s: float) -> None:
    """As where a standby with another clock is promoted: ten seconds pass meanwhile, by the gateway's own clock."""
    async with running(url, []) as ledger:
        bought = session_of(payment(), state=SessionState.PROVISIONING)
        await ledger.write(lambda c: session_records.insert_session(c, bought))
        ready = partial(session_records.transition, session_id=bought.id, event=SessionEvent.NODE_READY)
        await ledger.write(partial(ready, now=after(0.0)))
        await ledger.write(partial(paid_clock.checkpoint, now=after(0.1)))
        rows(url, f"UPDATE paid_clock SET wall = wall - 10 - {set_by_s} RETURNING wall")
        assert await ledger.read(partial(paid_clock.expired, now=after(10.0))) == []
        await ledger.write(partial(paid_clock.checkpoint, now=after(10.0)))
        rows(url, "UPDATE paid_clock SET wall = wall - 10 RETURNING wall")
        await ledger.write(partial(paid_clock.checkpoint, now=after(20.0)))
        ended = partial(session_records.transition, session_id=bought.id, event=SessionEvent.END, reason=EndReason.USER)
        over = await ledger.write(partial(ended, now=after(20.0)))
        assert over is not None
        assert 9.9 <= over.used_s <= 20.5


@may_crash(LedgerUnavailable)
async def test_a_server_that_is_restarted_under_load_loses_nothing_and_ends_nobody() -> None:
    done: list[str] = []
    not_done: list[str] = []
    fatal: list[LedgerError] = []

    async def write_on(ledger: LedgerClient, name: str) -> None:
        number = 0
        while True:
            key, number = f"load-{name}-{number}", number + 1
            try:
                await ledger.write(partial(put, key=key, value="1"))
            except LedgerUnavailable:
                not_done.append(key)
                await trio.sleep(0.02)
            else:
                done.append(key)

    with cluster() as own:
        url = own.new_ledger()
        async with running(url, fatal) as ledger, trio.open_nursery() as nursery:
            for name in "abcdefgh":
                nursery.start_soon(write_on, ledger, name)
            for how in ("fast", "immediate"):
                await grown(done, 50)
                await trio.to_thread.run_sync(own.stop, how)
                await trio.to_thread.run_sync(own.start)
            await grown(done, 50)
            nursery.cancel_scope.cancel()
        kept = {key for (key,) in rows(url, "SELECT key FROM meta")}
    assert fatal == []
    assert [key for key in done if key not in kept] == []
    assert [key for key in not_done if key in kept] == []


async def test_a_lock_that_is_held_for_long_is_waited_for_by_no_one_longer_than_half_a_lease(url: str) -> None:
    async with running(url, [], ttl_s=3.0) as ledger:
        await ledger.write(partial(put, key="a", value="1"))
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE meta IN ACCESS EXCLUSIVE MODE")
            with trio.fail_after(2.5), pytest.raises(LedgerUnavailable, match="held the ledger for too long"):
                await ledger.read(partial(get, key="a"))
            with trio.fail_after(2.5), pytest.raises(LedgerUnavailable, match="held the ledger for too long"):
                await ledger.write(partial(put, key="a", value="2"))
        assert await ledger.read(partial(get, key="a")) == "1"


def blocked(url: str, most: int, done: Sequence[Future[Any]]) -> None:
    """Return once `most` sessions of the server wait for a lock, or all of `done` are."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    until = time.monotonic() + 10.0
    while rows(url, query) != [(most,)] and not all(each.done() for each in done):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("command", [gateways.drain_gateway, gateways.evict_gateway])
def test_a_gateway_is_drained_or_evicted_while_it_writes(url: str, command: Callable[..., None]) -> None:
    """Neither waits for the other in a circle, however the two meet at a turn that a third has."""
    writer = PostgresServer(url).open_writer(lambda e: None, lambda g: None)
    sources = Sources(profile="local", set=(f"ledger.url={url}",))
    with psycopg.connect(url) as third, ThreadPoolExecutor() as threads:
        third.execute("SELECT id FROM ledger_turn FOR UPDATE")
        commanded = threads.submit(command, 1, sources=sources)
        blocked(url, 1, [commanded])
        group = threads.submit(writer._commit, [partial(put, key="a", value="1")])
        blocked(url, 1 if commanded.done() else 2, [group])
        third.rollback()
        assert commanded.result() is None
        assert "deadlock" not in str(group.result()[0].error)
    writer._close()


def test_a_gateway_that_is_stopped_in_the_midst_of_a_group_holds_up_no_other_for_long(url: str) -> None:
    """The server ends its session, wherever in the group it was stopped: waiting for an answer too."""
    read = Prepared(select(meta.c.value).where(meta.c.key == bindparam("wanted")))
    goes_on, has_turn = threading.Event(), threading.Event()

    def stopped(connection: Connection) -> None:
        read.values(connection, {"wanted": "a"})
        has_turn.set()
        assert goes_on.wait(20)

    one, other = (PostgresServer(url, ttl_s=3.0).open_writer(lambda e: None, lambda g: None) for _ in range(2))
    with ThreadPoolExecutor() as threads:
        late = threads.submit(one._commit, [stopped])
        assert has_turn.wait(10)
        (outcome,) = other._commit([partial(put, key="a", value="1")])
        goes_on.set()
        assert outcome.error is None
        assert isinstance(late.result()[0].error, LedgerUnavailable)
    one._close()
    other._close()


def test_a_gateway_that_is_stopped_before_all_of_a_group_was_sent_is_ended_by_another(url: str) -> None:
    """There the server has no timeout of its own: it waits for the rest."""
    server = PostgresServer(url, ttl_s=1.5)
    one, other = (server.open_writer(lambda e: None, lambda g: None) for _ in range(2))
    link = one._usable()
    link.ahead.new_group()
    turn = [link.ahead.send("BEGIN"), link.ahead.send(one._lease.renewal), link.ahead.send(TURN)]  # type: ignore[union-attr]
    link.raw.pgconn.send_flush_request()
    link.ahead._read_until(turn[-1])
    until = time.monotonic() + 10.0
    while other._commit([partial(put, key="a", value="1")])[0].error is not None:
        assert time.monotonic() < until
        other._look()
    link.close()
    other._close()


def test_a_reader_that_connected_before_the_lease_knows_what_is_its_own_from_then_on(url: str) -> None:
    """It took no session for its own: which of the readers looked decided whether a paid node was started."""
    PostgresServer(url).open_inline().close()
    server = PostgresServer(url)
    readers = server.open_readers(1)
    assert readers.read_now(owners.me, 5.0) == owners.ALONE
    writer = server.open_writer(lambda e: None, lambda g: None)
    assert server.lease is not None
    assert readers.read_now(owners.me, 5.0) == server.lease.epoch
    assert writer._commit([owners.me])[0].value == server.lease.epoch
    readers.close()
    writer._close()


def renewed(writers: Sequence[PostgresWriter], for_s: float) -> None:
    """Each renews its lease in turns, as an idle writer does."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        for writer in writers:
            writer._look()
        time.sleep(0.1)


def test_after_an_outage_longer_than_the_lease_each_comes_back_and_only_who_stays_away_is_ended() -> None:
    ttl_s = 1.5
    with cluster() as own:
        url = own.new_ledger()
        writers = [PostgresServer(url, ttl_s=ttl_s).open_writer(lambda e: None, lambda g: None) for _ in range(3)]
        renewed(writers, 1.5 * ttl_s)
        own.stop()
        renewed(writers, 1.5 * ttl_s)
        own.start()
        for writer in (*writers, *writers):  # the first that is back finds the leases of the others run out
            assert writer._look() == (None, False)
        live = "SELECT epoch FROM gateways WHERE ended_at IS NULL ORDER BY epoch"
        assert rows(url, live) == [(1,), (2,), (3,)]
        until = time.monotonic() + 60.0  # who stalls for half a lease begins anew to judge
        while rows(url, live) != [(1,), (2,)]:
            assert time.monotonic() < until
            renewed(writers[:2], ttl_s / 2)
        for writer in writers:
            writer._close()


async def grown(found: list[str], by: int) -> None:
    wanted = len(found) + by
    with trio.fail_after(60):
        while len(found) < wanted:  # noqa: ASYNC110 - another process makes it grow
            await trio.sleep(0.01)


async def test_what_one_process_does_for_all_the_next_does_when_it_has_ended(url: str) -> None:
    done: list[str] = []

    async def work(ledger: LedgerClient, name: str) -> None:
        await wait_for_turn(ledger, "relay_emitter")
        done.append(name)

    async with running(url, [], ttl_s=2.0) as second, trio.open_nursery() as nursery:
        async with running(url, [], ttl_s=2.0) as first:
            await work(first, "first")
            assert await first.write(partial(claim, role="relay_emitter"))
            assert not await second.write(partial(claim, role="relay_emitter"))
            assert await second.write(partial(claim, role="relay_anchors"))
            nursery.start_soon(work, second, "second")
            listed = {row.epoch: row.roles for row in await second.read(lease.listed)}
            assert list(listed.values()) == ["relay_emitter", "relay_anchors"]
            assert done == ["first"]
        with trio.fail_after(20):
            await grown(done, 1)
    assert done == ["first", "second"]


@may_crash(LedgerUnavailable)
async def test_a_synchronous_standby_that_is_promoted_under_load_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    """The primary is destroyed in the midst of it; both addresses are in ledger.url."""
    done: list[str] = []
    fatal: list[LedgerError] = []

    async def write_on(ledger: LedgerClient, name: str) -> None:
        number = 0
        while True:
            key, number = f"load-{name}-{number}", number + 1
            try:
                await ledger.write(partial(put, key=key, value="1"))
            except LedgerUnavailable:
                await trio.sleep(0.02)
            else:
                done.append(key)

    with cluster() as primary, cluster("-c cluster_name=standby", primary) as standby:
        primary.run("ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()")
        url = primary.new_ledger()
        both = url.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
        async with running(both, fatal, ttl_s=10.0) as ledger, trio.open_nursery() as nursery:
            for name in "abcdefgh":
                nursery.start_soon(write_on, ledger, name)
            await grown(done, 100)
            await trio.to_thread.run_sync(primary.stop, "immediate")
            await trio.to_thread.run_sync(standby.promote)
            await grown(done, 100)
            nursery.cancel_scope.cancel()
        kept = {key for (key,) in rows(url.replace(str(primary.port), str(standby.port)), "SELECT key FROM meta")}
    assert fatal == []
    assert [key for key in done if key not in kept] == []
