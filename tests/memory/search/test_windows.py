"""Long texts are found by all of their windows, and only where this node made the vector from the text."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from engram.durable.driver import sqlite3
from engram.memory.embed.hash_embedder import hash_vector
from engram.memory.errors import IndexUnavailable
from engram.memory.search import windows_db
from tests.memory.search.searchers import PUBLIC, READ, ShortSighted, searching
from tests.memory.stores import DIMENSION, until

FAR = "walruses whistle at whales"
LONG = "otters hold hands while they sleep in the kelp of the bay.. ".ljust(READ) + "x" * READ + FAR


async def test_a_text_is_found_by_what_its_vector_does_not_cover(tmp_path: Path) -> None:
    async with searching(tmp_path, ShortSighted()) as it:
        long = await it.put(LONG)
        for number in range(5):
            await it.put(f"another text {number}")
        await it.windows.reached(5)
        [best] = await it.find(FAR, mode="vector", top_k=1)
        assert best.record.id == long.id
        assert best.score == pytest.approx(1.0)
        [plain] = await it.find(FAR, top_k=1)
        assert plain.score < 0.9, "a search without a mode looks at the records' own vectors alone"
        assert await it.find(FAR, "other", mode="vector") == []


async def test_what_follows_the_acknowledgement_is_known(tmp_path: Path) -> None:
    embedder = ShortSighted()
    embedder.fails = True
    async with searching(tmp_path, embedder) as it:
        record = await it.put(LONG)
        with pytest.raises(IndexUnavailable, match="windows of long texts"):
            await it.windows.reached(0.01)
        assert not it.windows.has(record)
        assert await it.find(FAR, mode="vector"), "what is not embedded yet holds up no search"


@pytest.mark.parametrize(
    ("made_here", "namespace", "of_private", "is_shown", "has_windows"),
    [
        (True, "mine", True, False, True),
        (True, PUBLIC, False, True, True),
        (True, PUBLIC, True, False, False),
        (True, "mine", False, True, False),
        (False, "mine", True, True, False),
        (None, "mine", True, False, True),
    ],
)
async def test_only_a_vector_that_was_made_here_has_windows(
    tmp_path: Path, made_here: bool | None, namespace: str, of_private: bool, is_shown: bool, has_windows: bool
) -> None:
    async with searching(tmp_path, ShortSighted(), of_private=of_private) as it:
        shown: Any = {"text": LONG} if is_shown else {}
        await it.put(LONG, namespace, made_here=made_here, **shown)
        await it.windows.reached(5)
        assert bool(await it.windows.find(namespace, hash_vector(FAR, DIMENSION))) == has_windows


async def test_of_a_record_from_before_the_vector_shows_who_made_it(tmp_path: Path) -> None:
    async with searching(tmp_path, ShortSighted(), follows=False) as it:
        await it.put(LONG, made_here=None)
    with contextlib.closing(sqlite3.connect(tmp_path / "truth.db", isolation_level=None)) as connection:
        connection.execute("UPDATE records SET embedding = ?", (hash_vector("another", DIMENSION),))
    async with searching(tmp_path, ShortSighted()) as it:
        await it.windows.reached(5)
        assert await it.windows.find("mine", hash_vector(FAR, DIMENSION)) == {}


async def test_a_delete_takes_the_windows_too(tmp_path: Path) -> None:
    async with searching(tmp_path, ShortSighted()) as it:
        gone = await it.put(LONG)
        kept = await it.put(LONG.replace("otters", "beavers"))
        await it.windows.reached(5)
        await it.store.delete("mine", gone.cid)
        await it.windows.reached(5)
        assert list(await it.windows.find("mine", hash_vector(FAR, DIMENSION))) == [kept.id]
        needle = hash_vector(LONG[READ : 2 * READ], DIMENSION)
        await it.store.delete("mine", kept.cid)
        await until(lambda: not any(needle in path.read_bytes() for path in tmp_path.glob("windows.db*")))


async def test_windows_are_made_once_and_kept_when_deletions_are_no_longer_listed(tmp_path: Path) -> None:
    async with searching(tmp_path, ShortSighted()) as it:
        gone, kept = await it.put(LONG), await it.put(LONG.replace("otters", "beavers"))
        await it.windows.reached(5)
    async with searching(tmp_path, follows=False) as it:
        await it.store.delete("mine", gone.cid)
        await it.truth.prune(await it.truth.last_sequence())
    later = ShortSighted()
    async with searching(tmp_path, later) as it:
        await it.windows.reached(5)
        assert list(await it.windows.find("mine", hash_vector(FAR, DIMENSION))) == [kept.id]
    assert later.windowed == []


@pytest.mark.parametrize("damage", ["missing", "torn", "another model's"])
async def test_a_file_that_is_no_use_is_made_anew(tmp_path: Path, damage: str) -> None:
    async with searching(tmp_path, ShortSighted()) as it:
        record = await it.put(LONG)
        await it.windows.reached(5)
    path = tmp_path / windows_db.FILE
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:4_096] + bytes(path.stat().st_size - 4_096))
    else:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE meta SET value = 'x' WHERE key = 'model'")
    async with searching(tmp_path, ShortSighted()) as it:
        await it.windows.reached(5)
        assert list(await it.windows.find("mine", hash_vector(FAR, DIMENSION))) == [record.id]
