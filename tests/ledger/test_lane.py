"""Reads on the loop: bounded by rule, unable to write or to wait, and closed rather than wrong."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.ledger import LEDGER_FILE, LaneClosed, lookup, open_inline
from engram.ledger.inline import InlineLedger
from engram.ledger.lane import Lane, Lookup
from engram.payments.tables import payments
from engram.sessions import paid_clock, records
from engram.sessions.indexed import IndexedSession
from engram.sessions.tables import SESSION, session_events, sessions
from tests.sessions.test_records import a_session

COLUMNS = [*SESSION, *paid_clock.COLUMNS]
BY_ID = lookup(IndexedSession, COLUMNS, [sessions.c.id])


class EventRow(msgspec.Struct, array_like=True):
    id: int
    session_id: str
    at: float
    event: str
    data: str


class One(msgspec.Struct, array_like=True):
    id: str


HISTORY = lookup(EventRow, list(session_events.c), [session_events.c.session_id], limit=9)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[InlineLedger]:
    ledger = open_inline(tmp_path / LEDGER_FILE)
    ledger.write_now(lambda connection: records.insert_session(connection, a_session()))
    yield ledger
    ledger.close()


@pytest.fixture
def lane(ledger: InlineLedger, tmp_path: Path) -> Iterator[Lane]:
    lane = Lane(tmp_path / LEDGER_FILE)
    yield lane
    lane.close()


def test_a_row_is_what_the_reader_reads(ledger: InlineLedger, lane: Lane) -> None:
    (row,) = lane.rows(BY_ID, a_session().id)
    read = dict(ledger._connection.execute(paid_clock.SESSIONS).mappings().one())
    assert msgspec.structs.asdict(row) | {"controller": bytes.fromhex(row.controller)} == read
    assert lane.rows(BY_ID, "nothing") == []
    assert records.look(ledger, a_session().id) == a_session()


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.one_of(st.none(), st.binary(max_size=40)),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
def test_a_row_keeps_every_digit_and_byte(seconds: float, hotkey: bytes | None, error: str) -> None:
    ledger = open_inline()
    try:
        session = msgspec.structs.replace(
            a_session(), created_at=seconds, controller=bytes(range(224, 256)), node_hotkey=hotkey, error=error
        )
        ledger.write_now(lambda connection: records.insert_session(connection, session))
        assert records.look(ledger, session.id) == session
    finally:
        ledger.close()


def test_what_was_committed_a_moment_ago_is_seen(ledger: InlineLedger, lane: Lane) -> None:
    assert len(lane.rows(BY_ID, a_session().id)) == 1
    ledger.write_now(lambda connection: connection.exec_driver_sql("DELETE FROM sessions"))
    assert lane.rows(BY_ID, a_session().id) == []


def test_only_the_columns_of_an_index_can_be_asked_for() -> None:
    with pytest.raises(ValueError, match="begin none of its indexes"):
        lookup(One, [payments.c.id], [payments.c.transaction_hash])
    with pytest.raises(ValueError, match="at most 256"):
        lookup(EventRow, list(session_events.c), [session_events.c.session_id], limit=257)
    with pytest.raises(ValueError, match="the columns are"):
        lookup(One, list(session_events.c), [session_events.c.session_id])
    assert "LIMIT 9" in HISTORY.sql


@pytest.mark.parametrize("made", [BY_ID, HISTORY])
def test_sqlite_searches_and_never_scans(ledger: InlineLedger, made: Lookup[msgspec.Struct]) -> None:
    plan = ledger._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {made.sql}", ("x",)).fetchall()
    assert all(step[3].startswith("SEARCH") or step[3] == "SCAN paid_clock" for step in plan)  # the clock is one row


def test_a_read_that_takes_too_long_is_given_up_and_the_next_one_is_served_by_the_same_connection(
    ledger: InlineLedger, lane: Lane
) -> None:
    lane.rows(BY_ID, a_session().id)
    connection = lane._connection
    endless = Lookup("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n", str)
    with pytest.raises(LaneClosed, match="interrupted"):
        lane.rows(endless)
    ledger.write_now(lambda connection: connection.exec_driver_sql("UPDATE sessions SET error = 'newer'"))
    assert ledger._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    assert len(lane.rows(BY_ID, a_session().id)) == 1
    assert lane._connection is connection


def test_the_lane_cannot_write(lane: Lane) -> None:
    with pytest.raises(LaneClosed, match="readonly"):
        lane.rows(Lookup("DELETE FROM sessions WHERE id = ?", str), a_session().id)


def test_without_a_ledger_the_lane_is_closed(tmp_path: Path) -> None:
    with pytest.raises(LaneClosed):
        Lane(tmp_path / "none.sqlite3").rows(BY_ID, "x")


def test_a_ledger_that_is_locked_closes_the_lane_at_once_until_it_is_free(ledger: InlineLedger, lane: Lane) -> None:
    ledger._connection.exec_driver_sql("PRAGMA locking_mode=EXCLUSIVE")
    ledger.write_now(lambda connection: connection.exec_driver_sql("DELETE FROM sessions"))
    began = time.perf_counter()
    with pytest.raises(LaneClosed, match="locked"):
        lane.rows(BY_ID, a_session().id)
    assert time.perf_counter() - began < 1.0  # a reader's thread would wait for 5 s
    ledger._connection.exec_driver_sql("PRAGMA locking_mode=NORMAL")
    ledger.write_now(lambda connection: records.insert_session(connection, a_session()))
    assert len(lane.rows(BY_ID, a_session().id)) == 1


def test_a_lane_that_is_open_holds_up_neither_checkpoint_nor_vacuum_nor_a_new_column(
    ledger: InlineLedger, lane: Lane
) -> None:
    for change in (
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "VACUUM",
        "ALTER TABLE sessions ADD COLUMN newer TEXT",
        "CREATE INDEX newer ON sessions (newer)",
    ):
        assert len(lane.rows(BY_ID, a_session().id)) == 1
        done = ledger._connection.exec_driver_sql(change)
        if change.startswith("PRAGMA"):
            assert done.fetchone() == (0, 0, 0)
    assert records.look(ledger, a_session().id) == a_session()
    assert lane.rows(BY_ID, a_session().id)[0].id == a_session().id


def test_a_column_that_is_gone_closes_the_lane(ledger: InlineLedger, lane: Lane) -> None:
    assert len(lane.rows(BY_ID, a_session().id)) == 1
    ledger._connection.exec_driver_sql("ALTER TABLE sessions RENAME COLUMN error TO failure")
    with pytest.raises(LaneClosed, match="no such column"):
        lane.rows(BY_ID, a_session().id)


@pytest.mark.parametrize("name", ["what?", "no#1", "50%41"])
def test_the_lane_opens_the_ledger_of_its_own_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with (
        contextlib.closing(open_inline(folder / LEDGER_FILE)) as ledger,
        contextlib.closing(Lane(folder / LEDGER_FILE)) as lane,
    ):
        ledger.write_now(lambda connection: records.insert_session(connection, a_session()))
        assert len(lane.rows(BY_ID, a_session().id)) == 1
