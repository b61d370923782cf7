"""Sends a node's vectors to a Qdrant server, resuming from the mark that the server keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import trio

from engram.durable.connection import open_reader
from engram.memory.errors import IndexUnavailable, TruthUnavailable
from engram.memory.index.qdrant_index import QdrantIndex
from engram.memory.store import record_sql

_PAGE = 256


async def push(
    truth_path: Path,
    url: str,
    *,
    api_key: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Send to the server the vectors that it lacks; return how many it then has.

    After an interruption, call it again: it resumes from the server's mark. A server that missed deletions which the
    truth no longer lists is refilled from the start. `on_progress` is called with the vectors sent and to be sent.

    Raises IndexUnavailable (the mark stays), TruthUnavailable (there are no records).
    """
    with contextlib.closing(open_reader(truth_path)) as connection:
        first = connection.execute("SELECT length(embedding) FROM records LIMIT 1").fetchone()
        if first is None:
            raise TruthUnavailable(f"{truth_path} has no records")
        truth_id = record_sql.read_meta(connection, "truth_id") or ""
        pruned_to = int(record_sql.read_meta(connection, "pruned_to") or 0)
        index = QdrantIndex(url, int(first[0]) // 4, truth_id, api_key=api_key)
        try:
            async with trio.open_nursery() as nursery:

                async def serve(task_status: trio.TaskStatus[int]) -> None:
                    await index.run(task_status.started)

                sequence = await nursery.start(serve)
                if sequence < pruned_to:
                    await index.reset()
                    sequence = 0
                (total,) = connection.execute("SELECT count(*) FROM records WHERE sequence > ?", (sequence,)).fetchone()
                done = 0
                while changes := record_sql.changes_since(connection, sequence, _PAGE):
                    sequence = changes[-1].sequence
                    await index.apply(changes, sequence)
                    await index.flush()
                    done += len(changes)
                    on_progress(min(done, total), total)
                points = await index.points()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            expected, other = group.split(IndexUnavailable)
            if other is not None or expected is None:
                raise
            raise IndexUnavailable(str(_first(expected))) from group
    return points


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
