"""The bytes of results that are kept for those who posted the jobs: bounded, and no key holds more than it leaves free.

A result is there before its size is known to fit, so the bound is looked at before a job begins; jobs that run already
may exceed it by their own results.
"""

from collections.abc import Mapping
from typing import final

from engram.hotkeys import PublicKey


@final
class KeptBytes:
    """What each key's results take up."""

    def __init__(self, in_all: int) -> None:
        self.in_all = in_all
        self._held: dict[PublicKey, int] = {}
        self._sum = 0

    def replace(self, held: Mapping[PublicKey, int]) -> None:
        """Take the bytes as they were counted."""
        self._held = dict(held)
        self._sum = sum(held.values())

    def add(self, owner: PublicKey, size: int) -> None:
        """Count a result in."""
        self._held[owner] = self._held.get(owner, 0) + size
        self._sum += size

    def has_room(self, owner: PublicKey) -> bool:
        """Return whether another result of this key may be kept."""
        return self._held.get(owner, 0) < self.in_all - self._sum

    def __len__(self) -> int:
        return self._sum
