"""Group commit: one durable COMMIT for many, each request alone in its fate."""

from pathlib import Path

import pytest
from sqlalchemy import Connection

from engram.durable.driver import sqlite3
from engram.ledger import InlineLedger, LedgerUnavailable, LedgerUnusable, open_inline
from engram.ledger.connection import open_writer, reading_engine
from engram.ledger.facts import get, ledger_id, put
from tests.ledger.groups import Commits, Transaction, run_group


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def put_key(key: str, value: str) -> Transaction:
    return lambda connection: put(connection, key, value)


def fail(connection: Connection) -> None:
    put(connection, "undone", "1")
    raise ValueError("refused by its own function")


def test_a_request_that_raises_undoes_itself_and_not_its_neighbours(path: Path) -> None:
    connection = open_writer(path)
    commits = Commits()
    outcomes = run_group(connection, [put_key("a", "1"), fail, put_key("b", "2")], commits)
    assert [type(o.error) for o in outcomes] == [type(None), ValueError, type(None)]
    assert (get(connection, "a"), get(connection, "undone"), get(connection, "b")) == ("1", None, "2")
    assert (commits.commits, commits.transactions) == (1, 3)
    connection.close()


def test_what_is_not_committed_is_not_there_after_the_process_dies(path: Path) -> None:
    connection = open_writer(path)
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql("SAVEPOINT request")
    put(connection, "a", "1")
    connection.exec_driver_sql("RELEASE request")
    connection.close()
    connection = open_writer(path)
    assert get(connection, "a") is None
    connection.close()


def test_a_reader_cannot_write_and_sees_only_what_is_committed(path: Path) -> None:
    writer = open_writer(path)
    reader = reading_engine(path).connect()
    run_group(writer, [put_key("a", "1")], Commits())
    assert get(reader, "a") == "1"
    with pytest.raises(Exception, match="readonly"):
        put(reader, "a", "2")
    assert reader.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
    reader.close()
    writer.close()


def test_the_writer_is_durable_and_its_id_is_made_once(path: Path) -> None:
    connection = open_writer(path)
    assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    first = ledger_id(connection)
    connection.close()
    connection = open_writer(path)
    assert ledger_id(connection) == first
    assert len(first) == 8
    connection.close()


def test_a_newer_schema_is_refused_by_name(path: Path) -> None:
    open_writer(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 999")
    raw.close()
    with pytest.raises(LedgerUnusable, match="schema version 999"):
        open_writer(path)


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"this is no database, it is a letter to my aunt" * 100)
    with pytest.raises(LedgerUnusable, match="not a usable ledger"):
        open_writer(path)


def test_a_damaged_file_is_refused_at_open(path: Path) -> None:
    ledger = open_inline(path)
    for number in range(200):
        ledger.write_now(put_key(f"key-{number}", "x" * 500))
    ledger.write_now(lambda c: None)
    ledger._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    damaged = bytearray(path.read_bytes())
    damaged[20_000:40_000] = b"\xff" * 20_000
    path.write_bytes(damaged)
    with pytest.raises(LedgerUnusable):
        open_inline(path)


def test_a_full_disk_is_told_as_not_done_and_loses_nothing(path: Path) -> None:
    connection = open_writer(path)
    commits = Commits()
    run_group(connection, [put_key("before", "1")], commits)
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    outcomes = run_group(connection, [put_key(f"k{n}", "x" * 3000) for n in range(50)], commits)
    assert any(isinstance(o.error, LedgerUnavailable) for o in outcomes)
    assert "disk is full" in str(next(o.error for o in outcomes if o.error))
    for number, outcome in enumerate(outcomes):
        assert (get(connection, f"k{number}") is not None) == (outcome.error is None)
    connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert run_group(connection, [put_key("after", "1")], commits)[0].error is None
    assert (get(connection, "before"), get(connection, "after")) == ("1", "1")
    connection.close()


def test_a_read_only_ledger_is_told_as_not_done(path: Path) -> None:
    connection = open_writer(path)
    connection.exec_driver_sql("PRAGMA query_only = ON")
    outcome = run_group(connection, [put_key("a", "1")], Commits())[0]
    assert isinstance(outcome.error, LedgerUnavailable)
    assert "read-only" in str(outcome.error)
    connection.close()


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="cannot be opened"):
        open_writer(tmp_path / "missing" / "ledger.sqlite3")


async def test_the_inline_ledger_raises_what_the_transaction_raises() -> None:
    ledger = open_inline()
    with pytest.raises(ValueError, match="its own function"):
        await ledger.write(fail)
    assert await ledger.read(lambda c: get(c, "undone")) is None
    ledger.close()
    with pytest.raises(LedgerUnavailable, match="closed"):
        await ledger.write(fail)


def test_hooks_around_the_commit_are_called() -> None:
    ledger: InlineLedger = open_inline()
    calls: list[str] = []
    ledger.before_commit = lambda: calls.append("before")
    ledger.after_commit = lambda: calls.append("after")
    ledger.write_now(put_key("a", "1"))
    assert calls == ["before", "after"]
    ledger.close()


def test_ledgers_in_memory_have_ids_and_rows_of_their_own() -> None:
    first, second = open_writer(None), open_writer(None)
    first.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
    assert (get(first, "a"), get(second, "a")) == ("b", None)
    assert len({get(first, "ledger_id"), get(second, "ledger_id"), None}) == 3
    for each in (first, second):
        assert each.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        each.close()
