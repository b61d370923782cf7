"""How the index follows the truth when things go wrong: too far behind, too slow, hung, or not what it says."""

import errno
import math
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from engram.durable.driver import sqlite3
from engram.memory import indexed_store
from engram.memory.errors import IndexUnavailable, TruthUnavailable
from engram.memory.filters import EVERYTHING, Filter
from engram.memory.index import edge_index
from engram.memory.index.edge_index import EdgeIndex
from engram.memory.index.protocol import Nearest
from engram.memory.model import PUBLIC, Change, Upserted
from engram.memory.store import record_db
from tests.descriptors import open_descriptors
from tests.memory.stores import ExactIndex, entry, opened, until, vector


class SlowIndex(ExactIndex):
    """Makes changes only while `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = trio.Event()

    async def apply(self, changes: Sequence[Change], sequence: int) -> int:
        await self.open.wait()
        return await super().apply(changes, sequence)

    async def search(self, namespace: str, vector: bytes, limit: int, conditions: Filter, give_up_at: float) -> Nearest:
        with trio.move_on_at(give_up_at):
            await self.open.wait()
            return await super().search(namespace, vector, limit, conditions, give_up_at)
        raise IndexUnavailable("this index did not answer in time")


class KeepingIndex(ExactIndex):
    """Keeps its vectors from life to life and says that it stands at `claims`."""

    def __init__(self, claims: int, *kept: Upserted) -> None:
        super().__init__()
        self.claims = claims
        self.vectors = {each.id: each for each in kept}

    async def run(self, ready: Callable[[int], None]) -> None:
        ready(self.claims)
        await trio.sleep_forever()


async def test_changes_beyond_the_queue_are_read_from_the_truth_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed_store, "_QUEUE", 3)
    index = SlowIndex()
    async with opened(tmp_path, lambda truth: index) as both, trio.open_nursery() as nursery:
        await until(lambda: both.store.usable)
        for i in range(30):
            nursery.start_soon(both.store.put, entry(vector(1, i)))
        await until(lambda: both.store.count().public == 30)
        index.open.set()
        await until(lambda: len(index.vectors) == 30)
        gone = entry(vector(1, 7))
        assert await both.store.delete(PUBLIC, gone.cid)
        assert len(await both.store.query(PUBLIC, vector(1), 50, EVERYTHING)) == 29


async def test_a_write_that_the_index_does_not_make_in_time_is_durable_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed_store, "_APPLY_WITHIN_S", 0.05)
    monkeypatch.setattr(indexed_store, "_SEARCH_WITHIN_S", 0.05)
    index = SlowIndex()
    async with opened(tmp_path, lambda truth: index) as both:
        with pytest.raises(IndexUnavailable, match="durable"):
            await both.store.put(entry(vector(1)))
        assert await both.store.get(PUBLIC, entry(vector(1)).cid) is not None
        with pytest.raises(IndexUnavailable, match="in time"):
            await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)
        index.open.set()
        await until(lambda: len(index.vectors) == 1)
        assert len(await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)) == 1


async def test_a_query_waits_no_longer_for_its_turn_to_read_the_records_than_for_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(record_db, "_READERS", 1)
    reading, may_end = threading.Event(), threading.Event()

    def read(connection: sqlite3.Connection) -> None:
        reading.set()
        may_end.wait()

    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        await both.store.put(entry(vector(1)))
        monkeypatch.setattr(indexed_store, "_SEARCH_WITHIN_S", 0.05)
        nursery.start_soon(both.truth.read, read)
        await trio.to_thread.run_sync(reading.wait)
        try:
            with pytest.raises(TruthUnavailable, match="in time"):
                await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)
        finally:
            may_end.set()


async def test_an_index_older_than_what_was_forgotten_is_built_anew(tmp_path: Path) -> None:
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        kept = await both.store.put(entry(vector(1)))
        ghost = await both.store.put(entry(vector(1, 1)))
        await both.store.delete(PUBLIC, ghost.cid)
        await both.truth.prune(3)
    haunted = KeepingIndex(2, Upserted(2, ghost.id, PUBLIC, ghost.embedding, {}))
    async with opened(tmp_path, lambda truth: haunted) as both:
        hits = await both.store.query(PUBLIC, vector(1, 1), 1, EVERYTHING)
        assert [hit.record.cid for hit in hits] == [kept.cid]
        assert list(haunted.vectors) == [kept.id]


async def test_an_index_that_lacks_vectors_it_should_have_is_built_anew(tmp_path: Path) -> None:
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        stored = [await both.store.put(entry(vector(1, i))) for i in range(5)]
    async with opened(tmp_path, lambda truth: KeepingIndex(5)) as both:
        hits = await both.store.query(PUBLIC, vector(1), 50, EVERYTHING)
        assert {hit.record.cid for hit in hits} == {record.cid for record in stored}


async def test_deletions_are_forgotten_once_the_index_has_them_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed_store, "_PRUNE_EVERY", 4)
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        for i in range(3):
            await both.store.put(entry(vector(1, i)))
            await both.store.delete(PUBLIC, entry(vector(1, i)).cid)
        assert await index.flush() == 6
        await both.store.put(entry(vector(9)))
        await until(lambda: both.truth.pruned_to >= 6)
        assert len(await both.truth.changes_since(0, 10)) == 1


async def test_only_what_came_after_the_last_flush_is_replayed(tmp_path: Path) -> None:
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        for i in range(5):
            await both.store.put(entry(vector(1, i)))
        assert await index.flush() == 5
        await both.store.put(entry(vector(2, 9)))
        worker = index.worker_pid
        assert worker is not None
        read: list[int] = []
        original = both.truth.changes_since

        async def noting(sequence: int, limit: int) -> list[Change]:
            read.append(sequence)
            return await original(sequence, limit)

        both.truth.changes_since = noting  # type: ignore[method-assign]  # to see what is read
        os.kill(worker, signal.SIGKILL)
        await until(lambda: not both.store.usable)
        assert len(await both.store.query(PUBLIC, vector(1), 50, EVERYTHING)) == 6
        assert read[0] == 5


async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_index, "_HUNG_AFTER_S", 0.2)
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        await both.store.put(entry(vector(1)))
        worker = index.worker_pid
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        late = await both.store.put(entry(vector(1, 1)))
        assert {hit.record.cid for hit in await both.store.query(PUBLIC, vector(1), 9, EVERYTHING)} >= {late.cid}
        assert index.worker_pid != worker


async def test_a_worker_that_hangs_is_replaced_though_nobody_waits_for_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_index, "_HUNG_AFTER_S", 0.2)
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        await both.store.put(entry(vector(1)))
        worker = index.worker_pid
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        with trio.move_on_after(0.01):
            await both.store.query(PUBLIC, vector(1), 9, EVERYTHING)
        await until(lambda: index.worker_pid not in (worker, None))
        assert len(await both.store.query(PUBLIC, vector(1), 9, EVERYTHING)) == 1


async def test_searches_that_a_hung_worker_leaves_waiting_are_told_so_and_keep_their_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed_store, "_SEARCH_WITHIN_S", 0.1)
    monkeypatch.setattr(edge_index, "_SEARCHES_AT_ONCE", 2)
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        await both.store.put(entry(vector(1)))
        await until(lambda: both.store.usable)
        assert index.worker_pid is not None
        os.kill(index.worker_pid, signal.SIGSTOP)
        for reason in ("did not answer in time", "did not answer in time", "too many open requests"):
            with pytest.raises(IndexUnavailable, match=reason):
                await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)
        os.kill(index.worker_pid, signal.SIGCONT)
        monkeypatch.setattr(indexed_store, "_SEARCH_WITHIN_S", 5.0)
        assert len(await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)) == 1
        assert both.deaths == 0


async def test_an_index_that_is_down_is_told_as_such(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path / "index", 8, "truth")
    with pytest.raises(IndexUnavailable, match="restarting"):
        await index.search(PUBLIC, vector(1), 1, EVERYTHING, math.inf)


async def test_a_worker_for_whose_pipes_there_are_no_descriptors_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, duplicate, left = EdgeIndex(tmp_path / "index", 8, "truth"), os.dup, [0]

    def scarce(descriptor: int) -> int:
        if not left:
            raise OSError(errno.EMFILE, "too many open files")
        left.pop()
        return duplicate(descriptor)

    before = open_descriptors("pipe:", "anon_inode:[pidfd]")
    monkeypatch.setattr(os, "dup", scarce)
    with pytest.raises(OSError, match="too many"):
        await index.run(lambda flushed: None)
    assert open_descriptors("pipe:", "anon_inode:[pidfd]") - before == {}
