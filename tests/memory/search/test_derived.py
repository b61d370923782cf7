"""`verify` covers words and windows, and `reindex` makes them anew."""

import contextlib
from pathlib import Path

import pytest

from engram.durable.driver import sqlite3
from engram.memory.upkeep import derived, verify
from tests.memory.search.searchers import ShortSighted, searching
from tests.memory.search.test_windows import FAR, LONG

pytestmark = pytest.mark.rules


async def stored(folder: Path) -> None:
    async with searching(folder, ShortSighted()) as it:
        for text in ("the quick fox", "a slow fox", LONG):
            await it.put(text)
        await it.put("", made_here=False)
        await it.words.find("mine", "fox")
        await it.windows.reached(5)
        assert verify.check(folder).problems == [], "while the node runs"


def spoil(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("file", "statement", "named"),
    [
        ("words.db", "DELETE FROM words_1 WHERE rowid = 1", "1 records are not found by their words"),
        ("words.db", "INSERT INTO words_1 (rowid, text) VALUES (77, 'x')", "1 deleted records have words"),
        ("words.db", "DELETE FROM words_1_data WHERE id > 100", "words.db: "),
        ("words.db", "UPDATE meta SET value = 'another' WHERE key = 'truth_id'", ""),
    ],
)
async def test_what_is_wrong_with_the_words_is_named(tmp_path: Path, file: str, statement: str, named: str) -> None:
    await stored(tmp_path)
    assert verify.check(tmp_path).is_sound
    spoil(tmp_path / file, statement)
    problems = verify.check(tmp_path).problems
    assert bool(problems) == bool(named)
    assert all(named in each and "engram miner reindex" in each for each in problems)
    assert derived.rebuild_words(tmp_path) == 3
    assert verify.check(tmp_path).is_sound


@pytest.mark.parametrize(
    ("statement", "named", "noticed_at_start"),
    [
        ("DELETE FROM windows", "the windows of 1 records are missing or too many", True),
        ("UPDATE windows SET vectors = zeroblob(length(vectors))", "the windows of 1 records are damaged", False),
        ("UPDATE windows SET vectors = x'0011'", "the windows of 1 records are damaged", False),
        ("UPDATE windows SET id = 77", "the windows of 1 records are damaged", False),
        ("UPDATE windows SET id = 77", "1 deleted records have windows", False),
        ("UPDATE meta SET value = '1' WHERE key = 'format'", "", True),
    ],
)
async def test_what_is_wrong_with_the_windows_is_named(
    tmp_path: Path, statement: str, named: str, noticed_at_start: bool
) -> None:
    await stored(tmp_path)
    spoil(tmp_path / "windows.db", statement)
    problems = verify.check(tmp_path).problems
    assert bool(problems) == bool(named)
    assert any(named in each and "engram miner reindex" in each for each in problems) == bool(named)
    if not noticed_at_start:
        derived.forget_windows(tmp_path)
    embedder = ShortSighted()
    async with searching(tmp_path, embedder) as it:
        await it.windows.reached(5)
    assert embedder.windowed == [LONG]
    assert verify.check(tmp_path).is_sound


async def test_windows_that_are_no_vectors_are_made_anew_and_fail_no_search(tmp_path: Path) -> None:
    await stored(tmp_path)
    spoil(tmp_path / "windows.db", "UPDATE windows SET vectors = x'0011'")
    async with searching(tmp_path, ShortSighted()) as it:
        await it.windows.reached(5)
        assert await it.find("fox", mode="hybrid")
        await it.windows.reached(5)
        [best] = await it.find(FAR, mode="vector", top_k=1)
        assert best.record.text == LONG
    assert verify.check(tmp_path).is_sound


async def test_torn_windows_are_named_and_made_anew(tmp_path: Path) -> None:
    await stored(tmp_path)
    path = tmp_path / "windows.db"
    path.write_bytes(path.read_bytes()[:4_096] + bytes(path.stat().st_size - 4_096))
    [problem, *_] = verify.check(tmp_path).problems
    assert "windows.db" in problem
    derived.forget_windows(tmp_path)
    assert verify.check(tmp_path).is_sound
    embedder = ShortSighted()
    async with searching(tmp_path, embedder) as it:
        await it.windows.reached(5)
    assert embedder.windowed == [LONG]
