"""A number of places for requests, and a bounded queue, first come first served, for those that find none.

(arrives) -> in          a place is free and no one waits
          -> queued      the queue has room         queued -> in    a place was given back
          -> refused     the queue is full          queued -> out   its deadline passed, or its client left
"""

from collections import deque
from collections.abc import Callable
from typing import final


@final
class Waiter:
    """One that waits for a place."""

    __slots__ = ("admitted", "left", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        """Called once when it is admitted."""
        self.admitted = False
        self.left = False


@final
class Places:
    """The places and the queue. Every admission is given back by `give_back`, every other waiter by `leave`."""

    def __init__(self, places: int, queue: int) -> None:
        self._places = places
        self._queue = queue
        self._waiting: deque[Waiter] = deque()
        self._waiters = 0
        self.taken = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiters

    def change(self, places: int, queue: int) -> None:
        """Change the bounds; those who are in or queued stay."""
        self._places, self._queue = places, queue
        self._admit()

    def take(self) -> bool:
        """Take a place if one is free and no one waits for it."""
        if self._waiters or self.taken >= self._places:
            return False
        self.taken += 1
        return True

    def wait(self, wake: Callable[[], None]) -> Waiter | None:
        """Queue; None when the queue is full."""
        if self._waiters >= self._queue:
            return None
        waiter = Waiter(wake)
        self._waiting.append(waiter)
        self._waiters += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting; one that was admitted meanwhile gives its place back."""
        if waiter.left:
            return
        waiter.left = True
        if waiter.admitted:
            self.give_back()
        else:
            self._waiters -= 1

    def give_back(self) -> None:
        """Give a place back; the first in the queue takes it."""
        self.taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.taken < self._places:
            waiter = self._waiting.popleft()
            if waiter.left:
                continue
            waiter.admitted = True
            self._waiters -= 1
            self.taken += 1
            waiter.wake()
