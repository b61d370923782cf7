"""Messages and small actors that the tests of this package share."""

from __future__ import annotations

import trio

from actors import Actor, Message


class Ping(Message[str], frozen=True):
    """Replied to with "pong"."""


class Add(Message[int], frozen=True):
    """Adds and replies with the sum so far."""

    amount: int = 1


class Crash(Message[None], frozen=True):
    """Raises."""

    text: str = "boom"


class Sleep(Message[str], frozen=True):
    """Sleeps in the handler."""

    seconds: float


class Leave(Message[None], frozen=True):
    """Ends by itself."""


class Boom(Exception):
    """What a crash raises here."""


class Counter(Actor[Ping | Add | Crash | Sleep | Leave]):
    """Counts, crashes, sleeps and leaves as it is told."""

    def __init__(self) -> None:
        self.total = 0

    async def handle(self, message: Ping | Add | Crash | Sleep | Leave) -> object:
        match message:
            case Ping():
                return "pong"
            case Add(amount):
                self.total += amount
                return self.total
            case Crash(text):
                raise Boom(text)
            case Sleep(seconds):
                await trio.sleep(seconds)
                return "slept"
            case Leave():
                self.context.stop()
                return None
