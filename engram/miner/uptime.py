"""Measures a node's uptime since its first start; saved every minute, so that downtime between runs counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import final

import trio

from engram.clock import Clock
from engram.memory.errors import TruthUnavailable, WriteUnknown
from engram.memory.store.record_db import Truth

_NOTE_EVERY_S = 60.0
_BORN = "first_started_at"
_UP = "up_s"


@final
class Uptime:
    """Counts monotonic seconds against the wall clock since the node's first start."""

    def __init__(self, truth: Truth, clock: Clock) -> None:
        self._truth = truth
        self._clock = clock
        self._born: float | None = None
        self._up_before_s = 0.0
        self._since = clock.monotonic()

    @property
    def percent(self) -> float | None:
        """Share of time since the first start, 0 to 100; None before it is known."""
        if self._born is None:
            return None
        lived = self._clock.now() - self._born
        return 100.0 if lived <= 1.0 else round(min(100.0, 100.0 * self._up_s() / lived), 3)

    async def run(self, ready: Callable[[], None]) -> None:
        """Read the saved uptime, then save it every minute until cancelled."""
        ready()
        if self._born is None:
            self._up_before_s = float(await self._truth.noted(_UP) or 0.0)
            self._born = float(await self._truth.noted(_BORN) or self._clock.now())
        while True:
            with suppress(TruthUnavailable, WriteUnknown):  # a full disk must not end the node
                await self._truth.note({_BORN: repr(self._born), _UP: repr(self._up_s())})
            await trio.sleep(_NOTE_EVERY_S)

    def _up_s(self) -> float:
        return self._up_before_s + self._clock.monotonic() - self._since
