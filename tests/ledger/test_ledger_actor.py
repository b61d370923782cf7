"""The threaded ledger behind its actor: answers after COMMIT, survives a crash of its actor, ends on I/O errors."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection

from actors import ChildSpec, Intensity, Registry, SupervisorSpec, System, open_system
from engram.durable import Outcome
from engram.durable.driver import sqlite3
from engram.ledger import (
    LEDGER_FILE,
    CommitPending,
    CommitUnknown,
    LedgerActor,
    LedgerClient,
    LedgerError,
    LedgerUnavailable,
    open_inline,
)
from engram.ledger.facts import get, put


@contextlib.asynccontextmanager
async def running(folder: Path, fatal: list[LedgerError]) -> AsyncIterator[tuple[System, LedgerClient]]:
    registry = Registry()
    spec = SupervisorSpec(
        "root",
        (ChildSpec("ledger", lambda: LedgerActor(folder, fatal.append), name="ledger"),),
        intensity=Intensity(5, 60.0),
    )
    async with open_system(spec, registry=registry) as system:
        ledger = LedgerClient(registry.ref(LedgerActor, "ledger"), folder)
        try:
            yield system, ledger
        finally:
            ledger.close()


async def test_many_writers_share_commits_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async with running(tmp_path, []) as (_, ledger):
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
        commits = await ledger.commits()
        assert commits.transactions == 200
        assert commits.commits < 200
        assert await ledger.read(lambda connection: get(connection, "key-199")) == "199"


async def test_a_read_sees_what_was_answered_before_it(tmp_path: Path) -> None:
    async with running(tmp_path, []) as (_, ledger):
        for number in range(20):
            await ledger.write(partial(put, key="key", value=str(number)))
            assert await ledger.read(lambda connection: get(connection, "key")) == str(number)


async def test_a_transaction_that_raises_reaches_its_caller_and_the_ledger_goes_on(tmp_path: Path) -> None:
    def refuse(connection: Connection) -> None:
        put(connection, "undone", "1")
        raise LookupError("no such thing")

    async with running(tmp_path, []) as (_, ledger):
        with pytest.raises(LookupError, match="no such thing"):
            await ledger.write(refuse)
        assert await ledger.read(lambda connection: get(connection, "undone")) is None


async def test_writing_through_a_reader_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, []) as (_, ledger):
        with pytest.raises(Exception, match="readonly"):
            await ledger.read(lambda connection: put(connection, "a", "1"))
        await ledger.write(lambda connection: put(connection, "a", "1"))


async def test_what_was_acknowledged_is_there_after_a_restart_of_the_tree(tmp_path: Path) -> None:
    async with running(tmp_path, []) as (_, ledger):
        await ledger.write(lambda connection: put(connection, "a", "1"))
    async with running(tmp_path, []) as (_, ledger):
        assert await ledger.read(lambda connection: get(connection, "a")) == "1"


async def test_a_commit_of_unknown_outcome_is_told_as_unknown_and_reported_as_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fatal: list[LedgerError] = []
    async with running(tmp_path, fatal) as (_, ledger):
        await ledger.write(lambda connection: put(connection, "a", "1"))

        def broken(*given: object) -> list[Outcome]:
            return [Outcome(error=CommitUnknown("COMMIT failed: disk I/O error"))]

        monkeypatch.setattr("engram.durable.writer.run_group", broken)
        with pytest.raises(CommitUnknown):
            await ledger.write(lambda connection: put(connection, "b", "2"))
        assert len(fatal) == 1


async def test_a_writer_that_fails_ends_the_process_and_hangs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fatal: list[LedgerError] = []
    async with running(tmp_path, fatal) as (_, ledger):

        def broken(*given: object) -> list[Outcome]:
            raise RuntimeError("a fault of ours")

        monkeypatch.setattr("engram.durable.writer.run_group", broken)
        with trio.fail_after(10):
            with pytest.raises(CommitUnknown, match="a fault of ours"):
                await ledger.write(lambda connection: put(connection, "a", "1"))
            with pytest.raises(LedgerUnavailable, match="a fault of ours"):
                await ledger.write(lambda connection: put(connection, "b", "1"))
        assert len(fatal) == 1


async def test_a_write_that_is_not_answered_in_time_is_pending_and_what_waited_for_too_long_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are errors of the ledger, which its callers expect: nothing crashes, and no process ends."""
    fatal: list[LedgerError] = []
    goes_on = threading.Event()

    def slow(connection: Connection) -> None:
        put(connection, "slow", "1")
        assert goes_on.wait(20)

    async with running(tmp_path, fatal) as (_, ledger):
        monkeypatch.setattr("engram.ledger.actor.WRITE_TIMEOUT_S", 0.05)
        with pytest.raises(CommitPending, match="not known to be written yet"):
            await ledger.write(slow)
        monkeypatch.setattr("engram.ledger.actor.BEGIN_WITHIN_S", 0.0)
        with pytest.raises(CommitPending):
            await ledger.write(partial(put, key="late", value="1"))
        monkeypatch.undo()
        goes_on.set()
        await ledger.write(partial(put, key="after", value="1"))
        found = [await ledger.read(partial(get, key=key)) for key in ("slow", "late", "after")]
        assert found == ["1", None, "1"]
        monkeypatch.setattr("engram.ledger.actor.BEGIN_WITHIN_S", -1.0)
        with pytest.raises(LedgerUnavailable, match="too slow for all that waits"):
            await ledger.write(partial(put, key="late", value="1"))
    assert fatal == []


async def test_a_query_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.ledger.actor.READ_BUDGET_S", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    async with running(tmp_path, []) as (_, ledger):
        with pytest.raises(LedgerUnavailable, match="takes too long"):
            await ledger.read(lambda connection: connection.exec_driver_sql(endless).scalar())
        assert await ledger.read(lambda connection: get(connection, "a")) is None


async def test_a_closed_tree_has_written_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, []) as (_, ledger):
        pass
    with pytest.raises(LedgerUnavailable, match="nothing was written"):
        await ledger.write(lambda connection: put(connection, "a", "1"))


CRASHING_WRITER = """
import sys, pathlib
from engram.ledger.inline import open_inline
from engram.ledger.facts import put
ledger = open_inline(pathlib.Path(sys.argv[1]))
for number in range(1000):
    ledger.write_now(lambda connection: put(connection, f"k{number}", "v"))
    print(number, flush=True)
"""


@pytest.mark.parametrize("point", ["begin:7", "commit:7"])
def test_kill_minus_nine_around_a_commit_loses_nothing_that_was_acknowledged(tmp_path: Path, point: str) -> None:
    path = tmp_path / LEDGER_FILE
    done = subprocess.run(
        [sys.executable, "-c", CRASHING_WRITER, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"ENGRAM_KILL_AT": point, "ENGRAM_TEST_KILL": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == -9
    acknowledged = [int(line) for line in done.stdout.split()]
    assert acknowledged == list(range(6))
    connection = sqlite3.connect(path)
    kept = {row[0] for row in connection.execute("SELECT key FROM meta WHERE key LIKE 'k%'")}
    connection.close()
    assert {f"k{number}" for number in acknowledged} <= kept
    assert (f"k{6}" in kept) == point.startswith("commit")


async def test_a_file_that_is_no_database_any_more_cannot_be_read(tmp_path: Path) -> None:
    open_inline(tmp_path / LEDGER_FILE).close()  # which leaves nothing in the log
    async with running(tmp_path, []) as (_, ledger):
        with (tmp_path / LEDGER_FILE).open("r+b") as file:
            file.write(b"\xa5" * 4_096)
        with pytest.raises(LedgerUnavailable, match="not a database"):
            await ledger.read(lambda connection: get(connection, "key"))
