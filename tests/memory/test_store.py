"""The store contract, held by every store; then what the real one must survive."""

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from engram.durable.driver import sqlite3
from engram.memory import filters
from engram.memory.errors import IndexUnavailable
from engram.memory.filters import EVERYTHING, Filter
from engram.memory.index.edge_index import EdgeIndex
from engram.memory.index.qdrant_index import QdrantIndex
from engram.memory.model import ALWAYS, PUBLIC, Counts, Entry, Upserted, Validity
from engram.memory.store.record_db import Truth
from tests.fakes.qdrant_server import QdrantDouble
from tests.memory.stores import (
    DIMENSION,
    ExactIndex,
    Opened,
    cosine,
    entry,
    excerpt,
    opened,
    random_vector,
    until,
    vector,
)
from tests.shared import needs_shared

Open = Callable[[Path], AbstractAsyncContextManager[Opened]]


SERVER = os.environ.get("QDRANT_URL")
"""A real Qdrant server, on which the same contract is then held too."""


@pytest.fixture(params=["edge", "exact", pytest.param("qdrant", marks=needs_shared), *(["server"] if SERVER else [])])
async def both(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    match request.param:
        case "edge":
            async with opened(tmp_path, lambda truth: joining(tmp_path, truth)) as it:
                yield it
        case "exact":
            async with opened(tmp_path, lambda truth: ExactIndex()) as it:
                yield it
        case "qdrant":
            with QdrantDouble(tmp_path / "server").serving() as double:
                async with opened(tmp_path, lambda truth: QdrantIndex(double.url, DIMENSION, truth.truth_id)) as it:
                    yield it
            assert double.broken == []
        case _:
            name = uuid.uuid4().hex
            async with opened(tmp_path, lambda truth: QdrantIndex(str(SERVER), DIMENSION, name)) as it:
                yield it
                await it.index.reset()


def joining(folder: Path, truth: Truth) -> EdgeIndex:
    return EdgeIndex(folder / "index", DIMENSION, truth.truth_id, truth_path=folder / "truth.db")


async def test_what_is_put_is_got_found_listed_and_counted(both: Opened) -> None:
    stored = entry(vector(1, 2), text="a text", source="arxiv")
    record = await both.store.put(stored)
    assert record.embedding == stored.embedding
    assert await both.store.get(PUBLIC, stored.cid) == record
    (hit,) = await both.store.query(PUBLIC, vector(1, 2), 10, EVERYTHING)
    assert hit.record == excerpt(record)
    assert hit.score == pytest.approx(1.0)
    assert await both.store.page(PUBLIC, EVERYTHING, 10, 0) == [record]
    assert both.store.count() == Counts(1, 0)


async def test_putting_again_changes_nothing(both: Opened) -> None:
    first = await both.store.put(entry(vector(1)))
    assert await both.store.put(entry(vector(1))) == first
    assert both.store.count() == Counts(1, 0)


async def test_hits_come_best_first_with_their_cosine(both: Opened) -> None:
    rng = random.Random(5)
    entries = [entry(random_vector(rng)) for _ in range(50)]
    for each in entries:
        await both.store.put(each)
    wanted = random_vector(rng)
    hits = await both.store.query(PUBLIC, wanted, 7, EVERYTHING)
    expected = sorted((cosine(wanted, each.embedding) for each in entries), reverse=True)[:7]
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-5)


async def test_an_opposite_vector_scores_minus_one(both: Opened) -> None:
    await both.store.put(entry(vector(0, 3)))
    (hit,) = await both.store.query(PUBLIC, vector(0, -1), 10, EVERYTHING)
    assert hit.score == pytest.approx(-1.0)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
async def test_lengths_at_the_edge_of_32_bits_keep_their_cosine(both: Opened, scale: float) -> None:
    await both.store.put(entry(vector(scale, scale)))
    (hit,) = await both.store.query(PUBLIC, vector(scale), 10, EVERYTHING)
    assert hit.score == pytest.approx(0.5**0.5, abs=1e-5)


async def test_conditions_are_applied_before_the_search_not_after(both: Opened) -> None:
    for i in range(30):
        await both.store.put(entry(vector(1, i / 1000), colour="red"))
    blue = await both.store.put(entry(vector(-1), colour="blue"))
    hits = await both.store.query(PUBLIC, vector(1), 3, filters.parse({"colour": "blue"}))
    assert [hit.record for hit in hits] == [excerpt(blue)]
    assert await both.store.page(PUBLIC, filters.parse({"colour": "blue"}), 10, 0) == [blue]
    assert await both.store.query(PUBLIC, vector(1), 3, filters.parse({"colour": "green"})) == []


async def test_no_text_of_a_condition_is_anything_but_itself(both: Opened) -> None:
    odd = [
        "x",
        "x\0",
        "x\0y",
        "\0",
        "",
        "%",
        "_",
        "'",
        '"',
        "\\",
        "\\u0000",
        "x\\u0000",
        "\u2028",
        "é",
        "😀",
        "1",
        "[]",
    ]
    pairs = [(key, "value") for key in odd] + [("key", value) for value in odd]
    stored = {
        pair: await both.store.put(entry(vector(1, number), PUBLIC, None, None, **dict([pair])))
        for number, pair in enumerate(pairs)
    }
    for (key, value), record in stored.items():
        assert await both.store.page(PUBLIC, filters.parse({key: value}), 50, 0) == [record], (key, value)
        assert [
            hit.record.id for hit in await both.store.query(PUBLIC, vector(1), 50, filters.parse({key: value}))
        ] == [record.id]
    assert await both.store.page(PUBLIC, filters.parse({"key": "x\0z"}), 50, 0) == []


async def test_namespaces_see_nothing_of_each_other(both: Opened) -> None:
    same = vector(1, 1)
    for namespace in (PUBLIC, "mine", "theirs"):
        await both.store.put(entry(same, namespace, text=namespace))
    await both.store.put(entry(vector(1), "theirs", text="only theirs"))
    for namespace, found in ((PUBLIC, 1), ("mine", 1), ("theirs", 2), ("nobody", 0)):
        hits = await both.store.query(namespace, same, 10, EVERYTHING)
        assert len(hits) == found
        assert {hit.record.text for hit in hits} <= {namespace, f"only {namespace}"}
        assert len(await both.store.page(namespace, EVERYTHING, 10, 0)) == found
    assert both.store.count() == Counts(1, 3)
    assert await both.store.delete("mine", entry(same).cid)
    assert await both.store.get(PUBLIC, entry(same).cid) is not None
    assert await both.store.get("theirs", entry(same).cid) is not None


async def test_what_is_deleted_is_gone_everywhere(both: Opened) -> None:
    kept, gone = await both.store.put(entry(vector(1))), await both.store.put(entry(vector(1, 1)))
    assert await both.store.delete(PUBLIC, gone.cid)
    assert not await both.store.delete(PUBLIC, gone.cid)
    assert await both.store.get(PUBLIC, gone.cid) is None
    assert [hit.record for hit in await both.store.query(PUBLIC, vector(1, 1), 10, EVERYTHING)] == [excerpt(kept)]
    assert both.store.count() == Counts(1, 0)


async def test_what_was_deleted_may_be_put_again(both: Opened) -> None:
    first = await both.store.put(entry(vector(1)))
    await both.store.delete(PUBLIC, first.cid)
    second = await both.store.put(entry(vector(1)))
    assert second.cid == first.cid
    assert second.id > first.id
    assert len(await both.store.query(PUBLIC, vector(1), 10, EVERYTHING)) == 1


async def test_pages_follow_the_order_of_storing(both: Opened) -> None:
    stored = [await both.store.put(entry(vector(1, i))) for i in range(7)]
    assert await both.store.page(PUBLIC, EVERYTHING, 3, 0) == stored[:3]
    assert await both.store.page(PUBLIC, EVERYTHING, 3, 6) == stored[6:]
    assert await both.store.page(PUBLIC, EVERYTHING, 3, 9) == []


async def test_many_writers_at_once_all_get_what_they_asked_for(both: Opened) -> None:
    rng = random.Random(9)
    entries = [entry(random_vector(rng), rng.choice([PUBLIC, "mine"])) for _ in range(300)]
    async with trio.open_nursery() as nursery:
        for each in entries:
            nursery.start_soon(both.store.put, each)
    for each in entries:
        assert await both.store.get(each.namespace, each.cid) is not None
    async with trio.open_nursery() as nursery:
        for each in entries[::2]:
            nursery.start_soon(both.store.delete, each.namespace, each.cid)
    counts = both.store.count()
    assert counts.public + counts.private == 150
    assert await both.index.points() == 150


# What only the worker process can suffer.


async def test_a_killed_worker_is_replaced_and_knows_everything(tmp_path: Path) -> None:
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        kept = [await both.store.put(entry(vector(1, i))) for i in range(20)]
        await both.store.delete(PUBLIC, kept[3].cid)
        worker = index.worker_pid
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        late = await both.store.put(entry(vector(5, 5)))
        hits = await both.store.query(PUBLIC, vector(1), 50, EVERYTHING)
        assert {hit.record.cid for hit in hits} == {record.cid for record in [*kept, late]} - {kept[3].cid}
        assert both.deaths == 1
        assert index.worker_pid != worker


async def test_a_search_that_is_open_when_the_worker_dies_is_answered_by_its_successor(tmp_path: Path) -> None:
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        await both.store.put(entry(vector(1)))
        assert await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)
        worker = index.worker_pid
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:

            async def search() -> None:
                assert len(await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)) == 1

            nursery.start_soon(search)
            await trio.testing.wait_all_tasks_blocked(0.01)
            os.kill(worker, signal.SIGKILL)


async def test_a_search_that_waits_for_the_index_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        await both.store.put(entry(vector(1)))
        await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)
        worker = index.worker_pid
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        await until(lambda: not both.store.usable)
        with trio.fail_after(3):
            assert len(await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)) == 1


async def test_a_lost_index_is_built_again_from_the_truth(tmp_path: Path) -> None:
    import shutil

    async with opened(tmp_path) as both:
        stored = [await both.store.put(entry(vector(1, i), "mine" if i % 2 else PUBLIC)) for i in range(10)]
    shutil.rmtree(tmp_path / "index")
    async with opened(tmp_path) as both:
        hits = await both.store.query(PUBLIC, vector(1), 50, EVERYTHING) + await both.store.query(
            "mine", vector(1), 50, EVERYTHING
        )
        assert sorted(hit.record.cid for hit in hits) == sorted(record.cid for record in stored)


async def test_putting_again_while_the_index_comes_up_waits_for_no_change(tmp_path: Path) -> None:
    """Such a put was answered after 10 s, as unavailable: nothing told it that the index stood there already."""
    for _ in range(2):
        async with opened(tmp_path) as both:
            with trio.fail_after(8):
                await both.store.put(entry(vector(1)))


@pytest.mark.parametrize("torn", ["mark.json", "public", "private"])
async def test_a_torn_index_is_built_again_from_the_truth(tmp_path: Path, torn: str) -> None:
    async with opened(tmp_path) as both:
        stored = [await both.store.put(entry(vector(1, i))) for i in range(10)]
    target = tmp_path / "index" / torn
    for path in [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]:
        path.write_bytes(b"torn")
    async with opened(tmp_path) as both:
        hits = await both.store.query(PUBLIC, vector(1), 50, EVERYTHING)
        assert sorted(hit.record.cid for hit in hits) == sorted(record.cid for record in stored)


async def test_an_index_whose_torn_files_end_the_worker_is_built_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as both:
        stored = [await both.store.put(entry(vector(1, i))) for i in range(10)]
    files = list((tmp_path / "index").rglob("status.dat"))
    assert files
    for path in files:
        path.write_bytes(b"\xff" * (path.stat().st_size // 2))
    async with opened(tmp_path) as both:
        hits = await both.store.query(PUBLIC, vector(1), 50, EVERYTHING)
        assert sorted(hit.record.cid for hit in hits) == sorted(record.cid for record in stored)
        assert both.deaths > 0


@pytest.mark.parametrize("torn", ["vectors/chunk_0.mmap", "vectors/status.dat"])
async def test_an_index_whose_vectors_cannot_be_read_is_built_again(tmp_path: Path, torn: str) -> None:
    async with opened(tmp_path) as both:
        stored = [await both.store.put(entry(vector(1, i), name)) for i in range(5) for name in (PUBLIC, "mine")]
    files = list((tmp_path / "index").rglob(torn))
    assert len(files) >= 2
    for path in files:
        path.write_bytes(b"")
    async with opened(tmp_path) as both:
        for name in (PUBLIC, "mine"):
            hits = await both.store.query(name, vector(1), 50, EVERYTHING)
            assert {hit.record.id for hit in hits} == {record.id for record in stored if record.namespace == name}


def test_a_line_that_the_log_has_no_room_for_ends_no_worker() -> None:
    code = "from engram.memory.index.parent_death import tell; [tell('line') for _ in range(3)]; import os; os._exit(0)"
    with open("/dev/full", "wb") as full:
        assert subprocess.run([sys.executable, "-c", code], stderr=full, check=False).returncode == 0


@pytest.mark.parametrize(("room", "kept"), [(0, False), (2**62, True)])
async def test_an_index_that_crashes_again_and_again_is_given_up_unless_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, kept: bool
) -> None:
    monkeypatch.setattr("engram.memory.index.edge_index._ROOM_BYTES", room)
    async with opened(tmp_path) as both:
        assert isinstance(both.index, EdgeIndex)
        await both.store.put(entry(vector(1)))
        (tmp_path / "index" / "old").touch()
        for _ in range(2):
            worker = both.index.worker_pid
            assert worker is not None
            os.kill(worker, signal.SIGABRT)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)) == 1
        assert (tmp_path / "index" / "old").exists() == kept


async def test_a_search_that_finds_a_damaged_record_fails_alone(tmp_path: Path) -> None:
    def joining(truth: Truth) -> EdgeIndex:
        return EdgeIndex(tmp_path / "index", DIMENSION, truth.truth_id, truth_path=tmp_path / "truth.db")

    async with opened(tmp_path, joining) as both:
        for name in ("mine", "theirs"):
            await both.store.put(entry(vector(1), name, "kept between us"))
        with sqlite3.connect(tmp_path / "truth.db") as connection:
            connection.execute("UPDATE records SET text = cast(x'ff' || text AS TEXT) WHERE namespace = 'theirs'")
        connection.close()

        async def theirs() -> None:
            with pytest.raises(IndexUnavailable) as raised:
                await both.store.query("theirs", vector(1), 5, EVERYTHING)
            assert "engram miner verify" in str(raised.value)
            assert "between" not in str(raised.value)

        async def mine() -> None:
            assert len(await both.store.query("mine", vector(1), 5, EVERYTHING)) == 1

        async with trio.open_nursery() as together:
            for _ in range(10):
                together.start_soon(theirs)
                together.start_soon(mine)


async def test_an_index_of_another_truth_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    async with opened(tmp_path / "one") as both:
        await both.store.put(entry(vector(1)))
    (tmp_path / "one" / "truth.db").unlink()
    from engram.clock import SeededIds, SystemClock
    from engram.memory.store.record_db import Truth

    Truth.open(tmp_path / "one" / "truth.db", SystemClock(), SeededIds(2)).close()
    async with opened(tmp_path / "one") as both:
        assert await both.store.query(PUBLIC, vector(1), 10, EVERYTHING) == []
        assert await both.index.points() == 0


async def test_the_worker_ends_with_its_store(tmp_path: Path) -> None:
    async with opened(tmp_path) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        await both.store.put(entry(vector(1)))
        worker = index.worker_pid
        assert worker is not None
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


async def test_a_worker_that_joins_finds_nothing_that_the_truth_has_not(tmp_path: Path) -> None:
    async with opened(tmp_path, lambda truth: joining(tmp_path, truth)) as both:
        kept, gone, public = [await both.store.put(entry(vector(1, number))) for number in range(3)]
        with contextlib.closing(sqlite3.connect(tmp_path / "truth.db", isolation_level=None)) as behind_its_back:
            behind_its_back.execute("DELETE FROM records WHERE id = ?", (gone.id,))
        found = await both.index.search(PUBLIC, vector(1), 9, EVERYTHING, math.inf)
        assert {match.id for match in found.matches} == {kept.id, public.id}
        strayed = Upserted(9, public.id, "mine", public.embedding, {})
        await both.index.apply([strayed], 9)
        assert (await both.index.search("mine", vector(1), 9, EVERYTHING, math.inf)).matches == []


@pytest.mark.parametrize("reads_records", [True, False])
async def test_what_is_current_is_found_behind_thousands_of_nearer_records_that_have_expired(
    tmp_path: Path, reads_records: bool
) -> None:
    """The index looks no further than its bound; then the records that are current are compared one by one."""
    versions, over = (10_300 if reads_records else 5_200), Validity(expires_at=1.0)

    def made(embedding: bytes, number: int, validity: Validity = ALWAYS) -> Entry:
        return msgspec.structs.replace(entry(embedding, "mine", f"{number}", n=str(number)), validity=validity)

    entries = [made(vector(1, number * 1e-6), number, over) for number in range(versions)]
    entries += [made(vector(1, 0.3), versions), made(vector(1, 0.4), versions + 1)]
    async with opened(tmp_path, (lambda truth: joining(tmp_path, truth)) if reads_records else None) as it:
        for start in range(0, len(entries), 2_000):
            await it.store.put_all(entries[start : start + 2_000])
        hits = await it.store.query("mine", vector(1), 10, Filter(current=True))
        assert [hit.record.text for hit in hits] == [str(versions), str(versions + 1)]
        assert [hit.score for hit in hits] == pytest.approx([cosine(vector(1), vector(1, n)) for n in (0.3, 0.4)])
        one = await it.store.query("mine", vector(1), 10, filters.parse({"n": str(versions + 1)}))
        assert [hit.record.text for hit in one] == [str(versions + 1)]
