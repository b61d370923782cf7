"""Batches in the truth and the store: one write, told of in pieces."""

import contextlib
from pathlib import Path

import pytest
import trio
import trio.testing

from engram.clock import SeededIds, SystemClock
from engram.durable.driver import sqlite3
from engram.memory.errors import TruthUnavailable
from engram.memory.filters import EVERYTHING
from engram.memory.model import PUBLIC
from engram.memory.store.record_db import Truth
from tests.memory.stores import ExactIndex, entry, excerpt, opened, vector


def open_truth(folder: Path) -> Truth:
    return Truth.open(folder / "truth.db", SystemClock(), SeededIds(1))


async def test_a_batch_is_numbered_in_order_and_leaves_what_is_there_as_it_is(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    truth = open_truth(tmp_path)
    told: list[int] = []
    truth.on_changes = lambda changes: told.extend(change.sequence for change in changes)
    nursery.start_soon(truth.run, lambda: None)
    kept = await truth.put(entry(vector(1), text="first"))
    stored = await truth.put_all([entry(vector(2, 1)), entry(vector(1), text="second"), entry(vector(3, 1))])
    again = await truth.put_all([entry(vector(4, 1)), entry(vector(4, 1))])
    assert [record.sequence for record in stored] == [2, 1, 3]
    assert stored[1] == kept
    assert again[0] == again[1]
    assert told == [1, 2, 3, 4]
    assert await truth.last_sequence() == 4
    nursery.cancel_scope.cancel()
    truth.close()


async def test_other_tasks_have_their_turn_while_a_batch_is_told_of(tmp_path: Path, nursery: trio.Nursery) -> None:
    truth = open_truth(tmp_path)
    pieces: list[int] = []
    seen_by_other: set[int] = set()
    truth.on_changes = lambda changes: pieces.append(len(changes))

    async def other() -> None:
        while sum(pieces) < 70:
            seen_by_other.add(len(pieces))
            await trio.lowlevel.checkpoint()

    nursery.start_soon(truth.run, lambda: None)
    async with trio.open_nursery() as both:
        both.start_soon(other)
        await truth.put_all([entry(vector(1, i)) for i in range(70)])
    assert pieces == [32, 32, 6]
    assert seen_by_other & {1, 2}
    nursery.cancel_scope.cancel()
    truth.close()


async def test_batches_share_a_transaction_as_long_as_it_stays_small(tmp_path: Path, nursery: trio.Nursery) -> None:
    truth = open_truth(tmp_path)
    commits: list[str] = []
    truth._writer.raw.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
    async with trio.open_nursery() as batches:
        for first in range(5):
            batches.start_soon(truth.put_all, [entry(vector(1 + first, i)) for i in range(100)])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(truth.run, lambda: None)
    assert len(commits) == 3
    assert (await truth.count()).public == 500
    nursery.cancel_scope.cancel()
    truth.close()


async def test_a_batch_that_does_not_fit_is_stored_not_at_all(tmp_path: Path, nursery: trio.Nursery) -> None:
    truth = open_truth(tmp_path)
    nursery.start_soon(truth.run, lambda: None)
    await truth.put(entry(vector(1)))
    pages = truth._writer.raw.execute("PRAGMA page_count").fetchone()[0]
    truth._writer.raw.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(TruthUnavailable, match="full"):
        await truth.put_all([entry(vector(3, i), text="x" * 4_000) for i in range(64)])
    assert (await truth.count()).public == 1
    assert await truth.last_sequence() == 1
    nursery.cancel_scope.cancel()
    truth.close()


async def test_a_batch_is_found_when_it_is_acknowledged(tmp_path: Path) -> None:
    async with opened(tmp_path) as both:
        stored = await both.store.put_all([entry(vector(1, i)) for i in range(1, 100)])
        (hit,) = await both.store.query(PUBLIC, vector(1, 99), 1, EVERYTHING)
        assert hit.record == excerpt(stored[-1])
        assert both.store.count().public == await both.index.points() == 99


async def test_a_damaged_record_is_deleted_among_others(tmp_path: Path) -> None:
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        stored = await both.store.put_all([entry(vector(1, number)) for number in range(3)])
        with contextlib.closing(sqlite3.connect(tmp_path / "truth.db", isolation_level=None)) as behind_its_back:
            behind_its_back.execute("UPDATE records SET metadata = '{' WHERE id = ?", (stored[1].id,))
        outcomes = await both.store.delete_all(PUBLIC, [record.cid for record in stored], lambda owner: True)
        assert outcomes == ["deleted"] * 3
        assert both.store.count().public == await both.index.points() == 0


async def test_a_batch_of_deletions_survives_a_restart_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as both:
        stored = await both.store.put_all([entry(vector(1, number)) for number in range(10)])
        gone = [record.cid for record in stored[:7]]
        assert await both.store.delete_all(PUBLIC, [*gone, "v1::none"], lambda owner: True) == [
            *["deleted"] * 7,
            "not_found",
        ]
        assert await both.store.delete_all(PUBLIC, [stored[8].cid], lambda owner: owner is not None) == ["not_owner"]
    async with opened(tmp_path) as both:
        hits = await both.store.query(PUBLIC, vector(1), 50, EVERYTHING)
        assert {hit.record.cid for hit in hits} == {record.cid for record in stored[7:]}
