"""Group commit on PostgreSQL: each request alone in its fate, and a lost COMMIT is found out."""

import gc
import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import DataError, IntegrityError

import engram
from engram.durable import Commits
from engram.ledger import LedgerUnavailable, LedgerUnusable
from engram.ledger.facts import get, put
from engram.ledger.migrations import MIGRATIONS
from engram.ledger.postgres.group import CommitLost, Fenced, GroupCommit, Transaction
from engram.ledger.postgres.lease import Lease, end, end_expired, take_over
from engram.ledger.postgres.link import Link
from engram.ledger.postgres.server import PostgresServer
from engram.ledger.prepared import Prepared
from engram.ledger.sql import metadata
from engram.ledger.tables import meta
from engram.payments import records as payment_records
from engram.payments.tables import payments
from tests.payments.builders import payment
from tests.postgres import Cluster, needs_postgresql, rows

PACKAGE = Path(engram.__file__).parent
for module in (file for file in PACKAGE.rglob("*.py") if file.name == "tables.py" or "Prepared(" in file.read_text()):
    importlib.import_module(".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts))

pytestmark = needs_postgresql
ADD = Prepared(insert(meta))
COLUMNS = "information_schema.columns WHERE table_schema = current_schema()"


@pytest.fixture
def link(url: str) -> Iterator[Link]:
    link = PostgresServer(url).open_inline()
    yield link
    link.close()


def sent(key: str) -> Transaction:
    """A row whose result nobody waits for."""
    return lambda connection: ADD.apply(connection, {"key": key, "value": "1"})


def fail(connection: Connection) -> None:
    put(connection, "undone", "1")
    raise ValueError("refused by its own function")


def swallow(connection: Connection) -> str:
    try:
        ADD.change(connection, {"key": "a", "value": "again"})
    except IntegrityError:
        return "went on"
    return "no error"


def test_each_request_is_alone_in_its_fate_whether_its_results_are_read_or_not(link: Link) -> None:
    commits = Commits()
    group = [sent("a"), sent("a"), sent("b"), lambda c: get(c, "a"), fail, sent("b"), swallow, sent("c")]
    outcomes = GroupCommit(link, None).run(group, commits)
    kinds = [type(outcome.error) for outcome in outcomes]
    assert kinds == [
        type(None),
        IntegrityError,
        *[type(None)] * 2,
        ValueError,
        IntegrityError,
        IntegrityError,
        type(None),
    ]
    assert outcomes[3].value == "1"
    found = link.read(lambda c: [get(c, key) for key in ("a", "b", "c", "undone")], 5.0)
    assert found == ["1", "1", "1", None]
    assert (commits.commits, commits.transactions) == (1, 8)


def test_a_last_request_that_fails_late_takes_no_other_with_it(link: Link, url: str) -> None:
    outcomes = GroupCommit(link, None).run([sent("a"), sent("a")], Commits())
    assert [type(outcome.error) for outcome in outcomes] == [type(None), IntegrityError]
    assert rows(url, "SELECT key FROM meta WHERE key = 'a'") == [("a",)]


def test_a_value_that_postgresql_refuses_fails_its_request_alone(link: Link) -> None:
    too_large = Prepared(insert(metadata.tables["play_accounts"]))
    group = [sent("a"), lambda c: too_large.apply(c, {"address": b"x", "balance": 2**70}), sent("b")]
    outcomes = GroupCommit(link, None).run(group, Commits())
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]


def test_text_with_nul_is_refused_and_never_cut(link: Link, url: str) -> None:
    """The protocol ends a text there: what is looked up or kept would be another one."""
    read = Prepared(select(meta.c.value).where(meta.c.key == bindparam("wanted")))
    group = [sent("a"), sent("a\0b"), lambda c: read.values(c, {"wanted": "a\0b"}), sent("b")]
    outcomes = GroupCommit(link, None).run(group, Commits())
    assert [type(outcome.error) for outcome in outcomes] == [type(None), DataError, DataError, type(None)]
    assert rows(url, "SELECT key FROM meta WHERE key IN ('a', 'b') ORDER BY key") == [("a",), ("b",)]


def test_a_connection_cut_within_a_group_leaves_nothing_and_says_so(link: Link, url: str) -> None:
    def cut(connection: Connection) -> None:
        put(connection, "cut", "1")
        rows(url, f"SELECT pg_terminate_backend({link.raw.info.backend_pid})")
        get(connection, "cut")

    outcomes = GroupCommit(link, None).run([sent("a"), cut, sent("b")], Commits())
    assert [type(outcome.error) for outcome in outcomes] == [LedgerUnavailable] * 3
    assert rows(url, "SELECT key FROM meta WHERE key IN ('a', 'b', 'cut')") == []


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_answer_is_lost_is_found_out(url: str, monkeypatch: pytest.MonkeyPatch, arrives: bool) -> None:
    """Sent and cut off before its answer, or cut off before it left: the lease's own row says which."""
    server = PostgresServer(url)
    link = server.open_inline()
    lease = Lease.register(link, "g0", "here", "", 30.0)
    pid, settle, commits = link.raw.info.backend_pid, link.ahead.settle, Commits()

    def lose_answer() -> None:
        if link.ahead._outstanding[-1].sql != "COMMIT":
            settle()
            return
        if arrives:
            settle()
        rows(url, f"SELECT pg_terminate_backend({pid})")
        link.raw.close()
        raise psycopg.OperationalError("cut")

    monkeypatch.setattr(link.ahead, "settle", lose_answer)
    with pytest.raises(CommitLost) as lost:
        GroupCommit(link, lease.renewal).run([sent("a")], commits)
    again = server.open_inline()
    assert lease.took_effect(again, lost.value.groups) is arrives
    assert bool(rows(url, "SELECT key FROM meta WHERE key = 'a'")) is arrives
    again.close()


def test_the_group_of_a_lease_that_was_ended_commits_nothing(link: Link, url: str) -> None:
    lease = Lease.register(link, "g0", "here", "", 30.0)
    assert GroupCommit(link, lease.renewal).run([sent("before")], Commits())[0].error is None
    assert end(link.handle, lease.epoch)
    with pytest.raises(Fenced):
        GroupCommit(link, lease.renewal).run([sent("after")], Commits())
    assert rows(url, "SELECT key FROM meta WHERE key IN ('before', 'after')") == [("before",)]


def test_a_lease_that_ran_out_is_renewed_unless_another_has_ended_it(link: Link) -> None:
    lease = Lease.register(link, "g0", "here", "", 0.0)
    assert GroupCommit(link, lease.renewal).run([sent("a")], Commits())[0].error is None
    other = Lease.register(link, "g1", "there", "", 30.0)
    (ended,) = GroupCommit(link, other.renewal).run([lambda c: end_expired(c, other.epoch)], Commits())
    assert ended.value == [lease.epoch]
    assert lease.epoch != other.epoch


MANY = (
    "INSERT INTO sessions (id, controller, state, tier, paid_s, amount_usd_micros, network, payment_id, created_at, "
    "owner_epoch) SELECT 's' || n, '', 'active', 'lite', 1, 1, 'play', '', 1, 2 FROM generate_series(1, 20000) AS n"
)


def test_a_look_at_what_is_left_reads_no_session_that_has_an_owner(link: Link, url: str) -> None:
    """All gateways wait for it, four times in each lease."""
    gone, busy, me = (Lease.register(link, name, "here", "", 30.0) for name in ("g0", "g1", "g2"))
    link.handle.exec_driver_sql(MANY)
    link.handle.exec_driver_sql("UPDATE sessions SET owner_epoch = 1 WHERE id IN ('s1', 's2')")
    link.handle.exec_driver_sql("ANALYZE sessions")
    assert end(link.handle, gone.epoch)

    def look(connection: Connection) -> tuple[dict[str, int], int]:
        taken = take_over(connection, me.epoch, 1e9)
        query = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = 'sessions'::regclass"
        return taken, connection.exec_driver_sql(query).scalar_one()

    found = [GroupCommit(link, me.renewal).run([look], Commits())[0].value for _ in range(2)]
    assert found == [({"sessions": 2}, 0), ({}, 0)]
    owners = rows(url, "SELECT owner_epoch, count(*) FROM sessions GROUP BY 1 ORDER BY 1")
    assert owners == [(busy.epoch, 19_998), (me.epoch, 2)]


def test_a_payment_that_is_taken_over_is_due_at_once_by_the_new_owners_clock(link: Link, url: str) -> None:
    """The old owner's clock may have been an hour ahead."""
    gone, me = (Lease.register(link, name, "here", "", 30.0) for name in ("g0", "g1"))
    late = payment_records.columns_of(payment()) | {"owner_epoch": gone.epoch, "next_attempt_at": 5e9}
    GroupCommit(link, None).run([lambda c: c.execute(insert(payments).values(late)).rowcount], Commits())
    assert end(link.handle, gone.epoch)
    GroupCommit(link, me.renewal).run([lambda c: take_over(c, me.epoch, 1e9)], Commits())
    assert rows(url, "SELECT owner_epoch, next_attempt_at FROM payments") == [(me.epoch, 1e9)]


def test_the_turn_is_waited_for_only_so_long(link: Link, url: str) -> None:
    other = psycopg.connect(url)
    other.execute("SELECT id FROM ledger_turn FOR UPDATE")
    link.handle.exec_driver_sql("SET lock_timeout = 50")
    (outcome,) = GroupCommit(link, None).run([sent("a")], Commits())
    assert isinstance(outcome.error, LedgerUnavailable)
    assert "held the ledger for too long" in str(outcome.error)
    other.close()
    assert GroupCommit(link, None).run([sent("a")], Commits())[0].error is None


@pytest.mark.parametrize(
    ("configured", "used"),
    [("off", "on"), ("local", "on"), ("remote_write", "remote_write"), ("remote_apply", "remote_apply")],
)
def test_a_commit_is_on_disk_before_it_is_acknowledged_whatever_the_server_says(
    url: str, configured: str, used: str
) -> None:
    options = url.replace("options=", f"options=-csynchronous_commit%3D{configured}%20")
    writer = PostgresServer(options).open_writer(lambda e: None, lambda g: None)
    show = lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar()  # noqa: E731
    (outcome,) = writer._commit([show])
    writer._close()
    assert outcome.value == used


def test_a_disk_that_is_full_or_a_server_that_only_reads_is_said_to_be_so(link: Link) -> None:
    link.handle.exec_driver_sql("SET default_transaction_read_only = on")
    (outcome,) = GroupCommit(link, None).run([sent("a")], Commits())
    assert isinstance(outcome.error, LedgerUnavailable)
    assert "read-only: connect to the primary" in str(outcome.error)


def test_what_is_described_is_what_a_new_ledger_has(link: Link, url: str) -> None:
    found = rows(url, f"SELECT table_name, column_name, is_nullable FROM {COLUMNS}")
    described = {
        (table.name, column.name, "YES" if column.nullable else "NO")
        for table in metadata.tables.values()
        for column in table.columns
    }
    own = {"ledger_schema", "ledger_turn", "gateways"}
    assert {row for row in found if row[0] not in own} == described
    indexes = {name for (name,) in rows(url, "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()")}
    assert {index.name for table in metadata.tables.values() for index in table.indexes} <= indexes
    narrow = f"SELECT table_name FROM {COLUMNS} AND data_type IN ('integer', 'real')"
    assert rows(url, narrow) == []


def test_every_prepared_statement_is_one_that_the_server_takes(link: Link) -> None:
    found = [each for each in gc.get_objects() if isinstance(each, Prepared)]
    assert len(found) > 50
    link.ahead.new_group()
    for each in found:
        link.ahead._prepare(each)
    link.ahead.leave()


def test_two_processes_that_open_a_new_ledger_at_once_make_it_once(url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        links = list(threads.map(lambda _: PostgresServer(url).open_inline(), range(4)))
    for each in links:
        each.close()
    assert rows(url, "SELECT version FROM ledger_schema") == [(len(MIGRATIONS),)]
    assert rows(url, "SELECT count(*) FROM meta WHERE key = 'ledger_id'") == [(1,)]


def test_a_newer_ledger_and_a_server_that_is_away_are_refused_by_name(link: Link, url: str, server: Cluster) -> None:
    rows(url, "UPDATE ledger_schema SET version = 999 RETURNING version")
    with pytest.raises(LedgerUnusable, match="schema version 999"):
        PostgresServer(url).open_inline()
    away = "postgresql://engram:secret@127.0.0.1:1/ledger"
    with pytest.raises(LedgerUnavailable, match=r"postgresql://engram@127.0.0.1:1/ledger cannot be reached") as refused:
        PostgresServer(away).open_inline()
    assert "secret" not in str(refused.value)
