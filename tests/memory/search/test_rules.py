"""How a search is asked for, and what hits are ordered by."""

import pytest

from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.rules import RecordLimits
from engram.memory.search import ranking, rules
from engram.memory.search.rules import check_search
from tests.memory.stores import DIMENSION, vector

pytestmark = pytest.mark.rules

LIMITS = RecordLimits(DIMENSION)
NUMBERS = [1.0] * DIMENSION


def test_a_search_without_a_mode_is_a_plain_one() -> None:
    plain = check_search({"query_text": "x", "top_k": 7}, LIMITS)
    assert plain.is_plain
    assert (plain.pool, plain.words, plain.conditions.current) == (7, "", True)
    assert not check_search({"query_text": "x", "history": True}, LIMITS).conditions.current
    assert check_search({"query_text": "x", "history": None}, LIMITS).conditions.current


@pytest.mark.parametrize("option", [{"mode": "vector"}, {"diversity": 0.5}, {"recency": 60}])
def test_whatever_ranks_looks_at_more_than_is_shown(option: dict[str, object]) -> None:
    search = check_search({"query_text": "x", **option}, LIMITS)
    assert not search.is_plain
    assert search.pool == 60
    assert check_search({"query_text": "x", "top_k": 40, **option}, LIMITS).pool == 160
    assert check_search({"query_text": "x", "top_k": 100, **option}, LIMITS).pool == 200


@pytest.mark.parametrize(("mode", "words", "windows"), [("vector", 0, 1), ("words", 1, 0), ("hybrid", 1, 1)])
def test_a_mode_says_what_is_looked_at(mode: str, words: bool, windows: bool) -> None:
    search = check_search({"query_text": "x y", "mode": mode}, LIMITS)
    assert (search.wants_words, search.wants_windows) == (words, windows)
    assert search.words == ("x y" if words else "")


def test_words_come_from_the_text_where_the_vector_is_the_clients() -> None:
    search = check_search({"query_text": "x", "query_vector": NUMBERS, "mode": "hybrid"}, LIMITS)
    assert (search.text, search.words, search.embedding is not None) == (None, "x", True)
    with pytest.raises(InvalidInput, match="mode words looks for words: send 'query_text' too"):
        check_search({"query_vector": NUMBERS, "mode": "words"}, LIMITS)


@pytest.mark.parametrize(
    ("option", "error", "text"),
    [
        ({"mode": "semantic"}, InvalidRequest, "mode must be vector, words or hybrid"),
        ({"mode": 1}, InvalidRequest, "mode must be"),
        ({"diversity": "0.5"}, InvalidRequest, "diversity must be a number"),
        ({"diversity": True}, InvalidRequest, "diversity must be a number"),
        ({"diversity": 1.5}, InvalidInput, "diversity must be from 0"),
        ({"diversity": float("nan")}, InvalidInput, "diversity must be from 0"),
        ({"recency": "day"}, InvalidRequest, "the half-life in seconds"),
        ({"recency": 0}, InvalidInput, "a half-life of 1 second to 100 years"),
        ({"recency": 1e12}, InvalidInput, "a half-life of 1 second to 100 years"),
        ({"history": 1}, InvalidRequest, "history must be true or false"),
    ],
)
def test_an_option_that_is_not_understood_is_refused(
    option: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        check_search({"query_text": "x", **option}, LIMITS)


def test_relevance_adds_words_and_age_to_the_cosine() -> None:
    assert rules.relevance("vector", 0.4, 5.0, 5.0) == 0.4
    assert rules.relevance("hybrid", 0.4, 5.0, 10.0) == pytest.approx(0.4 + 0.3 / 2)
    assert rules.relevance("hybrid", 0.4, 0.0, 0.0) == 0.4
    assert rules.relevance("words", 0.9, 5.0, 10.0) == 0.5
    assert rules.relevance(None, 0.4, 0.0, 0.0, age_s=120, half_life_s=60) == pytest.approx(0.4 + 0.2 / 4)
    assert rules.relevance(None, 0.4, 0.0, 0.0, age_s=-5, half_life_s=60) == pytest.approx(0.6)


def test_cosines_are_those_of_directions_whatever_the_lengths() -> None:
    found = ranking.cosines(vector(2), [vector(1), vector(1e-15), vector(-3e15), vector(0, 1), vector(1, 1)])
    assert found == pytest.approx([1, 1, -1, 0, 0.5**0.5])
    assert ranking.cosines(vector(2), []) == []


def test_variety_prefers_what_was_not_said_yet() -> None:
    said = [vector(1), vector(1, 0.01), vector(1, 0.02), vector(0, 1)]
    worth = [0.9, 0.89, 0.88, 0.5]
    assert ranking.diversified(worth, said, 0.0, 3) == [0, 1, 2]
    assert ranking.diversified(worth, said, 0.5, 3) == [0, 3, 1]
    assert sorted(ranking.diversified(worth, said, 1.0, 9)) == [0, 1, 2, 3]
    assert ranking.diversified([], [], 0.5, 3) == []
