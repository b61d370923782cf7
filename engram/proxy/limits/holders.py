"""How many requests each caller has in progress, and since when; bounded per caller and in the number of callers."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeAlias, final

import msgspec


class TooMany(msgspec.Struct, frozen=True):
    """The caller has as many as it may have."""

    limit: int
    held: int
    oldest_s: float
    """Seconds since the oldest of them began."""


class NoRoom(msgspec.Struct, frozen=True):
    """The table of callers is full."""


Ticket: TypeAlias = int


@final
class Holders:
    """The requests in progress by caller."""

    def __init__(self, limit: int, table: int) -> None:
        self.limit = limit
        self._table = table
        self._held: dict[Hashable, OrderedDict[Ticket, float]] = {}
        self._next = 0
        self._count = 0

    def enter(self, caller: Hashable, now: float) -> Ticket | TooMany | NoRoom:
        """Count a request in; pass a ticket that is returned to `leave`."""
        held = self._held.get(caller)
        if held is None:
            if len(self._held) >= self._table:
                return NoRoom()
            held = self._held[caller] = OrderedDict()
        elif len(held) >= self.limit:
            return TooMany(self.limit, len(held), now - next(iter(held.values())))
        self._next += 1
        held[self._next] = now
        self._count += 1
        return self._next

    def leave(self, caller: Hashable, ticket: Ticket) -> None:
        """Count a request out. Raises KeyError for a ticket that is not held: a place must be given back once."""
        held = self._held[caller]
        del held[ticket]
        self._count -= 1
        if not held:
            del self._held[caller]

    def of(self, caller: Hashable) -> int:
        """Return how many this caller holds."""
        return len(self._held.get(caller, ()))

    def __len__(self) -> int:
        return self._count
