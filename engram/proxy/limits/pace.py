"""Whether a body that waits for its proof arrives fast enough. Pure: the clock comes in from outside.

Room is held for as long as the body takes, so what arrived quickly at first buys no right to trickle later: each window
of `grace_s` is judged by itself.
"""

from typing import Final, final

LEAST_BYTES_PER_S: Final = 4_096
"""A body must arrive at this rate in each window."""


@final
class Pace:
    """The pace of one body."""

    __slots__ = ("_began_s", "_grace_s", "_seen")

    def __init__(self, grace_s: float, now: float) -> None:
        self._grace_s = grace_s
        self._began_s = now
        self._seen = 0
        """Bytes that had arrived when this window began."""

    def holds(self, received: int, now: float) -> bool:
        """Return whether `received` bytes in all are enough by now."""
        passed_s = now - self._began_s
        if passed_s <= self._grace_s:
            return True
        enough = received - self._seen >= LEAST_BYTES_PER_S * passed_s
        self._began_s, self._seen = now, received
        return enough
