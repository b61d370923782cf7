"""When a caller who finds neither a place nor room in the queue should come again. Pure: no clock."""

from typing import Final, final

_SHARE: Final = 1 / 8
"""Of each new holding in the average."""
LEAST_S: Final = 1.0


@final
class Turnover:
    """How long places are held, on average of late."""

    def __init__(self) -> None:
        self._held_s: float | None = None

    def note(self, held_s: float) -> None:
        """Note that a place was given back after so many seconds."""
        self._held_s = held_s if self._held_s is None else self._held_s + (held_s - self._held_s) * _SHARE

    def wait_s(self, waiting: int, places: int, queue_s: float) -> float:
        """Return the seconds in which those who wait now, and one more, will have had a place.

        At most `queue_s`, when the last of them has given up; all of it while no place was ever given back.
        """
        if self._held_s is None:
            return queue_s
        return min(queue_s, max(LEAST_S, self._held_s * (waiting + 1) / places))
