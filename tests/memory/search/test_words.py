"""Search by words: what is found, that tenants change nothing of each other, and that the file can be made anew."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.durable.driver import sqlite3
from engram.memory.errors import IndexUnavailable
from engram.memory.search import words_db
from engram.memory.search.feed import TextGone, TextStored
from engram.memory.search.words_db import WordsDb
from tests.memory.search.searchers import PUBLIC, searching
from tests.memory.stores import until

TEXTS = ("the quick brown fox", "a slow fox and a quick hare", "LimeSDR boards", "nothing of the kind")


def files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("words.db*"))


@contextlib.contextmanager
def raw(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "words.db", isolation_level=None)) as connection:
        yield connection


async def test_what_is_acknowledged_is_found_by_its_words(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        for text in TEXTS:
            record = await it.put(text)
            assert record.id in await it.words.find("mine", text)
        assert list(await it.words.find("mine", "foxes limesdr")) == [3, 1, 2]


async def test_the_records_of_others_change_no_score(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        for text in TEXTS:
            await it.put(text)
        before = await it.words.find("mine", "quick fox nothing")
        for number in range(40):
            await it.put(f"quick fox {number}", "other")
        assert await it.words.find("mine", "quick fox nothing") == before
        assert len(await it.words.find("other", "quick")) == 40
        assert await it.words.find("nobody", "quick") == {}


async def test_in_the_public_namespace_only_words_that_everyone_may_read_are_found(tmp_path: Path) -> None:
    """The text beside a vector is shown to its owner alone: a search by words would tell it to everyone."""
    async with searching(tmp_path) as it:
        await it.put("a secret word", PUBLIC)
        shown = await it.put("another secret", PUBLIC, text="an open word")
        assert list(await it.words.find(PUBLIC, "secret open word")) == [shown.id]


async def test_deleted_words_are_in_no_file_after_an_idle_second(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        gone = await it.put("zebra crossings are xylophones")
        for text in TEXTS:
            await it.put(text)
        last = await it.put("quagga", "other")
        assert await it.words.find("mine", "zebra")
        assert b"zebra" in files(tmp_path)
        await it.store.delete("mine", gone.cid)
        await it.store.delete("other", last.cid)
        assert await it.words.find("mine", "zebra xylophone") == {}
        await until(lambda: not any(word in files(tmp_path) for word in (b"zebra", b"xylophon", b"quagga")))
        assert len(await it.words.find("mine", "fox")) == 2


async def test_words_deleted_just_before_the_end_leave_the_file_after_the_next_start(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        gone = await it.put("zebra")
        await it.put("fox")
        assert await it.words.find("mine", "zebra")
        await it.store.delete("mine", gone.cid)
        assert await it.words.find("mine", "zebra") == {}
    async with searching(tmp_path):
        await until(lambda: b"zebra" not in files(tmp_path))


async def test_what_happened_while_it_stood_still_is_made_up_for(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        first, second = [await it.put(text) for text in TEXTS[:2]]
        assert await it.words.find("mine", "fox")
    async with searching(tmp_path, follows=False) as it:
        await it.store.delete("mine", first.cid)
        third = await it.put("a third fox")
    async with searching(tmp_path) as it:
        assert set(await it.words.find("mine", "fox")) == {second.id, third.id}


async def test_when_deletions_are_no_longer_listed_it_is_made_anew(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        first, second = [await it.put(text) for text in TEXTS[:2]]
        assert await it.words.find("mine", "fox")
    async with searching(tmp_path, follows=False) as it:
        await it.store.delete("mine", first.cid)
        await it.truth.prune(await it.truth.last_sequence())
    async with searching(tmp_path) as it:
        assert list(await it.words.find("mine", "fox")) == [second.id]


@pytest.mark.parametrize("damage", ["missing", "no database", "torn", "another truth's", "another format"])
async def test_a_file_that_is_no_use_is_made_anew(tmp_path: Path, damage: str) -> None:
    async with searching(tmp_path) as it:
        for text in TEXTS:
            await it.put(text)
        found = await it.words.find("mine", "fox")
    path = tmp_path / "words.db"
    match damage:
        case "missing":
            path.unlink()
        case "no database":
            path.write_bytes(b"something else" * 400)
        case "torn":
            path.write_bytes(path.read_bytes()[:8_192] + bytes(path.stat().st_size - 8_192))
        case _:
            with raw(tmp_path) as connection:
                key = "truth_id" if damage == "another truth's" else "format"
                connection.execute("UPDATE meta SET value = 'x' WHERE key = ?", (key,))
    async with searching(tmp_path) as it:
        assert await it.words.find("mine", "fox") == found


async def test_damage_that_a_search_meets_is_repaired_behind_it(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        for number in range(300):
            await it.put(f"fox {number} {'word ' * 40}")
        found = await it.words.find("mine", "fox 7")
        with raw(tmp_path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("UPDATE words_1_data SET block = x'00ff' WHERE id > 100")
        with pytest.raises(IndexUnavailable, match="damaged and are being built again"):
            await it.words.find("mine", "fox 7")
        found_again: dict[int, float] = {}
        while not found_again:
            with contextlib.suppress(IndexUnavailable):  # on a busy machine it takes longer than a search waits
                found_again = await it.words.find("mine", "fox 7")
        assert found_again == found


async def test_a_record_whose_text_is_no_utf8_holds_up_nothing(tmp_path: Path) -> None:
    async with searching(tmp_path, follows=False) as it:
        await it.put("a broken fox")
        await it.put("a whole fox")
    with contextlib.closing(sqlite3.connect(tmp_path / "truth.db", isolation_level=None)) as connection:
        connection.execute("UPDATE records SET text = CAST(x'ff20666f78' AS TEXT) WHERE id = 1")
    async with searching(tmp_path) as it:
        assert set(await it.words.find("mine", "fox")) == {1, 2}


def test_no_more_records_are_ranked_than_the_bound(tmp_path: Path) -> None:
    from engram.memory.search.feed import TextStored

    words = words_db.WordsDb(tmp_path / "words.db", "truth")
    stored = [TextStored(number, number, "mine", f"fox {number}", None, None) for number in range(1, 1_101)]
    words.apply(stored, 1_100)
    words.close()
    with raw(tmp_path) as connection:
        assert len(words_db.find(connection, "mine", '"fox"')) == words_db.FIRST_RANKED
        assert words_db.find(connection, "mine", "") == {}


async def test_a_record_without_words_comes_and_goes(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        wordless = await it.put("", made_here=False)
        await it.put("fox")
        await it.store.delete("mine", wordless.cid)
        other = await it.put("", "other", made_here=False)
        await it.store.delete("other", other.cid)
        assert len(await it.words.find("mine", "fox")) == 1


async def test_a_file_that_cannot_be_opened_holds_up_nothing_but_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.memory.search.following._FIRST_WAIT_S", 0.02)
    monkeypatch.setattr("engram.memory.search.words._LEVEL_WITHIN_S", 0.1)
    (tmp_path / "words.db").mkdir()
    async with searching(tmp_path) as it:
        await it.put("fox")
        with pytest.raises(IndexUnavailable, match="words of this node are being built"):
            await it.words.find("mine", "fox")
        assert await it.find("fox"), "a search without words goes on"
        (tmp_path / "words.db").rmdir()
        await until(lambda: it.words._follower.sequence == 1)
        assert await it.words.find("mine", "fox")


def test_clearing_is_done_in_small_steps_between_which_all_goes_on(tmp_path: Path) -> None:
    words = WordsDb(tmp_path / "words.db", "truth")
    rng = random.Random(1)
    texts = [" ".join(f"w{rng.randrange(3_000):x}" for _ in range(60)) for _ in range(1_500)]
    texts[6], texts[8] = f"{texts[6]} quokka", f"{texts[8]} wombat"
    words.apply([TextStored(n, n, "mine", f"{text} z{n}", None, True) for n, text in enumerate(texts, 1)], 1_500)
    assert b"okka" in files(tmp_path)
    assert b"ombat" in files(tmp_path)
    words.apply([TextGone(1_501, 7, "mine")], 1_501)
    steps, reader = 0, sqlite3.connect(tmp_path / "words.db", isolation_level=None)
    with contextlib.closing(reader):
        while (left := words.clear()) == "more":
            steps += 1
            assert len(words_db.find(reader, "mine", '"z8"')) == 1
            if steps == 2:
                words.apply([TextGone(1_502, 9, "mine"), TextStored(1_503, 9_000, "mine", "quagga", None, True)], 1_503)
        assert (left, words.is_unclean()) == ("done", False)
        assert steps > 4
        assert words_db.find(reader, "mine", '"quokka" OR "wombat" OR "z7" OR "z9"') == {}
        assert list(words_db.find(reader, "mine", '"quagga"')) == [9_000]
        assert len(words_db.find(reader, "mine", '"z10" OR "z11"')) == 2
    words.close()
    for gone in (b"okka", b"ombat"):
        assert gone not in files(tmp_path)


def test_a_change_that_is_made_twice_changes_nothing(tmp_path: Path) -> None:
    words = WordsDb(tmp_path / "words.db", "truth")
    change = TextStored(1, 1, "mine", "fox", None, True)
    words.apply([change, TextStored(2, 2, "mine", "fox fox", None, True)], 0)
    with contextlib.closing(sqlite3.connect(tmp_path / "words.db", isolation_level=None)) as reader:
        before = words_db.find(reader, "mine", '"fox"')
        words.apply([change], 2)
        assert words_db.find(reader, "mine", '"fox"') == before
    words.close()


def test_what_was_deleted_counts_in_no_statistics(tmp_path: Path) -> None:
    texts = ["fox " * (1 + number % 200) + "hare " * (number % 7) for number in range(300)]
    stored = [TextStored(number, number, "mine", text, None, True) for number, text in enumerate(texts, 1)]
    for name, gone in (("words", range(1, 200)), ("fresh", range(0))):
        words = WordsDb(tmp_path / f"{name}.db", "truth")
        words.apply(stored if gone else stored[199:], 300)
        for number in gone:
            words.apply([TextGone(300 + number, number, "mine")], 300 + number)
        words.close()
    found = []
    for name in ("words", "fresh"):
        with contextlib.closing(sqlite3.connect(tmp_path / f"{name}.db", isolation_level=None)) as reader:
            found.append(words_db.find(reader, "mine", '"hare" OR "fox"'))
    assert found[0] == pytest.approx(found[1])
