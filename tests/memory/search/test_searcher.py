"""What a search with a mode finds: filters and validity before the best are chosen, words, age and variety."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from engram.memory import cid
from engram.memory.embed.hash_embedder import hash_vector
from engram.memory.model import ALWAYS, PUBLIC, Entry, Validity
from tests.memory.search.searchers import READ, Searching, ShortSighted, searching
from tests.memory.stores import DIMENSION

DAY_S = 86_400.0
MODES = [None, "vector", "words", "hybrid"]


async def test_names_are_found_by_words_where_meaning_misses_them(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        await it.put("the zx81 is a home computer")
        for number in range(80):
            await it.put(f"a text about something else, number {number}")
        assert await it.texts("zx81", mode="words") == ["the zx81 is a home computer"]
        [best, *_] = await it.find("zx81", mode="hybrid", top_k=3)
        assert best.record.text == "the zx81 is a home computer"
        assert best.relevance == pytest.approx(best.score + 0.3)
        assert (await it.find("zx81", top_k=1))[0].relevance is None


@pytest.mark.parametrize("mode", MODES)
async def test_a_filter_is_applied_before_the_best_are_chosen(tmp_path: Path, mode: str | None) -> None:
    async with searching(tmp_path) as it:
        for number in range(150):
            await it.put("a fox in the forest", color="red", number=str(number))
        for number in range(3):
            await it.put("some forest fire", color="blue", number=str(number))
        options: dict[str, Any] = {"mode": mode, "top_k": 2}
        for where in (
            {"color": "blue"},
            {"color": {"$in": ["blue", "green"]}},
            {"number": {"$lt": 1}, "color": "blue"},
        ):
            found = await it.find("a fox in the forest", **options, filter=where)
            assert {each.record.metadata["color"] for each in found} == {"blue"}
        assert len(found) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_superseded_or_has_expired_takes_no_place(tmp_path: Path, mode: str | None) -> None:
    async with searching(tmp_path) as it:
        for number in range(120):
            await it.put(f"home is in town {number}", validity=Validity(key="home"))
        fleeting = await it.put("home is here for a day", validity=Validity(expires_at=it.clock.now() + DAY_S))
        other = await it.put("home is where one lives")
        options: dict[str, Any] = {"mode": mode, "top_k": 3}
        found = {each.record.text for each in await it.find("home is in town 5", **options)}
        assert found == {"home is in town 119", fleeting.text, other.text}
        it.clock.advance(DAY_S)
        assert fleeting.text not in await it.texts("home is in town 5", **options)
        [best, *_] = await it.find("home is in town 5", **options, history=True)
        assert best.record.text == "home is in town 5"


async def test_newer_ones_count_more_by_a_half_life(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        old = await it.put("the meeting is on monday")
        it.clock.advance(30 * DAY_S)
        new = await it.put("the meeting is on tuesday")
        plain = {each.record.id: each.score for each in await it.find("the meeting is on monday")}
        ranked = await it.find("the meeting is on monday", recency=30 * DAY_S)
        assert {each.record.id: each.relevance for each in ranked} == {
            old.id: pytest.approx(plain[old.id] + 0.1),
            new.id: pytest.approx(plain[new.id] + 0.2),
        }
        assert all(each.score == pytest.approx(plain[each.record.id]) for each in ranked)


async def test_what_says_the_same_is_shown_less(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        for number in range(8):
            await it.put("the cat sat on the mat", said=str(number))
        await it.put("the cat ran away")
        assert set(await it.texts("the cat sat on the mat", top_k=4)) == {"the cat sat on the mat"}
        varied = await it.texts("the cat sat on the mat", top_k=2, diversity=0.5)
        assert varied == ["the cat sat on the mat", "the cat ran away"]
        assert len(await it.find("the cat", top_k=9, diversity=1.0)) == 9


async def test_another_namespace_changes_no_answer_of_any_mode(tmp_path: Path) -> None:
    async with searching(tmp_path) as it:
        for number in range(20):
            await it.put(f"the fox number {number} of the forest")
        options: list[dict[str, Any]] = [{"mode": mode, "diversity": 0.3, "recency": DAY_S} for mode in MODES]
        before = [await it.find("fox 7 forest", **each) for each in options]
        for number in range(60):
            await it.put(f"fox 7 forest {number}", "other")
            await it.put(f"fox 7 forest {number}", PUBLIC, text="fox 7 forest")
        assert [await it.find("fox 7 forest", **each) for each in options] == before
        assert await it.find("fox", "nobody", mode="hybrid", diversity=0.5, recency=60) == []


async def put_many(it: Searching, texts: Iterable[str], validity: Validity = ALWAYS, **metadata: str) -> None:
    """Store texts as `Searching.put` does, in few transactions."""
    entries = []
    for number, text in enumerate(texts):
        made, marks = hash_vector(text[:READ], DIMENSION), {"n": str(number), **metadata}
        entries.append(Entry("mine", cid.compute(made, marks), made, text, marks, "v1", None, validity, True))
    await it.store.put_all(entries)


@pytest.mark.parametrize("mode", ["words", "hybrid"])
async def test_the_few_that_meet_a_filter_are_found_behind_any_number_of_better_words(
    tmp_path: Path, mode: str
) -> None:
    async with searching(tmp_path) as it:
        await put_many(it, ["apple apple"] * 1_100, tag="a")
        text = "an apple and banana among many other fruit in the big basket"
        await it.put(text, tag="b")
        assert await it.texts("apple", mode=mode, filter={"tag": "b"}) == [text]
        assert len(await it.texts("apple", mode=mode, filter={"tag": "a"})) == 10


@pytest.mark.parametrize("mode", ["words", "hybrid"])
async def test_what_is_current_is_found_behind_any_number_of_better_words(tmp_path: Path, mode: str) -> None:
    async with searching(tmp_path) as it:
        await put_many(it, ["apple apple"] * 1_100, Validity(expires_at=1.0))
        await it.put("the newest apple is here and says more words now")
        assert await it.texts("apple", mode=mode) == ["the newest apple is here and says more words now"]


async def test_what_is_current_is_found_behind_any_number_of_better_windows(tmp_path: Path) -> None:
    far = "walruses whistle at whales"
    async with searching(tmp_path, ShortSighted()) as it:
        texts = [f"version {number} of the document ".ljust(READ) + far for number in range(260)]
        await put_many(it, texts, Validity(expires_at=1.0))
        newest = "the newest one ".ljust(READ) + far + " and dance"
        await it.put(newest)
        await it.windows.reached(10)
        [found] = await it.find(far, mode="vector")
        assert found.record.text == newest
        assert found.score > 0.5
