"""What a filter is, and that the search itself applies it: the nearest of those that meet it, for every index."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.durable.driver import sqlite3
from engram.memory import filters, rules
from engram.memory.errors import InvalidRequest
from engram.memory.filters import EVERYTHING, Condition, Filter
from engram.memory.index.edge_index import EdgeIndex
from engram.memory.index.qdrant_index import QdrantIndex
from engram.memory.model import PUBLIC
from engram.memory.store import record_sql
from engram.memory.store.record_db import Truth
from tests.fakes.qdrant_server import QdrantDouble
from tests.memory.stores import DIMENSION, ExactIndex, Opened, cosine, entry, opened, vector
from tests.shared import needs_shared

pytestmark = pytest.mark.rules

values = st.sampled_from(["", "1", "1.0", "True", "None", "red", "x\0", "x", "é"])
keys = st.sampled_from(["a", "b", "_ref", "_group", "k\0"])
metadatas = st.dictionaries(keys, values, max_size=3)
bounds = st.sampled_from([{"$gt": 0}, {"$lte": 1.0}, {"$gte": "red"}, {"$gt": "", "$lt": "x"}, {"$in": ["x", 1, "é"]}])
sought = st.one_of(values, bounds, st.sampled_from([1, 1.0, 0, -0.0, 2.5, True, False, None, {"$exists": True}]))
wanted = st.dictionaries(keys, sought, max_size=2)
directions = st.tuples(*[st.integers(-3, 3)] * 3).filter(any)
stores = st.lists(st.tuples(directions, metadatas), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("value", "stored", "others"),
    [
        ("1", {"1"}, {"1.0", "True"}),
        (1, {"1", "1.0"}, {"True", "10", "1.5"}),
        (1.0, {"1", "1.0"}, {"True", "1.00"}),
        (-0.0, {"0", "0.0", "-0.0"}, {"", "False", "None"}),
        (2.5, {"2.5"}, {"2", "2.50"}),
        (1e16, {"1e+16", "10000000000000000"}, {"1e16"}),
        (10**400, {str(10**400)}, {"inf"}),
        (2**53 + 1, {str(2**53 + 1)}, {str(float(2**53 + 1))}),
        (True, {"True"}, {"1", "1.0", "true"}),
        (None, {"None"}, {"", "null"}),
        ({"$exists": True}, {"", "None", "anything"}, set[str]()),
    ],
)
def test_a_value_equals_what_it_is_stored_as(value: object, stored: set[str], others: set[str]) -> None:
    condition = filters.parse({"n": value})
    assert [condition.holds({"n": each}) for each in stored] == [True] * len(stored)
    assert [condition.holds({"n": each}) for each in others] == [False] * len(others)
    assert not condition.holds({"m": "1"})


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5) | st.floats(-5, 5))
def test_numbers_are_equal_as_python_has_it(one: float, other: float) -> None:
    for left, right in ((one, other), (one, one), (other, other), (float(int(other)), int(other))):
        stored = rules.normalise_metadata({"n": right}, 4_096)
        assert filters.parse({"n": left}).holds(stored) == (left == right)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"$gt": None}, r"'\$gt'"),
        ({"$gt": float("nan")}, r"'\$gt'"),
        ({"$gt": 10**400}, r"'\$gt'"),
        ({"$gt": True}, r"'\$gt'"),
        ({"$gt": 0, "$gte": 1}, "an object"),
        ({"$lt": 0, "$lte": 1}, "an object"),
        ({"$gt": 0, "$lt": "9"}, "an object"),
        ({"$gt": 0, "a": 1}, "an object"),
        ({}, "an object"),
        ({"$in": [[1]]}, "a list"),
        ({"$ne": 1}, r"'\$ne'"),
        ({"$exists": False}, r"'\$exists'"),
        ({"$exists": 1}, r"'\$exists'"),
        ({"a": 1, "b": 2}, "an object"),
        ([1], "a list"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_what_is_not_understood_is_refused_and_what_is_understood_named(value: object, named: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"filter\.n is .*{named}.*null or .*exists"):
        filters.parse({"n": value})


@pytest.mark.parametrize("listed", [[], "ab", {"a": 1}, None, [1] * 65])
def test_any_of_takes_a_list_of_some_values(listed: object) -> None:
    with pytest.raises(InvalidRequest, match=r"filter\.n has a \$in that is not a list of 1 to 64 values"):
        filters.parse({"n": {"$in": listed}})


@pytest.mark.parametrize(
    ("value", "stored", "others"),
    [
        ({"$in": ["red", 1, True, None]}, {"red", "1", "1.0", "True", "None"}, {"blue", "2", "False"}),
        ({"$gt": 1}, {"1.5", "2", "1e3", "10"}, {"1", "1.0", "0", "-5", "", "True", "red", "nan", "inf", "1_0", "٣"}),
        ({"$gte": 1, "$lt": 3}, {"1", "1.0", "2.99"}, {"3", "0.5", "1e400"}),
        ({"$lte": -0.5}, {"-0.5", "-.5", "-1"}, {"-0.4", "0", "x" * 500}),
        ({"$gte": "2026-01-01", "$lt": "2026-02-01"}, {"2026-01-01", "2026-01-31T23"}, {"2026-02-01", "2025", ""}),
        ({"$lte": "b"}, {"a", "b", "", "1"}, {"c", "ba"}),
    ],
)
def test_any_of_and_ranges_hold_for_what_was_stored(value: object, stored: set[str], others: set[str]) -> None:
    condition = filters.parse({"n": value})
    assert {each for each in stored | others if condition.holds({"n": each})} == stored
    assert not condition.holds({"m": "2"})
    assert condition.has_ranges == ("$in" not in str(value))


def test_without_conditions_everything_meets_a_filter() -> None:
    assert not filters.parse({})
    assert EVERYTHING.holds({})
    assert filters.one_of("a", ["x", "y"]) == Filter((Condition("a", ("x", "y")),))
    with pytest.raises(InvalidRequest, match="at most 16 keys, not 17"):
        filters.parse({str(number): 1 for number in range(17)})


@pytest.fixture(params=["edge", "exact", pytest.param("qdrant", marks=needs_shared)])
async def both(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    def joining(truth: Truth) -> EdgeIndex:
        return EdgeIndex(tmp_path / "index", DIMENSION, truth.truth_id, truth_path=tmp_path / "truth.db")

    match request.param:
        case "edge":
            async with opened(tmp_path, joining) as it:
                yield it
        case "exact":
            async with opened(tmp_path, lambda truth: ExactIndex()) as it:
                yield it
        case _:
            with QdrantDouble(tmp_path / "server").serving() as double:
                async with opened(tmp_path, lambda truth: QdrantIndex(double.url, DIMENSION, truth.truth_id)) as it:
                    yield it
            assert double.broken == []


async def test_a_search_gives_the_nearest_of_those_that_meet_the_filter(both: Opened) -> None:
    names = itertools.count()

    async def agree(
        stored: list[tuple[tuple[int, ...], dict[str, str]]], fields: Mapping[str, object], k: int, gone: int
    ) -> None:
        mine, other = f"n{next(names)}", f"n{next(names)}"
        entries = {
            made.cid: made for made in (entry(vector(*at), mine, None, None, **metadata) for at, metadata in stored)
        }
        strange = [entry(vector(*at), other, None, None, **metadata) for at, metadata in stored]
        await both.store.put_all([*entries.values(), *strange])
        for cid in list(entries)[:gone]:
            await both.store.delete(mine, cid)
            del entries[cid]
        conditions = filters.parse(fields)
        meeting = [each for each in entries.values() if conditions.holds(each.metadata)]
        nearest = sorted((cosine(vector(1, 2, 3), each.embedding) for each in meeting), reverse=True)
        hits = await both.store.query(mine, vector(1, 2, 3), k, conditions)
        assert [hit.score for hit in hits] == pytest.approx(nearest[:k], abs=1e-5)
        assert {hit.record.cid for hit in hits} <= {each.cid for each in meeting}
        listed = [record.cid for record in await both.store.page(mine, conditions, 200)]
        assert listed == [each.cid for each in meeting]

    @settings(max_examples=25, deadline=None)
    @given(stores, wanted, st.integers(1, 4), st.integers(0, 3))
    def examples(
        stored: list[tuple[tuple[int, ...], dict[str, str]]], fields: dict[str, object], k: int, gone: int
    ) -> None:
        trio.from_thread.run(agree, stored, fields, k, gone)

    await trio.to_thread.run_sync(examples)


async def test_a_deletion_that_the_index_has_not_made_yet_takes_no_place_among_the_nearest(
    both: Opened, tmp_path: Path
) -> None:
    near = [await both.store.put(entry(vector(1, number / 100))) for number in range(5)]
    far = await both.store.put(entry(vector(-1)))
    with contextlib.closing(sqlite3.connect(tmp_path / "truth.db", isolation_level=None)) as behind_its_back:
        behind_its_back.executemany("DELETE FROM records WHERE id = ?", [(record.id,) for record in near])
    for k in (1, 2):
        assert [hit.record.cid for hit in await both.store.query(PUBLIC, vector(1), k, EVERYTHING)] == [far.cid]


async def test_a_reference_is_found_by_an_index_and_not_by_reading_the_namespace(tmp_path: Path) -> None:
    async with opened(tmp_path, lambda truth: ExactIndex()) as it:
        await it.store.put_all([entry(vector(1, number), "mine", _ref=str(number)) for number in range(50)])
        found = await it.store.page("mine", filters.one_of("_ref", ["7", "3", "none"]), 10)
        assert [record.metadata["_ref"] for record in found] == ["3", "7"]
    with contextlib.closing(sqlite3.connect(tmp_path / "truth.db")) as connection:
        steps: list[str] = []
        connection.set_trace_callback(steps.append)
        record_sql.page(connection, "mine", filters.one_of("_ref", ["7"]), 10)
        connection.set_trace_callback(None)
        select = next(each for each in steps if each.startswith("SELECT"))
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {select}"))
        assert "records_by_ref" in plan
        connection.executescript("DROP INDEX records_by_ref; DROP INDEX records_by_group")
    async with opened(tmp_path, lambda truth: ExactIndex()) as it:  # as a database that was made before there were any
        assert len(await it.store.page("mine", filters.one_of("_ref", ["7"]), 10)) == 1
    with contextlib.closing(sqlite3.connect(tmp_path / "truth.db")) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert names >= {"records_by_ref", "records_by_group"}


async def test_an_index_that_an_older_sqlite_filled_is_made_again(tmp_path: Path) -> None:
    """SQLite 3.40 ended a text of JSON at its first NUL; an index that it filled would miss the row, and damage it."""
    async with opened(tmp_path, lambda truth: ExactIndex()) as it:
        stored = await it.store.put(entry(vector(1), "mine", _ref="a\0b"))
    with contextlib.closing(sqlite3.connect(tmp_path / "truth.db", isolation_level=None)) as connection:
        connection.executescript("DROP INDEX records_by_ref; DROP INDEX records_by_group")
        cut = "substr(json_extract(metadata, '$._ref'), 1, 1)"  # what 3.40 took for the reference
        connection.execute(f"CREATE INDEX records_ref ON records (namespace, {cut})")
    async with opened(tmp_path, lambda truth: ExactIndex()) as it:
        assert await it.store.page("mine", filters.one_of("_ref", ["a\0b"]), 10) == [stored]
        assert await it.store.page("mine", filters.one_of("_ref", ["a"]), 10) == []
    with contextlib.closing(sqlite3.connect(tmp_path / "truth.db")) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert "records_by_ref" in names
    assert "records_ref" not in names


async def test_the_few_that_are_in_a_range_are_found_however_far_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index knows no ranges: what it finds nearest is looked through, and then the namespace."""
    monkeypatch.setattr("engram.memory.indexed_store._QUEUE", 8)

    def joining(truth: Truth) -> EdgeIndex:
        return EdgeIndex(tmp_path / "index", DIMENSION, truth.truth_id, truth_path=tmp_path / "truth.db")

    async with opened(tmp_path, joining) as it:
        near = [entry(vector(1, number / 1_000), "mine", None, None, n=str(number)) for number in range(60)]
        far = [entry(vector(-1, number), "mine", None, None, n=str(100 + number)) for number in range(3)]
        await it.store.put_all([*near, *far])
        hits = await it.store.query("mine", vector(1), 2, filters.parse({"n": {"$gte": 100}}))
        assert [hit.record.metadata["n"] for hit in hits] == ["102", "101"]
        assert [hit.score for hit in hits] == pytest.approx([cosine(vector(1), vector(-1, n)) for n in (2, 1)])
        assert await it.store.query("mine", vector(1), 2, filters.parse({"n": {"$lt": -1}})) == []
        assert len(await it.store.query("mine", vector(1), 2, filters.parse({"n": {"$lt": 50}}))) == 2
