"""Rebuilds a node's whole index with its graphs while the node is down: next to the old one, then swapped in."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from engram.durable.connection import open_reader
from engram.memory.index import edge_build, edge_shard, edge_shards
from engram.memory.store import record_sql

_SAME_NAMES = {name: name for name in edge_shard.NAMES}


def reindex(truth_path: Path, index: Path, on_progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Build the index in folder `index` from the record database; return how many vectors it has; blocking.

    The caller has claimed the node's folder. `on_progress` is called with the vectors done and in all; the graph of a
    shard is built after its last vector and takes most of the time. When stopped, the old index is intact or gone; the
    node rebuilds a missing index at its start. Raises sqlite3.Error, OSError and what Qdrant Edge raises.
    """
    building, old = index.with_name(f"{index.name}.building"), index.with_name(f"{index.name}.old")
    for left in (building, old):
        shutil.rmtree(left, ignore_errors=True)
    with contextlib.closing(open_reader(truth_path)) as connection:
        first = connection.execute("SELECT length(embedding) FROM records LIMIT 1").fetchone()
        if first is None:
            shutil.rmtree(index, ignore_errors=True)
            return 0
        counts, sequence = record_sql.count(connection), record_sql.last_sequence(connection)
        total, done, dimension = counts.public + counts.private, 0, int(first[0]) // 4

        def placed(count: int) -> None:
            nonlocal done
            done += count
            on_progress(done, total)

        building.mkdir()
        for name in edge_shard.NAMES:
            edge_build.build(connection, building / name, dimension, name, placed)
        truth_id = record_sql.read_meta(connection, "truth_id") or ""
        edge_shards.write_mark(building, dimension, truth_id, sequence, _SAME_NAMES)
    if index.exists():
        index.rename(old)
    building.rename(index)
    shutil.rmtree(old, ignore_errors=True)
    return done
