"""Builds a shard with its graph from the record database, while the current shard keeps serving.

Started by the worker as `python -m engram.memory.index.edge_build TRUTH_DB FOLDER DIMENSION TRUTH_ID NAME PARENT_PID
NICENESS`, at low priority at first (patience.py). It reads the record database page by page, each in a short read
transaction, so that it never keeps the log from being checkpointed; the worker applies the changes that
were made meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import qdrant_edge as edge

from engram import crash_reports
from engram.durable.connection import open_reader
from engram.durable.driver import sqlite3
from engram.memory.index import edge_shard
from engram.memory.index.edge_wire import Place, wire
from engram.memory.index.parent_death import die_with
from engram.memory.store import record_sql

_PAGE = 256
_WRONG_TRUTH = 3


def main(arguments: list[str]) -> int:
    """Build one shard. Return the exit status."""
    truth_path, folder, name = Path(arguments[0]), Path(arguments[1]), arguments[4]
    if not die_with(int(arguments[5])):
        return 0
    os.nice(int(arguments[6]))
    with contextlib.closing(open_reader(truth_path)) as connection:
        if record_sql.read_meta(connection, "truth_id") != arguments[3]:
            return _WRONG_TRUTH
        build(connection, folder, int(arguments[2]), name)
    return 0


def build(
    connection: sqlite3.Connection,
    folder: Path,
    dimension: int,
    name: str,
    on_placed: Callable[[int], None] = lambda count: None,
) -> int:
    """Build shard `name` with its graph in `folder` from the record database; return its number of vectors.

    The shard is on disk when this returns. `on_placed` is called after each page with its number of vectors. Raises
    sqlite3.Error and what Qdrant Edge raises.
    """
    shard = edge_shard.create(folder, dimension, name)
    after = count = 0
    while page := record_sql.vectors_after(connection, after, _PAGE, private=name == "private"):
        placed = [change for change in map(wire, page) if isinstance(change, Place)]
        shard.update(edge.UpdateOperation.upsert_points([edge_shard.point(place) for place in placed]))
        after = page[-1].id
        count += len(page)
        on_placed(len(page))
    shard.optimize()
    shard.flush()
    shard.close()
    return count


if __name__ == "__main__":
    crash_reports.enable()
    sys.exit(main(sys.argv[1:]))
