"""The index on disk: one Qdrant Edge shard for public vectors, one for all private ones, and a mark.

Every call blocks and holds the GIL for its whole length (measured), so this runs in the worker process only.
The mark (`mark.json`) says for which truth and up to which sequence the shards are safely on disk; it is
written after each flush. A folder without a readable mark is built anew from the truth.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import qdrant_edge as edge

from engram.memory.edge_wire import Place, Remove, Search

_FORMAT = 1
_MARK = "mark.json"
_NAMESPACE = "ns"
_MARKS = "marks"
_SHARDS = {
    "public": {_MARKS: edge.KeywordIndexParams()},
    "private": {_MARKS: edge.KeywordIndexParams(), _NAMESPACE: edge.KeywordIndexParams(is_tenant=True)},
}


class Shards:
    """Both shards, opened for one truth. Raises what Qdrant Edge raises (plain Exception)."""

    def __init__(self, folder: Path, dimension: int, truth_id: str) -> None:
        self._folder = folder
        self._dimension = dimension
        self._truth_id = truth_id
        self.sequence = self._read_mark()
        """The last change that was applied."""
        self.flushed = self.sequence
        """The last change that is safely on disk."""
        if self.sequence < 0:
            self._clear()
        self._public, self._private = self._open()

    def apply(self, changes: Sequence[Place | Remove], sequence: int) -> None:
        """Makes the changes in both shards."""
        for shard, private in ((self._public, False), (self._private, True)):
            mine = [change for change in changes if (change.private_to is not None) == private]
            placed = [_point(change) for change in mine if isinstance(change, Place)]
            removed: list[edge.PointId] = [change.id for change in mine if isinstance(change, Remove)]
            if placed:
                shard.update(edge.UpdateOperation.upsert_points(placed))
            if removed:
                shard.update(edge.UpdateOperation.delete_points(removed))
        self.sequence = max(self.sequence, sequence)

    def search(self, searches: Sequence[Search]) -> list[list[tuple[int, float]]]:
        """Returns the hits of each search; those on the same shard share one pass."""
        answers: list[list[tuple[int, float]]] = [[] for _ in searches]
        for shard, private in ((self._public, False), (self._private, True)):
            mine = [i for i, search in enumerate(searches) if (search.private_to is not None) == private]
            if not mine:
                continue
            batch = edge.QueryBatchRequest([_query(searches[i]) for i in mine])
            for i, points in zip(mine, shard.query_batch(batch), strict=True):
                answers[i] = [(int(point.id), point.score) for point in points]
        return answers

    def points(self) -> int:
        """Returns how many vectors there are."""
        return sum(shard.count(edge.CountRequest(exact=True)) for shard in (self._public, self._private))

    def flush(self) -> None:
        """Brings both shards to disk, then the mark."""
        self._public.flush()
        self._private.flush()
        self._write_mark()
        self.flushed = self.sequence

    def close(self) -> None:
        """Flushes and closes."""
        self.flush()
        self._public.close()
        self._private.close()

    def reset(self) -> None:
        """Throws all vectors away."""
        self._public.close()
        self._private.close()
        self._clear()
        self._public, self._private = self._open()

    def _clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self.sequence = self.flushed = 0
        for name, fields in _SHARDS.items():
            _create(self._folder / name, self._dimension, fields)
        self._write_mark()

    def _open(self) -> tuple[edge.EdgeShard, edge.EdgeShard]:
        public, private = (edge.EdgeShard.load(str(self._folder / name)) for name in _SHARDS)
        return public, private

    def _read_mark(self) -> int:
        try:
            mark = json.loads((self._folder / _MARK).read_bytes())
            expected = {"format": _FORMAT, "dimension": self._dimension, "truth_id": self._truth_id}
            if {key: mark[key] for key in expected} != expected:
                return -1
            return int(mark["sequence"])
        except (OSError, ValueError, KeyError, TypeError):
            return -1

    def _write_mark(self) -> None:
        mark = {
            "format": _FORMAT,
            "dimension": self._dimension,
            "truth_id": self._truth_id,
            "sequence": self.sequence,
        }
        staged = self._folder / f".{_MARK}"
        with open(staged, "w", encoding="ascii") as file:
            json.dump(mark, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, self._folder / _MARK)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _create(path: Path, dimension: int, fields: Mapping[str, edge.KeywordIndexParams]) -> None:
    path.mkdir()
    vectors = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)
    shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=vectors))
    for field, parameters in fields.items():
        shard.update(edge.UpdateOperation.create_field_index(field, parameters))
    shard.flush()
    shard.close()


def _point(place: Place) -> edge.Point:
    payload: dict[str, object] = {_MARKS: place.marks}
    if place.private_to is not None:
        payload[_NAMESPACE] = place.private_to
    return edge.Point(place.id, _unit(place.vector), payload)


def _query(search: Search) -> edge.QueryRequest:
    wanted = [(_MARKS, mark) for mark in search.marks]
    if search.private_to is not None:
        wanted.append((_NAMESPACE, search.private_to))
    conditions = [edge.FieldCondition(key, match=edge.MatchValue(value)) for key, value in wanted]
    return edge.QueryRequest(
        limit=search.limit,
        query=edge.Query.Nearest(_unit(search.vector)),
        filter=edge.Filter(must=list(conditions)) if conditions else None,
        with_payload=False,
        with_vector=False,
    )


def _unit(packed: bytes) -> list[float]:
    """Normalises in 64-bit floating point: 32-bit squares of large or tiny numbers leave its range."""
    numbers = array("f")
    numbers.frombytes(packed)
    norm = math.hypot(*numbers)
    return [number / norm for number in numbers]
