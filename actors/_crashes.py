"""Who learns of a crash without listening: the log, by default, and tests that expect none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from actors._events import Crashed, GaveUp, StartSlow
from actors._interrupts import interrupt_in, protect

LOGGER: Final = logging.getLogger("actors")
_BURST: Final = 20
_REFILL_PER_S: Final = 2.0

witnesses: Final[list[Callable[[Crashed], None]]] = []
"""Called with each crash in any system of this process; used by `actors.testing`."""


class CrashLog:
    """Writes crashes and what supervisors give up to the logger `actors`: 20 at once, then 2 a second, so that a storm
    of restarts does not become a storm of tracebacks; how many were left out is said in the next one."""

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._refilled_at = -1.0
        self._left_out = 0

    def crashed(self, event: Crashed) -> None:
        """Log a crash. An interrupt is none: it comes out of `open_system`."""
        error = event.reason.error
        if error is not None and interrupt_in(error) is None and self._may_write(event.at):
            when = "in its start" if event.starting else "and its supervisor decides"
            rest = self._rest()
            LOGGER.error("%s %s crashed %s: %s%s", event.kind, event.path, when, event.reason, rest, exc_info=error)

    def slow(self, event: StartSlow) -> None:
        """Log a failed start, once for each."""
        LOGGER.warning(
            "%s %s is not ready after %g s: its on_start has not returned, or the job has not called context.ready()",
            event.kind,
            event.path,
            event.seconds,
        )

    def gave_up(self, event: GaveUp) -> None:
        """Log that a supervisor gave up, once for each of its lives."""
        what = "leaves" if event.disabled else "gives up because of"
        LOGGER.error("supervisor %s %s %s, which restarts too often: %s", event.path, what, event.child, event.reason)

    def _may_write(self, at: float) -> bool:
        if self._refilled_at >= 0:
            self._left = min(float(_BURST), self._left + (at - self._refilled_at) * _REFILL_PER_S)
        self._refilled_at = at
        if self._left < 1:
            self._left_out += 1
            return False
        self._left -= 1
        return True

    def _rest(self) -> str:
        left_out, self._left_out = self._left_out, 0
        return f" ({left_out} crashes before it were not logged)" if left_out else ""


protect(globals())
