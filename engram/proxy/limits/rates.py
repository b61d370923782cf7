"""Rates per caller by GCRA, in a bounded table that never forgets a caller who is still limited.

A caller is one number: the time at which its bucket is full again. A full bucket says nothing, so its entry may go;
when every entry is live the table is full, and a new caller is refused rather than an old one given a fresh burst.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, final

FULL: Final = -1.0
"""What `take` returns when there is no room for a new caller."""
_LOOKED_AT: Final = 4
"""Entries looked at in each call: more than one, so that ended ones go faster than new ones come."""
_LEAST_WAIT_S: Final = 1e-9


@final
class Rates:
    """Allows each caller `per_minute` requests on average and `burst` at once; `per_minute` 0 allows everything."""

    def __init__(self, per_minute: float, table: int) -> None:
        self._table = table
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()
        self.change(per_minute)

    def change(self, per_minute: float) -> None:
        """Change the rate; what callers have used up stays counted."""
        self._interval_s = 60.0 / per_minute if per_minute else 0.0
        self._tolerance_s = self._interval_s * (burst_of(per_minute) - 1)

    def take(self, caller: Hashable, now: float) -> float:
        """Count a request; return 0.0, the seconds to wait when there were too many, or FULL.

        A refused request is not counted, so a caller that keeps calling is still served at its rate.
        """
        if not self._interval_s:
            return 0.0
        self._forget(now)
        known = self._full_at.get(caller)
        if known is None and len(self._full_at) >= self._table:
            return FULL
        full_at = now if known is None else max(known, now)
        wait_s = full_at - now - self._tolerance_s
        if wait_s > _LEAST_WAIT_S:
            return wait_s
        self._full_at[caller] = full_at + self._interval_s
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop buckets that are full; what is looked at and live goes to the end."""
        for _ in range(min(_LOOKED_AT, len(self._full_at))):
            caller, full_at = self._full_at.popitem(last=False)
            if full_at > now:
                self._full_at[caller] = full_at

    def __len__(self) -> int:
        return len(self._full_at)


def burst_of(per_minute: float) -> int:
    """Return the burst that a rate allows: a sixth of a minute's requests, at least 10.

    >>> burst_of(240), burst_of(6)
    (40, 10)
    """
    return max(10, int(per_minute) // 6)
