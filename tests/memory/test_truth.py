"""The truth: durable before acknowledged, readable by one owner, honest about what it could not do."""

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from engram.clock import SeededIds, SystemClock
from engram.durable.driver import sqlite3
from engram.memory.errors import TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.filters import EVERYTHING
from engram.memory.model import PUBLIC, Deleted, Upserted
from engram.memory.store import record_sql
from engram.memory.store.notebook_db import Notebook
from engram.memory.store.record_db import Truth
from tests.memory.stores import entry, until, vector


def open_truth(folder: Path) -> Truth:
    return Truth.open(folder / "truth.db", SystemClock(), SeededIds(1))


async def test_changes_are_numbered_and_told_in_order(tmp_path: Path, nursery: trio.Nursery) -> None:
    truth = open_truth(tmp_path)
    told: list[int] = []
    truth.on_changes = lambda changes: told.extend(change.sequence for change in changes)
    nursery.start_soon(truth.run, lambda: None)
    first = await truth.put(entry(vector(1)))
    await truth.put(entry(vector(1)))
    await truth.put(entry(vector(2, 1)))
    await truth.delete(PUBLIC, first.cid)
    assert told == [1, 2, 3]
    assert await truth.last_sequence() == 3
    changes = await truth.changes_since(0, 10)
    assert [type(change) for change in changes] == [Upserted, Deleted]
    assert [change.sequence for change in changes] == [2, 3]
    assert [change.sequence for change in await truth.changes_since(0, 1)] == [2]
    assert await truth.changes_since(3, 10) == []
    nursery.cancel_scope.cancel()
    truth.close()


async def test_pruned_deletions_are_forgotten_and_the_mark_stays(tmp_path: Path, nursery: trio.Nursery) -> None:
    truth = open_truth(tmp_path)
    nursery.start_soon(truth.run, lambda: None)
    await truth.put(entry(vector(1)))
    await truth.delete(PUBLIC, entry(vector(1)).cid)
    await truth.prune(2)
    await truth.prune(1)
    assert await truth.changes_since(0, 10) == []
    assert truth.pruned_to == 2
    nursery.cancel_scope.cancel()
    truth.close()
    reopened = open_truth(tmp_path)
    assert reopened.pruned_to == 2
    reopened.close()


async def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, nursery: trio.Nursery) -> None:
    truth = open_truth(tmp_path)
    nursery.start_soon(truth.run, lambda: None)
    kept = await truth.put(entry(vector(1)))
    truth._writer.raw.execute("PRAGMA max_page_count = 1")
    with pytest.raises(TruthUnavailable, match="full"):
        for i in range(200):
            await truth.put(entry(vector(3, i), text="x" * 4_000))
    truth._writer.raw.execute("PRAGMA max_page_count = 1000000")
    assert (await truth.put(entry(vector(1, 7)))).id > kept.id
    assert await truth.get(PUBLIC, kept.cid) == kept
    nursery.cancel_scope.cancel()
    truth.close()


async def test_what_was_committed_before_the_writer_failed_is_answered(tmp_path: Path) -> None:
    truth = open_truth(tmp_path)
    stored: list[str] = []

    async def put(number: int) -> None:
        stored.append((await truth.put(entry(vector(number)))).cid)

    async with trio.open_nursery() as nursery:
        truth._writer.start()
        nursery.start_soon(put, 1)
        with trio.fail_after(10):
            await until(lambda: len(truth._committed) == 1)
        truth._fail(WriteUnknown("COMMIT failed"))
        with pytest.raises(WriteUnknown):
            await truth.run(lambda: None)
        with trio.fail_after(10):
            await until(lambda: len(stored) == 1)
    truth.close()


async def test_a_read_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    truth = open_truth(tmp_path)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(TruthUnavailable, match="interrupted"):
        await truth.read(lambda connection: connection.execute(endless).fetchone(), budget_s=0.05)
    assert (await truth.count()).public == 0
    truth.close()


async def test_readers_cannot_write(tmp_path: Path) -> None:
    truth = open_truth(tmp_path)
    with pytest.raises(TruthUnavailable, match="readonly"):
        await truth.read(lambda connection: connection.execute("DELETE FROM records"))
    truth.close()


def test_a_damaged_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "truth.db").write_bytes(b"this is no database at all" * 400)
    with pytest.raises(TruthUnreadable, match="backup"):
        open_truth(tmp_path)


async def test_what_was_deleted_is_in_no_file_once_it_is_quiet(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.memory.store.record_db._QUIET_S", 0.01)
    truth = open_truth(tmp_path)
    nursery.start_soon(truth.run, lambda: None)
    secret = "what nobody is to read again"
    kept, gone = await truth.put(entry(vector(1))), await truth.put(entry(vector(2, 1), PUBLIC, secret))
    held = sqlite3.connect(tmp_path / "truth.db", isolation_level=None)
    held.execute("BEGIN")
    held.execute("SELECT * FROM records").fetchall()
    await truth.delete(PUBLIC, gone.cid)
    await truth.put(entry(vector(3, 1)))  # a reader is in the way of the log, and of nobody else
    log = tmp_path / "truth.db-wal"
    assert secret.encode() in log.read_bytes()
    held.close()
    with trio.fail_after(10):
        await until(lambda: log.stat().st_size == 0)
    assert secret.encode() not in (tmp_path / "truth.db").read_bytes()
    assert await truth.get(PUBLIC, kept.cid) == kept
    assert (await truth.put(entry(vector(1, 4)))).sequence == 5


async def test_a_damaged_record_is_told_and_troubles_no_other(tmp_path: Path, nursery: trio.Nursery) -> None:
    truth = open_truth(tmp_path)
    nursery.start_soon(truth.run, lambda: None)
    damaged, sound = await truth.put(entry(vector(1))), await truth.put(entry(vector(2, 1)))
    with sqlite3.connect(tmp_path / "truth.db") as connection:
        connection.execute("UPDATE records SET metadata = '{\"k' WHERE id = ?", (damaged.id,))
    connection.close()

    async def fails(ask: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(TruthUnavailable, match="engram miner verify"):
            await ask()

    async with trio.open_nursery() as together:
        together.start_soon(fails, lambda: truth.get(PUBLIC, damaged.cid))
        together.start_soon(fails, lambda: truth.put(entry(vector(1))))
        together.start_soon(fails, lambda: truth.delete(PUBLIC, damaged.cid))
        together.start_soon(fails, lambda: truth.read(lambda held: record_sql.page(held, PUBLIC, EVERYTHING, 10, 0)))
        together.start_soon(truth.put, entry(vector(3, 1)))
    assert await truth.get(PUBLIC, sound.cid) == sound
    assert (await truth.count()).public == 3


async def test_a_text_that_cannot_be_decoded_is_not_quoted(tmp_path: Path, nursery: trio.Nursery) -> None:
    truth = open_truth(tmp_path)
    nursery.start_soon(truth.run, lambda: None)
    record = await truth.put(entry(vector(1), PUBLIC, "kept between us"))
    with sqlite3.connect(tmp_path / "truth.db") as connection:
        connection.execute("UPDATE records SET text = cast(x'ff' || text AS TEXT)")
    connection.close()
    for ask in (lambda: truth.get(PUBLIC, record.cid), lambda: truth.delete(PUBLIC, record.cid)):
        with pytest.raises(TruthUnavailable) as raised:
            await ask()
        assert "between" not in str(raised.value)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    open_truth(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "truth.db")
    connection.execute(f"PRAGMA user_version = {record_sql.SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(TruthUnreadable, match="schema"):
        open_truth(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TruthUnavailable):
        open_truth(tmp_path / "nowhere")


@pytest.mark.parametrize("store", ["records", "notebook"])
async def test_a_writer_that_fails_ends_the_process_and_hangs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """What runs the writer raises, again when it is run again: the tree gives up, and opening finds out."""

    def broken(*given: object) -> list[object]:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("engram.durable.writer.run_group", broken)
    opened: Truth | Notebook = open_truth(tmp_path) if store == "records" else Notebook.open(tmp_path / "notebook.db")

    async def write() -> None:
        if isinstance(opened, Truth):
            await opened.put(entry(vector(1)))
        else:
            await opened.write(lambda connection: None)

    ended: list[Exception] = []

    async def run() -> None:
        for _ in range(2):
            try:
                await opened.run(lambda: None)
            except WriteUnknown as error:
                ended.append(error)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            with pytest.raises(WriteUnknown, match="a fault of ours"):
                await write()
            with pytest.raises(TruthUnavailable, match="a fault of ours"):
                await write()
    assert len(ended) == 2
    opened.close()


@pytest.mark.parametrize("store", ["records", "notebook"])
@pytest.mark.parametrize("point", ["begin:3", "commit:3"])
def test_kill_minus_nine_around_a_commit_loses_nothing_that_was_acknowledged(
    tmp_path: Path, store: str, point: str
) -> None:
    environment = os.environ | {"ENGRAM_KILL_AT": f"{store}:{point}", "ENGRAM_TEST_KILL": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KEEPER, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    acknowledged = {line for line in done.stdout.split() if line.startswith(store)}
    assert len(acknowledged) == 2
    table, name = ("records", "truth.db") if store == "records" else ("key_shares", "notebook.db")
    connection = sqlite3.connect(tmp_path / name)
    kept = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    assert kept == (2 if point.startswith("begin") else 3)


KEEPER = """
import sys, trio
from pathlib import Path
from engram.clock import SystemClock, SeededIds
from engram.memory.store import key_shares
from engram.memory.store.notebook_db import Notebook
from engram.memory.store.record_db import Truth
from tests.memory.stores import entry, vector

async def main():
    folder = Path(sys.argv[1])
    truth = Truth.open(folder / "truth.db", SystemClock(), SeededIds(1))
    notebook = Notebook.open(folder / "notebook.db")
    share = key_shares.KeptShare(1, "00", 2, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(truth.run, lambda: None)
        for number in range(9):
            await truth.put(entry(vector(1, number)))
            print(f"records{number}", flush=True)
            await notebook.write(lambda c: key_shares.put(c, "owner", str(number), share, 1.0, 100))
            print(f"notebook{number}", flush=True)

trio.run(main)
"""


WRITER = """
import sys, trio
from pathlib import Path
from engram.clock import SystemClock, SeededIds
from engram.memory.store.record_db import Truth
from tests.memory.stores import entry, vector

async def main():
    truth = Truth.open(Path(sys.argv[1]) / "truth.db", SystemClock(), SeededIds(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(truth.run, lambda: None)
        i = 0
        while True:
            record = await truth.put(entry(vector(1, i)))
            print("put", record.cid, flush=True)
            if i % 3 == 0:
                await truth.delete("__public__", record.cid)
                print("deleted", record.cid, flush=True)
            i += 1

trio.run(main)
"""


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().split() for _ in range(150)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [line.split() for line in writer.stdout if line.endswith("\n")]
    writer.stdout.close()
    writer.wait()
    gone = {cid for verb, cid in acknowledged if verb == "deleted"}
    connection = sqlite3.connect(tmp_path / "truth.db")
    there = {row[0] for row in connection.execute("SELECT cid FROM records")}
    connection.close()
    # The last put may be the one that was about to be deleted.
    assert {cid for verb, cid in acknowledged if verb == "put"} - gone - there <= {acknowledged[-1][1]}
    assert not gone & there
