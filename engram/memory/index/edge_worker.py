"""The index worker: a process of its own, because Qdrant Edge never releases the GIL.

Started by `EdgeIndex` as `python -m engram.memory.index.edge_worker FOLDER DIMENSION TRUTH_ID PARENT_PID [TRUTH_DB
GRAPH_FROM]`; speaks `edge_wire` on stdin and stdout. Waiting searches are
answered before changes are made, in batches, with the records as they are now. Another process builds graphs; the
worker switches to them between requests. It ends
when its stdin closes or its parent dies (PR_SET_PDEATHSIG), so it can never outlive the node.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections import deque
from pathlib import Path

import msgspec

from engram import crash_reports
from engram.durable.connection import open_reader
from engram.durable.driver import sqlite3
from engram.memory.index.edge_rebuild import Rebuild
from engram.memory.index.edge_shards import Shards
from engram.memory.index.edge_wire import (
    Apply,
    Count,
    Counted,
    Flush,
    Flushed,
    Found,
    Frames,
    Reply,
    Reset,
    Search,
    WorkDone,
    WorkerReady,
    WorkFailed,
    decode_request,
    frame,
)
from engram.memory.index.parent_death import die_with, tell
from engram.memory.index.protocol import Match
from engram.memory.model import PUBLIC
from engram.memory.store import record_sql

_SMALLEST_BATCH, _LARGEST_BATCH = 4, 32
"""Bounds of a batch of searches, which is half of those that wait: the node hands on its answers during the next batch.
Eight busy connections get a fifth more than with all at once, or one at a time."""
_MOST_LOOKED_AT = 8_192
"""The most candidates of one search for records that still exist; no more changes than this can be pending."""
_READ_BYTES = 1_048_576
_FLUSH_WHEN_IDLE_S = 0.5
_FLUSH_AT_LATEST_S = 20.0
_OPEN_WITHIN_S = 5.0


def main(arguments: list[str]) -> int:
    """Serve until stdin closes. Return the exit status."""
    folder, dimension, truth_id, parent = (
        Path(arguments[0]),
        int(arguments[1]),
        arguments[2],
        int(arguments[3]),
    )
    if not die_with(parent):
        return 0
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # output of libraries must not mix with the frames
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    shards = _open(folder, dimension, truth_id)
    rebuild = truth = None
    if len(arguments) > 4:
        truth = open_reader(Path(arguments[4]))
        rebuild = Rebuild(shards, Path(arguments[4]), dimension, truth_id, int(arguments[5]))
    gc.collect()  # imported modules stay for good: exempt them from full collections
    gc.freeze()
    IndexWorker(shards, truth, rebuild, source, sink).serve()
    return 0


class IndexWorker:
    """Reads requests from one descriptor and writes replies to another."""

    def __init__(
        self, shards: Shards, truth: sqlite3.Connection | None, rebuild: Rebuild | None, source: int, sink: int
    ) -> None:
        self._shards = shards
        self._truth = truth
        self._rebuild = rebuild
        self._source = source
        self._sink = sink
        self._frames = Frames()
        self._searches: deque[Search] = deque()
        self._others: deque[Apply | Flush | Reset | Count] = deque()
        self._flushed_at = time.monotonic()

    def serve(self) -> None:
        """Answer requests until the source ends; then flush and close."""
        self._send(WorkerReady(self._shards.flushed))
        while self._receive():
            if self._searches:
                self._answer_searches()
            elif self._others:
                self._answer_other(self._others.popleft())
            self._build()
            if self._flush_is_due():
                self._flush()
                self._send(Flushed(self._shards.flushed))
        if self._rebuild is not None:
            self._rebuild.give_up()
        self._shards.close()

    def _receive(self) -> bool:
        """Read the requests that have arrived, waiting only without other work. False at the end of the source."""
        idle = not self._searches and not self._others
        dirty = self._shards.sequence > self._shards.flushed
        wait = self._wait_s(dirty) if idle else 0
        if select.select([self._source], [], [], wait)[0]:
            received = os.read(self._source, _READ_BYTES)
            if not received:
                return False
            for body in self._frames.feed(received):
                request = decode_request(body)
                if isinstance(request, Search):
                    self._searches.append(request)
                else:
                    self._others.append(request)
        elif idle and dirty and time.monotonic() - self._flushed_at >= 0.9 * _FLUSH_WHEN_IDLE_S:
            self._flush()
            self._send(Flushed(self._shards.flushed))
        return True

    def _wait_s(self, dirty: bool) -> float | None:
        if self._rebuild is not None and self._rebuild.is_levelling:
            return 0
        waits = ([_FLUSH_WHEN_IDLE_S] if dirty else []) + ([self._rebuild.wait_s] if self._rebuild is not None else [])
        return min(waits, default=None)

    def _build(self) -> None:
        if self._rebuild is None or self._searches:
            return
        flushed = self._shards.flushed
        try:
            self._rebuild.step()
        except Exception as error:  # noqa: BLE001  # the engine raises nothing more specific
            tell(f"index: the graph that was built cannot be taken over: {error}")
            self._rebuild.give_up()
        if self._shards.flushed != flushed:
            self._send(Flushed(self._shards.flushed))

    def _answer_searches(self) -> None:
        wanted = min(max(_SMALLEST_BATCH, len(self._searches) // 2), _LARGEST_BATCH, len(self._searches))
        batch = [self._searches.popleft() for _ in range(wanted)]
        try:
            answers = self._shards.search(batch)
        except Exception as error:  # noqa: BLE001  # the engine raises nothing more specific; the node is told
            for search in batch:
                self._send(WorkFailed(search.number, str(error)))
            return
        replies = [self._reply(search, hits) for search, hits in zip(batch, answers, strict=True)]
        self._write(b"".join(map(frame, replies)))

    def _reply(self, search: Search, hits: list[tuple[int, float]]) -> Found | WorkFailed:
        """Return the reply, looking at more candidates when the index still has some that are deleted."""
        reply, looked_at = self._joined(search, hits), search.limit
        while (
            isinstance(reply, Found)
            and len(reply.matches) < search.limit
            and len(hits) == looked_at
            and looked_at < _MOST_LOOKED_AT
        ):
            looked_at *= 2
            try:
                [hits] = self._shards.search([msgspec.structs.replace(search, limit=looked_at)])
            except Exception as error:  # noqa: BLE001  # the engine raises nothing more specific; the node is told
                return WorkFailed(search.number, str(error))
            reply = self._joined(search, hits)
        if not isinstance(reply, Found):
            return reply
        is_cut = len(reply.matches) < search.limit and len(hits) == looked_at
        return Found(reply.number, reply.matches[: search.limit], is_cut)

    def _joined(self, search: Search, hits: list[tuple[int, float]]) -> Found | WorkFailed:
        """Join hits with their records. An unreadable record fails this search only: others are other tenants'."""
        if self._truth is None:
            return Found(search.number, [Match(number, score) for number, score in hits])
        namespace = PUBLIC if search.private_to is None else search.private_to
        try:
            current_at = time.time() if search.current else None
            there = record_sql.by_ids(self._truth, namespace, [number for number, _ in hits], current_at)
        except (sqlite3.Error, *record_sql.DAMAGED) as error:
            return WorkFailed(search.number, record_sql.fault_of(error))
        return Found(search.number, [Match(number, score, there[number]) for number, score in hits if number in there])

    def _answer_other(self, request: Apply | Flush | Reset | Count) -> None:
        match request:
            case Apply():
                self._shards.apply(request.changes, request.sequence)
                if self._rebuild is not None:
                    self._rebuild.noticed_change()
            case Flush():
                self._flush()
            case Reset():
                if self._rebuild is not None:
                    self._rebuild.give_up()
                self._shards.reset()
            case Count():
                self._send(Counted(request.number, self._shards.points()))
                return
        self._send(WorkDone(request.number, self._shards.flushed))

    def _flush_is_due(self) -> bool:
        if self._shards.sequence == self._shards.flushed:
            self._flushed_at = time.monotonic()
        return time.monotonic() - self._flushed_at > _FLUSH_AT_LATEST_S

    def _flush(self) -> None:
        self._shards.flush()
        self._flushed_at = time.monotonic()

    def _send(self, reply: Reply) -> None:
        self._write(frame(reply))

    def _write(self, frames: bytes) -> None:
        remaining = memoryview(frames)
        while remaining:
            remaining = remaining[os.write(self._sink, remaining) :]


def _open(folder: Path, dimension: int, truth_id: str) -> Shards:
    """Open the shards, waiting for the lock of a predecessor that is still exiting.

    A folder that still cannot be opened, or not searched, is corrupt and is rebuilt from the truth.
    """
    give_up = time.monotonic() + _OPEN_WITHIN_S
    while True:
        try:
            shards = Shards(folder, dimension, truth_id)
            break
        except Exception as error:  # noqa: BLE001  # the engine raises nothing more specific
            locked = "WouldBlock" in str(error)
            if not locked or time.monotonic() > give_up:
                tell(f"index: {folder} cannot be opened ({error}), rebuilding it")
                (folder / "mark.json").unlink(missing_ok=True)
                return Shards(folder, dimension, truth_id)
            time.sleep(0.05)
    try:
        shards.check()
    except Exception as error:  # noqa: BLE001  # as above
        tell(f"index: {folder} cannot be searched ({error}), rebuilding it")
        shards.reset()
    return shards


if __name__ == "__main__":
    crash_reports.enable()
    sys.exit(main(sys.argv[1:]))
