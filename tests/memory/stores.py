"""What the tests of the store share: entries, an opened store, an exact index in plain Python."""

import contextlib
import random
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import trio

from engram.clock import SeededIds, SystemClock
from engram.memory import cid
from engram.memory.filters import Filter
from engram.memory.index.edge_index import EdgeIndex
from engram.memory.index.protocol import Index, Match, Nearest
from engram.memory.indexed_store import IndexedStore
from engram.memory.model import PUBLIC, Change, Entry, Excerpt, Record, Upserted
from engram.memory.rules import unpack_vector
from engram.memory.store.record_db import Truth

DIMENSION = 8


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{DIMENSION}f", *numbers, *([0.0] * (DIMENSION - len(numbers))))


def random_vector(rng: random.Random) -> bytes:
    return vector(*(rng.gauss(0, 1) for _ in range(DIMENSION)))


def entry(
    embedding: bytes, namespace: str = PUBLIC, text: str | None = None, owner: bytes | None = None, **metadata: str
) -> Entry:
    return Entry(namespace, cid.compute(embedding, metadata), embedding, text, metadata, "v1", owner)


async def until(condition: Callable[[], bool]) -> None:
    """Returns when `condition` holds; bounded by the deadline of `opened`."""
    while not condition():  # noqa: ASYNC110 -- what is waited for has no event of its own
        await trio.sleep(0.001)


class ExactIndex:
    """The contract of an index in plain Python: forgets everything when its `run` ends."""

    def __init__(self) -> None:
        self.vectors: dict[int, Upserted] = {}
        self.sequence = 0

    async def run(self, ready: Callable[[int], None]) -> None:
        self.vectors.clear()
        ready(0)
        await trio.sleep_forever()

    async def apply(self, changes: Sequence[Change], sequence: int) -> int:
        await trio.lowlevel.checkpoint()
        for change in changes:
            if isinstance(change, Upserted):
                self.vectors[change.id] = change
            else:
                self.vectors.pop(change.id, None)
        self.sequence = sequence
        return 0

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()
        self.vectors.clear()

    async def points(self) -> int:
        await trio.lowlevel.checkpoint()
        return len(self.vectors)

    async def search(self, namespace: str, vector: bytes, limit: int, conditions: Filter, give_up_at: float) -> Nearest:
        await trio.lowlevel.checkpoint()
        scored = [
            Match(number, cosine(vector, there.embedding))
            for number, there in self.vectors.items()
            if there.namespace == namespace and conditions.holds(there.metadata)
        ]
        return Nearest(sorted(scored, key=lambda hit: -hit.score)[:limit])


def excerpt(record: Record) -> Excerpt:
    return record.excerpt()


def cosine(one: bytes, other: bytes) -> float:
    a, b = unpack_vector(one), unpack_vector(other)
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return float(dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5)


class Opened:
    """An open store and its parts; the index is restarted when it dies, as supervision does."""

    def __init__(self, truth: Truth, index: Index, store: IndexedStore) -> None:
        self.truth = truth
        self.index = index
        self.store = store
        self.deaths = 0


@contextlib.asynccontextmanager
async def opened(folder: Path, make_index: Callable[[Truth], Index] | None = None) -> AsyncIterator[Opened]:
    from engram.memory.errors import IndexUnavailable

    truth = Truth.open(folder / "truth.db", SystemClock(), SeededIds(1))
    index = make_index(truth) if make_index else EdgeIndex(folder / "index", DIMENSION, truth.truth_id)
    store = IndexedStore(truth, index)
    await store.load()
    both = Opened(truth, index, store)

    async def supervised() -> None:
        while True:
            try:
                await store.run(lambda: None)
            except IndexUnavailable:
                both.deaths += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(truth.run, lambda: None)
        nursery.start_soon(supervised)
        with trio.fail_after(20):
            yield both
        nursery.cancel_scope.cancel()
    truth.close()
