"""One writer: durable before it is answered, each request alone in its fate, nobody left waiting."""

import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from engram.durable import DurableError, Group, OutcomeUnknown, Readers, Writer
from engram.durable import commit_thread as writers
from engram.durable import group as group_commit
from engram.durable import writer as sqlite_writer
from engram.durable.connection import open_reader, open_writer
from engram.durable.driver import sqlite3
from tests.durable.stores import DATABASE, NotKept, Unknown, names, names_on_disk, put
from tests.memory.stores import until

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def writing(path: Path, **options: object) -> AsyncIterator[Writer[sqlite3.Connection]]:
    writer = Writer(DATABASE, path, **options)  # type: ignore[arg-type]
    writer.start()
    try:
        yield writer
    finally:
        await trio.to_thread.run_sync(writer.close)


def refuse(connection: sqlite3.Connection) -> None:
    put("undone")(connection)
    raise LookupError("no such thing")


async def test_a_request_that_raises_undoes_itself_and_not_its_neighbours(tmp_path: Path) -> None:
    groups: list[Group] = []
    writer = Writer(DATABASE, tmp_path / "a.db", on_group=groups.append)
    outcomes: list[object] = []
    for transaction in (put("a"), refuse, put("b")):
        writer.submit(writers.WriteRequest(transaction, lambda outcome: outcomes.append(outcome.error)))
    writer.start()
    with trio.fail_after(10):
        await until(lambda: len(groups) == 1)
    assert [type(error) for error in outcomes] == [type(None), LookupError, type(None)]
    assert [outcome.word for outcome in groups[0].outcomes] == ["done", "refused", "done"]
    await trio.to_thread.run_sync(writer.close)
    assert names_on_disk(tmp_path / "a.db") == {"a", "b"}


async def test_a_large_request_has_a_group_of_its_own(tmp_path: Path) -> None:
    groups: list[Group] = []
    writer = Writer(DATABASE, tmp_path / "a.db", on_group=groups.append)
    for number, size in enumerate((200, 56, 1, 1_000, 1)):
        writer.submit(writers.WriteRequest(put(f"n{number}"), lambda outcome: None, size))
    writer.start()
    with trio.fail_after(10):
        await until(lambda: writer.commits.transactions == 5)
        await until(lambda: len(groups) == 4)
    assert [len(group.outcomes) for group in groups] == [2, 1, 1, 1]
    await trio.to_thread.run_sync(writer.close)


async def test_a_full_disk_is_not_done_and_the_writer_goes_on(tmp_path: Path) -> None:
    async with writing(tmp_path / "a.db") as writer:
        await writer.write(put("before"))
        pages = writer.raw.execute("PRAGMA page_count").fetchone()[0]
        writer.raw.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(NotKept, match="free some space"):
            await writer.write(put("large", "x" * 100_000))
        writer.raw.execute("PRAGMA max_page_count = 100000")
        await writer.write(put("after"))
    assert names_on_disk(tmp_path / "a.db") == {"before", "after"}


async def test_what_waits_beyond_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "MOST_WAITING", 2)
    writer = Writer(DATABASE, tmp_path / "a.db")
    errors: list[Exception | None] = []
    for name in "abc":
        writer.submit(writers.WriteRequest(put(name), lambda outcome: errors.append(outcome.error)))
    assert [type(error) for error in errors] == [NotKept]
    writer.start()
    with trio.fail_after(10):
        await until(lambda: len(errors) == 3)
    await writer.write(put("d"))
    await trio.to_thread.run_sync(writer.close)
    assert names_on_disk(tmp_path / "a.db") == {"a", "b", "d"}


async def test_a_commit_of_unknown_outcome_is_fatal_and_what_waits_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fatal: list[DurableError] = []
    monkeypatch.setattr(Writer, "max_group", 1)
    monkeypatch.setattr(
        sqlite_writer, "run_group", lambda *_: [group_commit.Outcome(error=Unknown("COMMIT failed: disk I/O error"))]
    )
    writer = Writer(DATABASE, tmp_path / "a.db", on_fatal=fatal.append)
    errors: list[Exception | None] = []
    for name in "abc":
        writer.submit(writers.WriteRequest(put(name), lambda outcome: errors.append(outcome.error)))
    writer.start()
    with trio.fail_after(10):
        await until(lambda: len(errors) == 3)
    assert [type(error) for error in errors] == [Unknown, NotKept, NotKept]
    assert len(fatal) == 1
    with pytest.raises(NotKept, match="disk I/O error"):
        await writer.write(put("d"))
    await trio.to_thread.run_sync(writer.close)


@pytest.mark.parametrize("fault", [RuntimeError("a fault of ours"), SystemExit(3)])
async def test_a_writer_that_fails_tells_everyone_who_waits_instead_of_hanging_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    fatal: list[DurableError] = []

    def broken(*_: object) -> list[group_commit.Outcome]:
        raise fault

    monkeypatch.setattr(sqlite_writer, "run_group", broken)
    async with writing(tmp_path / "a.db", on_fatal=fatal.append) as writer:
        with trio.fail_after(10):
            with pytest.raises(OutcomeUnknown, match="the writer of the box failed"):
                await writer.write(put("a"))
            with pytest.raises(NotKept, match="the writer of the box failed"):
                await writer.write(put("b"))
    assert len(fatal) == 1


async def test_a_closed_writer_refuses(tmp_path: Path) -> None:
    async with writing(tmp_path / "a.db") as writer:
        pass
    with pytest.raises(NotKept, match="closed"):
        await writer.write(put("a"))


async def test_what_was_submitted_is_committed_before_it_closes(tmp_path: Path) -> None:
    writer = Writer(DATABASE, tmp_path / "a.db")
    for number in range(1_000):
        writer.submit(writers.WriteRequest(put(f"n{number}"), lambda outcome: None))
    writer.start()
    await trio.to_thread.run_sync(writer.close)
    assert len(names_on_disk(tmp_path / "a.db")) == 1_000


async def test_only_the_writer_checkpoints(tmp_path: Path) -> None:
    """Readers can neither write nor checkpoint, not by command, not by themselves, not when the last of them closes."""
    path, log = tmp_path / "a.db", tmp_path / "a.db-wal"
    async with writing(path, quiet_s=3_600) as writer:
        for number in range(50):
            await writer.write(put(f"n{number}", "x" * 10_000))
        before = path.read_bytes()
        reader = open_reader(path)
        assert reader.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        assert reader.execute("PRAGMA query_only").fetchone() == (1,)
        reader.execute("PRAGMA query_only = OFF")
        for statement in ("DELETE FROM kept", "PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"):
            try:
                reader.execute(statement).fetchall()
            except sqlite3.OperationalError:
                continue
        assert len(names(reader)) == 50
        reader.close()
        assert path.read_bytes() == before
        held = open_reader(path)
        kept = log.read_bytes()
    assert names(held) == {f"n{number}" for number in range(50)}
    path.write_bytes(before)
    log.write_bytes(kept)  # as a process that was killed leaves it: the log is not empty
    held.close()
    last = open_reader(path)
    assert len(names(last)) == 50
    last.close()
    assert path.read_bytes() == before


async def test_what_was_deleted_is_in_no_file_once_it_is_quiet(tmp_path: Path) -> None:
    path, log, secret = tmp_path / "a.db", tmp_path / "a.db-wal", b"what nobody is to read again"
    async with writing(path, quiet_s=0.01) as writer:
        held = open_reader(path)
        held.execute("BEGIN")
        names(held)
        await writer.write(put("a", secret.decode()))
        await writer.write(put("a", "else"))  # a reader is in the way of the log, and of nobody else
        assert secret in log.read_bytes()
        held.close()
        with trio.fail_after(10):
            await until(lambda: log.stat().st_size == 0)
        assert secret not in path.read_bytes()


async def test_a_query_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    async with writing(tmp_path / "a.db") as writer:
        await writer.write(put("a"))
        readers = Readers(DATABASE, tmp_path / "a.db", 1)
        with pytest.raises(NotKept, match="takes too long"):
            await readers.read(lambda connection: connection.execute(endless).fetchone(), budget_s=0.05)
        assert await readers.read(names) == {"a"}
        with pytest.raises(NotKept, match="readonly"):
            await readers.read(put("b"))
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await readers.read(lambda connection: connection.execute("SELECT * FROM missing"))
        readers.close()


@pytest.mark.parametrize("moment", ["begin", "commit"])
@pytest.mark.parametrize("number", range(1, 9))
def test_kill_minus_nine_around_every_commit_loses_nothing_that_was_acknowledged(
    tmp_path: Path, moment: str, number: int
) -> None:
    path = tmp_path / "a.db"
    done = subprocess.run(
        [sys.executable, "-m", "tests.durable.writing", str(path), "9"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"ENGRAM_KILL_AT": f"{moment}:{number}", "ENGRAM_TEST_KILL": "1"},
    )
    assert done.returncode == -9, done.stderr
    acknowledged = [int(line) for line in done.stdout.split()]
    assert acknowledged == list(range(number - 1))
    kept = names_on_disk(path)
    assert kept == {f"n{each}" for each in range(number - 1 if moment == "begin" else number)}
    threads = threading.active_count()
    Writer(DATABASE, path).close()
    assert threading.active_count() == threads


async def test_an_error_that_ends_the_transaction_of_a_reader_is_not_hidden_by_its_rollback(tmp_path: Path) -> None:
    async with writing(tmp_path / "a.db"):
        readers = Readers(DATABASE, tmp_path / "a.db", 1)

        def lost(connection: sqlite3.Connection) -> None:
            connection.execute("ROLLBACK")  # as SQLite does it by itself
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        with pytest.raises(NotKept, match="disk I/O error"):
            await readers.read(lost)
        assert await readers.read(names) == set()
        readers.close()


def test_a_commit_without_memory_is_of_unknown_outcome(tmp_path: Path) -> None:
    raw, handle = open_writer(DATABASE, tmp_path / "a.db")
    error = sqlite3.OperationalError("out of memory")
    error.sqlite_errorcode = sqlite3.SQLITE_NOMEM
    assert isinstance(group_commit._commit_failure(DATABASE, handle, error), Unknown)
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert isinstance(group_commit._commit_failure(DATABASE, handle, error), NotKept)
    raw.close()
