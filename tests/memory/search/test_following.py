"""Who waits for what while a derived file follows the truth: each for its own changes, and in turn."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from engram.clock import ManualClock, SeededIds
from engram.memory.errors import IndexUnavailable
from engram.memory.model import PUBLIC, Entry
from engram.memory.search.feed import Fed, TextStored
from engram.memory.search.following import Cleared, Follower
from engram.memory.store.record_db import Truth
from tests.memory.stores import entry, vector

ANNA, BERT = bytes([1]) * 32, bytes([2]) * 32


class Notes:
    """Notes what it is given, one change at a time; `held` holds up those whose text begins so."""

    name = "notes"
    batch = 1
    most_chars = 1

    def __init__(self, *, is_shared: bool) -> None:
        self.is_shared = is_shared
        self.texts: list[str] = []
        self.held = "none"
        self.free = trio.Event()
        self.sequence = 0

    async def open(self) -> int:
        return 0

    async def apply(self, changes: Sequence[Fed], sequence: int) -> None:
        for change in changes:
            text = change.text if isinstance(change, TextStored) else "gone"
            if (text or "").startswith(self.held):
                await self.free.wait()
            self.texts.append(text or "")
        self.sequence = sequence

    async def missed(self, truth: Truth) -> int:
        return self.sequence

    async def reset(self) -> None:
        self.texts.clear()

    async def clear(self) -> Cleared:
        return "done"


class Followed:
    def __init__(self, truth: Truth, follower: Follower, notes: Notes) -> None:
        self.truth = truth
        self.follower = follower
        self.notes = notes
        self._number = 0

    async def put(self, text: str, count: int = 1, namespace: str = "mine", owner: bytes | None = None) -> None:
        await self.truth.put_all([self._entry(f"{text} {n}", namespace, owner) for n in range(count)])

    def _entry(self, text: str, namespace: str, owner: bytes | None) -> Entry:
        self._number += 1
        return entry(vector(1, self._number), namespace, text, owner)


@contextlib.asynccontextmanager
async def following(folder: Path, *, is_shared: bool) -> AsyncIterator[Followed]:
    truth, notes = Truth.open(folder / "truth.db", ManualClock(), SeededIds(1)), Notes(is_shared=is_shared)
    follower = Follower(truth, notes)
    truth.on_changes = follower.hint
    async with trio.open_nursery() as nursery:
        nursery.start_soon(truth.run, lambda: None)
        nursery.start_soon(follower.run, lambda: None)
        with trio.fail_after(10):
            await follower.reached(5)
            yield Followed(truth, follower, notes)
        nursery.cancel_scope.cancel()
    truth.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 -- what is waited for has no event of its own
        await trio.sleep(0.001)


async def test_nobody_waits_for_what_another_namespace_has_stored(tmp_path: Path) -> None:
    async with following(tmp_path, is_shared=False) as it:
        it.notes.held = "big"
        await it.put("mine")
        await it.follower.reached(5, it.follower.lane("mine", None))
        await it.put("big", 5, "other")
        with trio.fail_after(1):
            await it.follower.reached(5, it.follower.lane("mine", None))
        with pytest.raises(IndexUnavailable):
            await it.follower.reached(0.01, it.follower.lane("other", None))
        assert it.notes.texts == ["mine 0"]
        it.notes.free.set()
        await it.follower.reached(5)
        assert it.follower.behind == 0


async def test_what_is_waited_for_goes_before_what_others_stored_earlier(tmp_path: Path) -> None:
    async with following(tmp_path, is_shared=False) as it:
        it.notes.held = "big"
        await it.put("big", 20, "other")
        await it.put("mine", 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.follower.reached, 5, it.follower.lane("mine", None))
            await trio.testing.wait_all_tasks_blocked()
            it.notes.free.set()
        assert it.notes.texts.index("mine 1") < 8
        await it.follower.reached(5)
        assert sorted(it.notes.texts) == sorted([f"big {n}" for n in range(20)] + ["mine 0", "mine 1"])
        assert it.notes.sequence == await it.truth.last_sequence()


@pytest.mark.parametrize(
    ("first", "second"),
    [(("other", None), ("mine", None)), ((PUBLIC, ANNA), (PUBLIC, BERT)), ((PUBLIC, ANNA), ("mine", ANNA))],
)
async def test_slow_work_is_shared_between_those_who_store(
    tmp_path: Path, first: tuple[str, bytes | None], second: tuple[str, bytes | None]
) -> None:
    async with following(tmp_path, is_shared=True) as it:
        it.notes.held = "many"
        await it.put("many", 30, *first)
        await until(lambda: it.follower.behind == 30)
        await it.put("few", 2, *second)
        it.notes.free.set()
        await it.follower.reached(5)
        assert it.notes.texts.index("few 1") < 12
        assert len(it.notes.texts) == 32, "none is made twice"
        record = await it.truth.read(lambda held: held.execute("SELECT max(sequence) FROM records").fetchone())
        assert it.follower.has(it.follower.lane(*second), record[0])


async def test_a_deletion_before_its_record_was_followed_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    async with following(tmp_path, is_shared=True) as it:
        it.notes.held = "many"
        await it.put("many", 3, PUBLIC, ANNA)
        await it.put("few", 1, PUBLIC, BERT)
        [record] = await it.truth.read(
            lambda held: held.execute("SELECT cid FROM records WHERE text = 'few 0'").fetchall()
        )
        await it.truth.delete(PUBLIC, record[0])
        it.notes.free.set()
        with trio.fail_after(2):
            await it.follower.reached(5, it.follower.lane(PUBLIC, BERT))
        await it.follower.reached(5)
        assert "few 0" not in it.notes.texts
