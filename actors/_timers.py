"""One heap and one task for every deadline of a system: a deadline costs a heap entry, not a cancel scope.

The deadlines of calls do not even cost that: calls with the same timeout end in the order in which they began, so
they stand in a lane, and only the head of a lane is in the heap. Calls that are over are swept out of their lane
when it has doubled, so that a lane holds at most about twice the calls that wait, plus 256; lanes in which nobody
waits are swept out likewise.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Protocol

import trio

from actors._errors import WrongThread
from actors._interrupts import protect
from actors._specs import require_seconds

_COMPACT_FROM = 256


class TimerEntry:
    """One deadline. `cancel` may be called at any time, also after it fired."""

    __slots__ = ("_timers", "callback")

    def __init__(self, timers: Timers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.callback: Callable[[], None] | None = callback

    def require_thread(self) -> None:
        """Raise WrongThread when another thread than the timers' own runs this."""
        if self._timers.thread != get_ident():
            raise WrongThread("timer")

    def cancel(self) -> None:
        """Keep the callback from being called."""
        if self.callback is not None:
            self.callback = None
            self._timers.note_cancelled()


class Expiring(Protocol):
    """Something with a deadline that is usually over before."""

    done: bool
    deadline: float

    def expire(self) -> None:
        """Call the callback: the deadline has come."""
        ...


class DeadlineLane:
    """Everything that has the same timeout, in the order of deadlines."""

    __slots__ = ("armed", "entries", "sweep_at")

    def __init__(self) -> None:
        self.entries: deque[Expiring] = deque()
        self.armed: TimerEntry | None = None
        self.sweep_at = _COMPACT_FROM


class Timers:
    """Calls back at times of trio's clock, from its own task. Callbacks must be quick and must not raise. To be made
    inside the trio run that it serves."""

    def __init__(self) -> None:
        self.thread = get_ident()
        self._heap: list[tuple[float, int, TimerEntry]] = []
        self._count = 0
        self._cancelled = 0
        self._wake_at = -math.inf
        self._sleep: trio.CancelScope | None = None
        self._lanes: dict[float, DeadlineLane] = {}
        self._sweep_lanes_at = _COMPACT_FROM
        self._offset = 0.0
        self.raw: Callable[[], float] = trio.current_time
        """A clock that is quicker to read than trio's and differs from it by a constant."""
        if type(trio.lowlevel.current_clock()).__name__ == "SystemClock":
            # trio.current_time is perf_counter and an offset behind three calls.
            self.raw = time.perf_counter
            self._offset = trio.current_time() - time.perf_counter()

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, deadline: float, callback: Callable[[], None]) -> TimerEntry:
        """Call `callback` once trio's clock has reached `deadline`; in the order of deadlines."""
        entry = TimerEntry(self, callback)
        self._count = count = self._count + 1
        heapq.heappush(self._heap, (deadline, count, entry))
        if deadline < self._wake_at:
            self._wake_at = deadline
            if self._sleep is not None:
                self._sleep.deadline = deadline
        return entry

    def expire(self, entry: Expiring, timeout_s: float) -> None:
        """Expire `entry` after `timeout_s`, unless it is done by then. Raises ValueError for what is no timeout."""
        if type(timeout_s) is not float:  # True, 1 and 1+0j would find the lane of 1.0
            require_seconds(timeout_s, "timeout", endless=True)
        lane = self._lanes.get(timeout_s)
        if lane is None:
            require_seconds(timeout_s, "timeout", endless=True)
            if timeout_s == math.inf:
                return
            if len(self._lanes) >= self._sweep_lanes_at:
                self._sweep_lanes()
            lane = self._lanes[timeout_s] = DeadlineLane()
        entry.deadline = self.raw() + timeout_s
        entries = lane.entries
        entries.append(entry)
        if len(entries) >= lane.sweep_at:
            lane.entries = deque(one for one in entries if not one.done)
            lane.sweep_at = max(_COMPACT_FROM, 2 * len(lane.entries))
        if lane.armed is None:
            lane.armed = self.at(entry.deadline + self._offset, lambda: self._expire_due(timeout_s, lane))

    def _sweep_lanes(self) -> None:
        """Drop empty lanes: timeouts that rarely repeat create many."""
        for timeout_s, lane in tuple(self._lanes.items()):
            if all(one.done for one in lane.entries):
                del self._lanes[timeout_s]
                if lane.armed is not None:
                    lane.armed.cancel()
        self._sweep_lanes_at = max(_COMPACT_FROM, 2 * len(self._lanes))

    def now(self) -> float:
        """trio's time."""
        return self.raw() + self._offset

    def _expire_due(self, timeout_s: float, lane: DeadlineLane) -> None:
        now = trio.current_time() - self._offset
        entries = lane.entries
        while entries and (entries[0].done or entries[0].deadline <= now):
            entry = entries.popleft()
            if not entry.done:
                entry.expire()
        if entries:
            lane.armed = self.at(entries[0].deadline + self._offset, lambda: self._expire_due(timeout_s, lane))
        else:
            del self._lanes[timeout_s]

    def note_cancelled(self) -> None:
        """Count a cancelled entry; they stay in the heap until they are due or are half of it."""
        self._cancelled += 1
        if self._cancelled * 2 > len(self._heap) and len(self._heap) > _COMPACT_FROM:
            self._heap = [item for item in self._heap if item[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def run(self) -> None:
        """Run until cancelled."""
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


protect(globals())
