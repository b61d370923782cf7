"""What the store by URL does beyond the contract of every store (tests/memory/test_store.py)."""

import math
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from engram.memory.errors import IndexRestarting, IndexUnavailable
from engram.memory.filters import EVERYTHING
from engram.memory.index.qdrant_index import QdrantIndex
from engram.memory.model import PUBLIC, Upserted
from tests.fakes.qdrant_server import QdrantDouble
from tests.memory.stores import DIMENSION, entry, opened, until, vector
from tests.shared import needs_shared

pytestmark = needs_shared


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QdrantDouble]:
    with QdrantDouble(tmp_path / "server").serving() as double:
        yield double
    assert double.broken == []


async def test_what_the_server_has_is_not_sent_again(tmp_path: Path, server: QdrantDouble) -> None:
    for _ in range(2):
        async with opened(tmp_path, lambda truth: QdrantIndex(server.url, DIMENSION, truth.truth_id)) as both:
            index = both.index
            assert isinstance(index, QdrantIndex)
            stored = await both.store.put(entry(vector(1)))
            assert len(await both.store.query(PUBLIC, vector(1), 10, EVERYTHING)) == 1
            assert await index.flush() == stored.sequence
    upserts = server.calls.count("put /collections/{collection_name}/points")
    assert upserts <= 1 + 4  # one record; else the mark (twice by flush, at most twice by itself)


async def test_a_server_that_was_emptied_is_filled_again(tmp_path: Path, server: QdrantDouble) -> None:
    async with opened(tmp_path, lambda truth: QdrantIndex(server.url, DIMENSION, truth.truth_id)) as both:
        await both.store.put(entry(vector(1), "mine"))
        await both.index.apply([], 0)
    for name in list(server.shards):
        server.drop(name, None)
    async with opened(tmp_path, lambda truth: QdrantIndex(server.url, DIMENSION, truth.truth_id)) as both:
        assert len(await both.store.query("mine", vector(1), 10, EVERYTHING)) == 1


async def test_two_truths_share_a_server_and_see_nothing_of_each_other(tmp_path: Path, server: QdrantDouble) -> None:
    one, other = (QdrantIndex(server.url, DIMENSION, truth) for truth in ("one", "other"))
    async with trio.open_nursery() as nursery:
        await nursery.start(_serve, one)
        await nursery.start(_serve, other)
        await one.apply([Upserted(1, 7, PUBLIC, vector(1), {})], 1)
        (found,) = (await one.search(PUBLIC, vector(1), 5, EVERYTHING, math.inf)).matches
        assert found.id == 7
        assert found.score == pytest.approx(1.0)
        assert (await other.search(PUBLIC, vector(1), 5, EVERYTHING, math.inf)).matches == []
        nursery.cancel_scope.cancel()


async def _serve(index: QdrantIndex, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    await index.run(task_status.started)


async def test_a_server_that_is_not_there_is_told_as_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    index = QdrantIndex(url, DIMENSION, "truth")
    with pytest.raises(IndexUnavailable):
        await index.run(lambda flushed: None)
    with pytest.raises(IndexRestarting):
        await index.points()


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(QdrantIndex("https://qdrant.example", DIMENSION, "truth", api_key="secret"))


async def test_cancelled_calls_use_up_no_connections() -> None:
    """httpx keeps a dead connection for every request cancelled while it connects: 100 of them fill a pool."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(0)
        index = QdrantIndex(f"http://127.0.0.1:{mute.getsockname()[1]}", DIMENSION, "truth")
        index._up = True  # pyright: ignore[reportPrivateUsage]  # no server that could be run against
        for _ in range(8):
            with trio.move_on_after(0.01):
                await index.points()
            assert index._pool is None  # pyright: ignore[reportPrivateUsage]


async def test_a_cancelled_search_does_not_end_others(tmp_path: Path, server: QdrantDouble) -> None:
    async with opened(tmp_path, lambda truth: QdrantIndex(server.url, DIMENSION, truth.truth_id)) as both:
        await both.store.put(entry(vector(1)))
        await until(lambda: both.store.usable)
        answered: list[int] = []

        async def search(give_up_after: float) -> None:
            with trio.move_on_after(give_up_after):
                answered.append(len(await both.store.query(PUBLIC, vector(1), 1, EVERYTHING)))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(search, 0.002 if number % 2 else 10.0)
        assert answered.count(1) >= 10
        assert both.deaths == 0
