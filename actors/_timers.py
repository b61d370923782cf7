"""One heap and one task for every deadline of a system: a deadline costs a heap entry, not a cancel scope."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import trio

_COMPACT_FROM = 256


class TimerEntry:
    """One deadline. `cancel` may be called at any time, also after it fired."""

    __slots__ = ("_timers", "callback")

    def __init__(self, timers: Timers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """The callback will not be called any more."""
        if self.callback is not None:
            self.callback = None
            self._timers.note_cancelled()


class Timers:
    """Calls back at times of trio's clock, from its own task. Callbacks must be quick and must not raise."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimerEntry]] = []
        self._count = 0
        self._cancelled = 0
        self._wake_at = -math.inf
        self._sleep: trio.CancelScope | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, deadline: float, callback: Callable[[], None]) -> TimerEntry:
        """Calls `callback` once trio's clock has reached `deadline`; in the order of deadlines."""
        entry = TimerEntry(self, callback)
        self._count = count = self._count + 1
        heapq.heappush(self._heap, (deadline, count, entry))
        if deadline < self._wake_at:
            self._wake_at = deadline
            if self._sleep is not None:
                self._sleep.deadline = deadline
        return entry

    def note_cancelled(self) -> None:
        """Cancelled entries stay in the heap until they are due or are half of it."""
        self._cancelled += 1
        if self._cancelled * 2 > len(self._heap) and len(self._heap) > _COMPACT_FROM:
            self._heap = [item for item in self._heap if item[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def run(self) -> None:
        """The task: runs until cancelled."""
        while True:
            fired = 0
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                entry = heapq.heappop(self._heap)[2]
                callback, entry.callback = entry.callback, None
                if callback is None:
                    self._cancelled -= 1
                    continue
                callback()
                fired += 1
                if fired % 64 == 0:
                    await trio.lowlevel.checkpoint()
            self._wake_at = self._heap[0][0] if self._heap else math.inf
            with trio.CancelScope(deadline=self._wake_at) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None
            self._wake_at = -math.inf
