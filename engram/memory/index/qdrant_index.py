"""The vector index on a Qdrant server or cluster, over REST.

`IndexedStore(truth, QdrantIndex(…))` is the store by URL: acknowledged records are in our own truth either
way. A truth has its own collections, named after it: one for public vectors, one for all private ones, and one whose
single point says up to which change the other two have everything. That mark is written after the changes, so a
connection that breaks in between only means that some are made once more.

The client's connection pool is discarded whenever a call was cancelled or failed in transit: under trio, httpx keeps a
dead connection for every request cancelled while it connects, until the pool is full for good. gRPC is not used: its
Python client needs asyncio.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar, final

import trio
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as wire
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from engram.memory.errors import IndexRestarting, IndexUnavailable
from engram.memory.filters import Filter
from engram.memory.index.edge_wire import direction, marks_of, wanted
from engram.memory.index.protocol import Match, Nearest
from engram.memory.model import PUBLIC, Change, Upserted

T = TypeVar("T")
Call = Callable[[AsyncQdrantClient], Awaitable[T]]

_FORMAT = 2
_TIMEOUT_S = 10
_CALLS_AT_ONCE = 32
_MARK_EVERY_S = 1.0
_MARK_EVERY = 1_000
_LARGEST_BATCH = 64
"""Points in a request: encoding 64 vectors of 384 numbers takes 4.5 ms of the loop's time (measured)."""
_MARK_POINT: Final = 1


@final
class QdrantIndex:
    """Talks to the server at `url`, as `Index` says; every call ends within 10 s and is confirmed by the server."""

    def __init__(self, url: str, dimension: int, truth_id: str, *, api_key: str | None = None) -> None:
        self._url = url
        self._dimension = dimension
        self._api_key = api_key
        self._collections = {private: f"engram-{truth_id}-{name}" for private, name in _NAMES.items()}
        self._marks = f"engram-{truth_id}-mark"
        self._pool: _Pool | None = None
        self._calling = trio.CapacityLimiter(_CALLS_AT_ONCE)
        self._sequence = 0
        self._up = False
        self.flushed = 0
        """The last change that the server is known to have."""

    def __repr__(self) -> str:
        return f"QdrantIndex({self._url!r})"

    async def run(self, ready: Callable[[int], None]) -> None:
        """Make the collections when missing, then keep the mark up to date. Raises IndexUnavailable when it cannot."""
        try:
            self._up = True
            await self._create()
            self._sequence = self.flushed = await self._read_mark()
            ready(self.flushed)
            while True:
                await trio.sleep(_MARK_EVERY_S)
                if self._sequence > self.flushed:
                    await self.flush()
        finally:
            self._up = False
            with trio.move_on_after(1.0, shield=True):
                await self._drop_pool()

    async def apply(self, changes: Sequence[Change], sequence: int) -> int:
        """Make the changes and return the last one that the server's mark names."""
        for start in range(0, len(changes), _LARGEST_BATCH):
            batch = changes[start : start + _LARGEST_BATCH]
            for private, collection in self._collections.items():
                mine = [change for change in batch if (change.namespace != PUBLIC) == private]
                placed = [_point(change) for change in mine if isinstance(change, Upserted)]
                removed: list[int] = [change.id for change in mine if not isinstance(change, Upserted)]
                if placed:
                    await self._call(_upserting(collection, placed))
                if removed:
                    await self._call(_deleting(collection, removed))
        self._sequence = max(self._sequence, sequence)
        if self._sequence - self.flushed >= _MARK_EVERY:
            await self.flush()
        return self.flushed

    async def flush(self) -> int:
        """Write the mark and return the change that it names."""
        sequence = self._sequence
        payload = {"format": _FORMAT, "dimension": self._dimension, "sequence": sequence}
        point = wire.PointStruct(id=_MARK_POINT, vector=[1.0], payload=payload)
        await self._call(_upserting(self._marks, [point]))
        self.flushed = max(self.flushed, sequence)
        return self.flushed

    async def reset(self) -> None:
        """Delete all vectors."""
        for collection in (self._marks, *self._collections.values()):
            await self._call(_dropping(collection))
        self._sequence = self.flushed = 0
        await self._create()

    async def points(self) -> int:
        """Return how many vectors there are."""
        counts = [await self._call(_counting(collection)) for collection in self._collections.values()]
        return sum(counted.count for counted in counts)

    async def search(self, namespace: str, vector: bytes, limit: int, conditions: Filter, give_up_at: float) -> Nearest:
        """Return the nearest records of a namespace."""
        private = namespace != PUBLIC
        sought = [(_MARKS, marks) for marks in wanted(conditions)]
        if private:
            sought.append((_NAMESPACE, [namespace]))
        must: list[wire.Condition] = [wire.FieldCondition(key=key, match=_match(values)) for key, values in sought]
        with trio.move_on_at(give_up_at):
            answer = await self._call(
                lambda client: client.query_points(
                    self._collections[private],
                    query=direction(vector),
                    query_filter=wire.Filter(must=must) if must else None,
                    limit=limit,
                    with_payload=False,
                )
            )
            return Nearest([Match(int(point.id), point.score) for point in answer.points])
        raise IndexUnavailable("the Qdrant server did not answer in time")

    async def _create(self) -> None:
        await self._create_one(self._marks, 1, {})
        for private, collection in self._collections.items():
            fields = {_MARKS: wire.KeywordIndexParams(type=wire.KeywordIndexType.KEYWORD)}
            if private:
                fields[_NAMESPACE] = wire.KeywordIndexParams(type=wire.KeywordIndexType.KEYWORD, is_tenant=True)
            await self._create_one(collection, self._dimension, fields)

    async def _create_one(self, collection: str, size: int, fields: Mapping[str, wire.KeywordIndexParams]) -> None:
        if await self._call(lambda client: client.collection_exists(collection)):
            return
        vectors = wire.VectorParams(size=size, distance=wire.Distance.COSINE)
        await self._call(lambda client: client.create_collection(collection, vectors_config=vectors))
        for field, schema in fields.items():
            await self._call(_indexing(collection, field, schema))

    async def _read_mark(self) -> int:
        """Return the change up to which the server has everything; clear the server when the vector sizes differ."""
        found = await self._call(lambda client: client.retrieve(self._marks, [_MARK_POINT], with_payload=True))
        payload = (found[0].payload or {}) if found else {}
        if not found:
            return 0
        if (payload.get("format"), payload.get("dimension")) != (_FORMAT, self._dimension):
            await self.reset()
            return 0
        return int(payload["sequence"])

    async def _call(self, call: Call[T]) -> T:
        """Ask the server. Raises IndexUnavailable; IndexRestarting while this index does not run."""
        if not self._up:
            raise IndexRestarting("the index is not connected yet")
        async with self._calling:
            pool = self._pool
            if pool is None:
                pool = self._pool = _Pool(self._connect())
            pool.calls += 1
            clean = False
            try:
                answer = await call(pool.client)
                clean = True
                return answer
            except ResponseHandlingException as error:
                raise IndexUnavailable(f"the Qdrant server did not answer: {error.source!r}") from error
            except ApiException as error:
                clean = True
                raise IndexUnavailable(f"the Qdrant server refused: {error}") from error
            finally:
                pool.calls -= 1
                if not clean and self._pool is pool:
                    self._pool = None
                if self._pool is not pool and not pool.calls:
                    with trio.move_on_after(1.0, shield=True):
                        await pool.client.close()

    def _connect(self) -> AsyncQdrantClient:
        return AsyncQdrantClient(url=self._url, api_key=self._api_key, timeout=_TIMEOUT_S, check_compatibility=False)

    async def _drop_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None and not pool.calls:
            await pool.client.close()


class _Pool:
    """A client with its connection pool, and the number of calls that use it."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self.client = client
        self.calls = 0


_NAMES: Final = {False: "public", True: "private"}
_NAMESPACE = "ns"
_MARKS = "marks"


def _point(change: Upserted) -> wire.PointStruct:
    payload: dict[str, object] = {_MARKS: marks_of(change.metadata)}
    if change.namespace != PUBLIC:
        payload[_NAMESPACE] = change.namespace
    return wire.PointStruct(id=change.id, vector=direction(change.embedding), payload=payload)


def _match(values: list[str]) -> wire.MatchValue | wire.MatchAny:
    return wire.MatchValue(value=values[0]) if len(values) == 1 else wire.MatchAny(any=values)


def _upserting(collection: str, points: list[wire.PointStruct]) -> Call[wire.UpdateResult]:
    return lambda client: client.upsert(collection, points, wait=True)


def _deleting(collection: str, ids: list[int]) -> Call[wire.UpdateResult]:
    points: list[wire.ExtendedPointId] = list(ids)
    return lambda client: client.delete(collection, wire.PointIdsList(points=points), wait=True)


def _dropping(collection: str) -> Call[bool]:
    return lambda client: client.delete_collection(collection)


def _counting(collection: str) -> Call[wire.CountResult]:
    return lambda client: client.count(collection, exact=True)


def _indexing(collection: str, field: str, schema: wire.KeywordIndexParams) -> Call[wire.UpdateResult]:
    return lambda client: client.create_payload_index(collection, field, schema, wait=True)
