"""Ends a node by itself when its time is up, even when the gateway is not there to stop it."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import structlog
import trio

from engram.clock import Clock

_LOOK_EVERY_S = 5.0
EXTENSION_WAIT_S = 900.0
"""A node that is started after the end it knows waits this long to be told another one: its session may have been
extended by more than its orders say, which nobody can change. Until then it has no certificate, and signs nothing."""
_log = structlog.get_logger("engram.miner")


@final
class Lifetime:
    """Watches the wall clock and the monotonic clock; the first to reach the end counts.

    `read_end` rereads the end (unix seconds, None for never) from the launch file. It is called before the node ends,
    because an extension changes the end there. It must not raise. `is_current` says whether that is the end as its
    gateway knows it now; where it is not, the node waits for it, EXTENSION_WAIT_S from its start at most.
    """

    def __init__(
        self,
        clock: Clock,
        ends_at: float | None,
        read_end: Callable[[], float | None],
        is_current: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._read_end = read_end
        self._is_current = is_current
        self._waits_until = clock.monotonic() + EXTENSION_WAIT_S
        self._set(ends_at)

    async def over(self) -> None:
        """Wait until the time is up."""
        while True:
            left = self._left_s()
            if left > 0:
                await trio.sleep(min(left, _LOOK_EVERY_S))
                continue
            moved = await trio.to_thread.run_sync(self._read_end)
            if moved is not None and moved <= self._clock.now():
                if not self._is_current() and self._clock.monotonic() < self._waits_until:
                    await trio.sleep(_LOOK_EVERY_S)
                    continue
                _log.info("end_reached", ends_at=moved)
                return
            self._set(moved)

    def _set(self, ends_at: float | None) -> None:
        self._ends_at = ends_at
        self._deadline = None if ends_at is None else self._clock.monotonic() + ends_at - self._clock.now()

    def _left_s(self) -> float:
        if self._ends_at is None or self._deadline is None:
            return _LOOK_EVERY_S
        return min(self._ends_at - self._clock.now(), self._deadline - self._clock.monotonic())
