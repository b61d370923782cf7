"""A group's circuit breaker. Pure: the clock comes in from outside.

closed --failures in a row >= limit--> open --its time is over--> trial --success--> closed
                                        ^----------failure---------+
"""

from typing import Literal, final

Word = Literal["closed", "open", "trial"]


@final
class Breaker:
    """Refuses requests to a group that answers none, except for one trial at a time."""

    __slots__ = ("_failures", "_open_until", "_trial")

    def __init__(self) -> None:
        self._failures = 0
        self._open_until: float | None = None
        self._trial = False

    def word(self, now: float) -> Word:
        """Return its state in a word."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "trial"

    def wait_s(self, now: float) -> float:
        """Return 0 when a request may be sent (in the state `trial` it is the trial), else the seconds to wait."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if self._trial:
            return 1.0
        self._trial = True
        return 0.0

    def succeeded(self) -> None:
        """Note that the group answered."""
        self._failures, self._open_until, self._trial = 0, None, False

    def failed(self, limit: int, open_s: float, now: float) -> None:
        """Note that the group failed a request."""
        self._failures += 1
        self._trial = False
        if self._open_until is not None or self._failures >= limit:
            self._open_until = now + open_s

    def left(self) -> None:
        """Note that a request ended without an outcome, as when its client left: a trial may be made again."""
        self._trial = False
