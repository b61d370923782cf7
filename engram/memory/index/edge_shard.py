"""One Qdrant Edge shard: how its points, queries and graph are made. Blocks and holds the GIL (measured).

A graph holds its vectors a second time with 8 bits a number; a search goes through these, and its best candidates are
ranked again by the full vectors.
Measured on 25 k of 384: a search takes 0.2 ms at 128 candidates instead of 0.5 at 96, a build a quarter, and recall@10
is no lower: 0.9997 on clustered vectors, 0.958 instead of 0.929 on vectors that are almost noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import qdrant_edge as edge

from engram.memory.index.edge_wire import Place, Search, direction

NAMES: Final[tuple[str, ...]] = ("public", "private")
"""Public and private vectors never share a shard."""
_NAMESPACE = "ns"
_MARKS = "marks"
_FULL_SCAN_KB = 4_000
"""A search whose namespace and filter leave fewer kB of vectors (2,600 of 384 numbers) scans them, exactly."""
_INDEX_FROM_KB = 1_000
_EF = 128
"""Candidates of a graph search."""
_OVERSAMPLING = 2.0
"""How many times the wanted number of hits is ranked again by the full vectors."""
_QUANTILE = 0.99


def create(path: Path, dimension: int, name: str) -> edge.EdgeShard:
    """Make an empty shard at `path`, which must not be there, and open it."""
    path.mkdir()
    private = name == "private"
    graph = edge.HnswIndexConfig(
        m=0 if private else 16,  # private searches always name a namespace: one graph over all would go unused
        ef_construct=128,
        full_scan_threshold=_FULL_SCAN_KB,
        payload_m=16 if private else None,
    )
    shard = edge.EdgeShard.create(
        str(path),
        edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine),
            hnsw_config=graph,
            quantization_config=edge.ScalarQuantizationConfig(
                edge.ScalarType.Int8, quantile=_QUANTILE, memory=edge.Memory.Pinned
            ),
            max_search_threads=1,  # the worker runs one search at a time: a pool would only add context switches
            optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=_INDEX_FROM_KB),
        ),
    )
    shard.update(edge.UpdateOperation.create_field_index(_MARKS, edge.KeywordIndexParams()))
    if private:
        shard.update(edge.UpdateOperation.create_field_index(_NAMESPACE, edge.KeywordIndexParams(is_tenant=True)))
    shard.flush()
    return shard


def point(place: Place) -> edge.Point:
    """Return the point of a vector."""
    payload: dict[str, object] = {_MARKS: place.marks}
    if place.private_to is not None:
        payload[_NAMESPACE] = place.private_to
    return edge.Point(place.id, direction(place.vector), payload)


def query(search: Search, *, exact: bool = False) -> edge.QueryRequest:
    """Return the engine's form of a search; with `exact` it scans instead of using the graph."""
    wanted = [(_MARKS, marks) for marks in search.marks]
    if search.private_to is not None:
        wanted.append((_NAMESPACE, [search.private_to]))
    conditions = [edge.FieldCondition(key, match=_match(values)) for key, values in wanted]
    return edge.QueryRequest(
        limit=search.limit,
        query=edge.Query.Nearest(direction(search.vector)),
        filter=edge.Filter(must=list(conditions)) if conditions else None,
        params=edge.SearchParams(
            hnsw_ef=max(_EF, 2 * search.limit),
            exact=exact,
            quantization=edge.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING),
        ),
        with_payload=False,
        with_vector=False,
    )


def _match(values: list[str]) -> edge.MatchValue | edge.MatchAny:
    return edge.MatchValue(values[0]) if len(values) == 1 else edge.MatchAny(values)


def copy_points(source: edge.EdgeShard, target: edge.EdgeShard, ids: list[int]) -> None:
    """Make those points in `target` as in `source`: present or deleted."""
    wanted: list[edge.PointId] = list(ids)
    there = source.retrieve(wanted, True, True)
    if there:
        points = [edge.Point(found.id, found.vector, found.payload) for found in there]  # type: ignore[arg-type]  # dense vectors only
        target.update(edge.UpdateOperation.upsert_points(points))
    kept = {int(found.id) for found in there}
    gone: list[edge.PointId] = [number for number in ids if number not in kept]
    if gone:
        target.update(edge.UpdateOperation.delete_points(gone))
