"""A store made of the truth and an index that follows it.

The order of a write: committed to the truth, applied to the index, acknowledged. One task feeds the index, in
the order of the truth; when the index comes (back) up, it is first fed everything after its last flush, so
that a crash at any point loses nothing and brings nothing deleted back. Hits are joined with the truth before
anyone sees them.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import final

import trio

from engram.durable.driver import sqlite3
from engram.memory.errors import IndexRestarting, IndexUnavailable, TruthUnavailable
from engram.memory.filters import Filter
from engram.memory.index.protocol import Index, Match, Nearest
from engram.memory.model import PUBLIC, Change, Counts, Deleted, Entry, Excerpt, Hit, Record
from engram.memory.search import ranking
from engram.memory.store import record_sql
from engram.memory.store.deletions import May, Outcome
from engram.memory.store.record_db import Truth

_LARGEST_BATCH = 64
_LARGEST_REPLAY = 256
_SCANNED_AT_ONCE = 1_024
_QUEUE = 4_096
_SEARCH_WITHIN_S = 5.0
_APPLY_WITHIN_S = 10.0
_PRUNE_EVERY = 1_000


@final
class IndexedStore:
    """Keep `truth.run` and this object's `run` running. Call all methods from the trio thread."""

    def __init__(self, truth: Truth, index: Index) -> None:
        self._truth = truth
        self._index = index
        self._pending: deque[Change] = deque()
        self._arrived = trio.Event()
        self._following = False
        self._applied = 0
        self._progress = trio.Event()
        self._usable = trio.Event()
        self.index_has_answered = False
        """Whether the index has come up at least once; it checks its files first."""
        self._counts = Counts(0, 0)
        self.on_changes: Callable[[Sequence[Change]], None] = lambda changes: None
        """Called on the trio thread with the changes of each commit, in order."""
        self.kept_after: Callable[[], int] = lambda: 2**63
        """Returns the change after which others still need the list of deletions."""
        truth.on_changes = self._committed

    @property
    def usable(self) -> bool:
        """Whether searches are answered now."""
        return self._usable.is_set()

    async def load(self) -> None:
        """Read the counts. Call it once, before the first request."""
        self._counts = await self._truth.read(record_sql.count, budget_s=60.0)

    async def run(self, ready: Callable[[], None]) -> None:
        """Run the index and feed it. Raises IndexUnavailable when it dies; then run it again."""
        try:
            async with trio.open_nursery() as nursery:
                flushed = await nursery.start(self._run_index)
                self.index_has_answered = True
                await self._catch_up(flushed)
                ready()
                await self._follow()
        except BaseExceptionGroup as group:
            ends, other = group.split(IndexUnavailable)
            if other is not None:  # a cancellation or a bug: the end of the index is only a consequence
                raise other from None
            raise IndexUnavailable(_reason(ends)) from None
        finally:
            self._following = False
            if self._usable.is_set():  # otherwise searches wait for this very event: keep it
                self._usable = trio.Event()

    async def put(self, entry: Entry) -> Record:
        """Store an entry durably and searchably."""
        (record,) = await self.put_all([entry])
        return record

    async def put_all(self, entries: Sequence[Entry]) -> list[Record]:
        """Store entries durably and searchably, all of them or none."""
        stored = await self._truth.put_all(entries)
        await self._reached(max(record.sequence for record in stored))
        return stored

    async def delete(self, namespace: str, cid: str) -> bool:
        """Take a record out."""
        deleted = await self._truth.delete(namespace, cid)
        if deleted is None:
            return False
        await self._reached(deleted.sequence)
        return True

    async def delete_all(self, namespace: str, cids: Sequence[str], may: May) -> list[Outcome]:
        """Take records out, all in one transaction."""
        batch = await self._truth.delete_all(namespace, cids, may)
        with contextlib.suppress(IndexUnavailable):  # durable; hits are joined with the truth, so they show nowhere
            await self._reached(batch.sequence)
        return batch.outcomes

    async def get(self, namespace: str, cid: str) -> Record | None:
        """Return the record, or None."""
        return await self._truth.get(namespace, cid)

    async def query(self, namespace: str, vector: bytes, limit: int, conditions: Filter) -> list[Hit]:
        """Return the nearest records of the namespace.

        When the index returns records that are gone, not current or outside a range, it is asked for more, and where
        thousands of the nearest are such, all records are compared.
        """
        give_up_at, looked_at = trio.current_time() + _SEARCH_WITHIN_S, limit
        while True:
            found = await self._search(namespace, vector, looked_at, conditions, give_up_at)
            hits = await self._joined(namespace, found.matches, conditions, give_up_at)
            if len(hits) >= limit or (len(found.matches) < looked_at and not found.is_cut):
                return hits[:limit]
            if found.is_cut or looked_at > _QUEUE:
                return await self._scanned(namespace, vector, limit, conditions)
            looked_at *= 2

    async def _scanned(self, namespace: str, vector: bytes, limit: int, conditions: Filter) -> list[Hit]:
        """Return the nearest of all records that meet the conditions. Raises TruthUnavailable."""
        now = self._truth.now()

        def scan(connection: sqlite3.Connection) -> list[Hit]:
            best: list[tuple[float, int]] = []
            after = 0
            while page := record_sql.vectors(connection, namespace, conditions, _SCANNED_AT_ONCE, after, now):
                scores = ranking.cosines(vector, [embedding for _, embedding in page])
                found = [*best, *((score, -number) for score, (number, _) in zip(scores, page, strict=True))]
                best = heapq.nlargest(limit, found)
                after = page[-1][0]
            there = record_sql.by_ids(connection, namespace, [-number for _, number in best])
            return [Hit(there[-number], score) for score, number in best]

        return await self._truth.read(scan, budget_s=_SEARCH_WITHIN_S)

    async def _joined(self, namespace: str, found: Sequence[Match], conditions: Filter, give_up_at: float) -> list[Hit]:
        """Return the records of the matches, without those that are gone or not what they should be."""
        unread = [match.id for match in found if match.record is None]
        there = await self._read(namespace, unread, give_up_at, current=conditions.current) if unread else {}
        hits = [
            Hit(record, match.score if -1.0 <= match.score <= 1.0 else math.copysign(1.0, match.score))
            for match in found
            if (record := match.record or there.get(match.id)) is not None
        ]
        return [hit for hit in hits if conditions.holds(hit.record.metadata)] if conditions else hits

    async def page(
        self, namespace: str, conditions: Filter, limit: int, offset: int = 0, key: str | None = None
    ) -> list[Record]:
        """Return a page of a namespace in the order of storing."""
        now = self._truth.now()
        return await self._truth.read(
            lambda connection: record_sql.page(connection, namespace, conditions, limit, offset, key=key, now=now)
        )

    def count(self) -> Counts:
        """Return how many records there are."""
        return self._counts

    async def _read(
        self, namespace: str, ids: Sequence[int], give_up_at: float, *, current: bool
    ) -> Mapping[int, Excerpt]:
        with trio.move_on_at(give_up_at):
            return await self._truth.by_ids(namespace, ids, current=current)
        raise TruthUnavailable("the record database did not answer in time")

    async def _search(
        self, namespace: str, vector: bytes, limit: int, conditions: Filter, give_up_at: float
    ) -> Nearest:
        """Search the index; when it dies meanwhile, search its successor."""
        while True:
            usable = self._usable
            if not usable.is_set():  # waiting without need would cost a pass of the loop
                with trio.move_on_at(give_up_at):
                    await usable.wait()
            if not usable.is_set():
                raise IndexUnavailable("the index did not come up in time")
            try:
                return await self._index.search(namespace, vector, limit, conditions, give_up_at)
            except IndexRestarting:
                if self._usable is usable:  # the search sees the end of the index a moment before `run` does
                    self._usable = trio.Event()

    def _committed(self, changes: Sequence[Change]) -> None:
        public = private = 0
        for change in changes:
            step = -1 if isinstance(change, Deleted) else 1
            if change.namespace == PUBLIC:
                public += step
            else:
                private += step
        self._counts = Counts(self._counts.public + public, self._counts.private + private)
        if self._following and len(self._pending) < _QUEUE:
            self._pending.extend(changes)
            self._arrived.set()
        elif self._following:
            self._following = False  # the queue is full: the changes dropped here are read from the truth later
            self._arrived.set()
        self.on_changes(changes)

    async def _run_index(self, task_status: trio.TaskStatus[int]) -> None:
        await self._index.run(task_status.started)

    async def _catch_up(self, flushed: int) -> None:
        """Replay the changes that the index may lack; all of them when it belongs to another truth."""
        if flushed < self._truth.pruned_to:
            await self._rebuild()
        else:
            self._stands_at(flushed)
            await self._replay()
        points = await self._index.points()
        if not self._pending and points != self._counts.public + self._counts.private:
            await self._rebuild()
        self._usable.set()

    async def _rebuild(self) -> None:
        await self._index.reset()
        self._applied = 0
        await self._replay()

    async def _replay(self) -> None:
        """Feed the index from the truth until it is up to date; from then on commits are queued as they come."""
        self._pending.clear()
        while True:
            self._following = True  # a commit that the read below misses is queued
            changes = await self._truth.changes_since(self._applied, _LARGEST_REPLAY)
            if not changes:
                return
            for start in range(0, len(changes), _LARGEST_BATCH):
                await self._apply(changes[start : start + _LARGEST_BATCH])

    async def _follow(self) -> None:
        pruned = self._truth.pruned_to
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while self._pending:
                taken = [self._pending.popleft() for _ in range(min(len(self._pending), _LARGEST_BATCH))]
                batch = [change for change in taken if change.sequence > self._applied]
                if not batch:
                    continue
                flushed = min(await self._apply(batch), self.kept_after())
                if flushed - pruned >= _PRUNE_EVERY:
                    await self._truth.prune(flushed)
                    pruned = flushed
            if not self._following:
                await self._replay()

    async def _apply(self, changes: Sequence[Change]) -> int:
        flushed = await self._index.apply(changes, changes[-1].sequence)
        self._stands_at(changes[-1].sequence)
        return flushed

    def _stands_at(self, sequence: int) -> None:
        self._applied = sequence
        self._progress.set()
        self._progress = trio.Event()

    async def _reached(self, sequence: int) -> None:
        """Wait until the index has applied the change."""
        with trio.move_on_after(_APPLY_WITHIN_S):
            while self._applied < sequence:
                await self._progress.wait()
            return
        raise IndexUnavailable("the change is durable, but the index has not made it yet; it will")


def _reason(ends: BaseExceptionGroup[IndexUnavailable] | None) -> str:
    """Return the root cause of the index's exit, without the errors that it caused in open requests."""
    found: BaseException | None = ends.split(IndexRestarting)[1] if ends is not None else None
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return str(found or "the index has ended")
