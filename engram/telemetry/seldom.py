"""Bounds how often a line is logged that anybody can cause: so many in a while, and how many were left out."""

from collections.abc import Callable
from typing import final


@final
class Seldom:
    """Allows `most` lines in each `within_s` seconds.

    >>> line = Seldom(1, 10.0, iter((0.0, 1.0, 10.0)).__next__)
    >>> line.wanted(), line.facts, line.wanted(), line.wanted(), line.facts
    (True, {}, False, True, {'left_out': 1})
    """

    __slots__ = ("_ends_s", "_missed", "_monotonic", "_most", "_noted", "_within_s", "facts")

    def __init__(self, most: int, within_s: float, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._within_s = within_s
        self._monotonic = monotonic
        self._ends_s = float("-inf")
        self._noted = 0
        self._missed = 0
        self.facts: dict[str, int] = {}
        """Of the line that is wanted now: how many were left out before it (`left_out`), where any were."""

    def wanted(self) -> bool:
        """Count a line; return whether it is to be logged."""
        if (now := self._monotonic()) >= self._ends_s:
            self._ends_s, self._noted = now + self._within_s, 0
        if self._noted >= self._most:
            self._missed += 1
            return False
        self._noted += 1
        self.facts, self._missed = ({"left_out": self._missed} if self._missed else {}), 0
        return True
