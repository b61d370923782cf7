"""Time, randomness and identifiers, handed in from outside so that tests run days in milliseconds."""

import random
import secrets
import time
import uuid
from typing import Protocol, final


class Clock(Protocol):
    """Two clocks: `now` may jump with the wall, `monotonic` never goes back."""

    def now(self) -> float:
        """Unix time in seconds, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; meaningful only as a difference inside one process."""
        ...


@final
class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@final
class ManualClock:
    """A clock that moves only when told to; wall and monotonic time move together unless `jump` is used."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` (>= 0) pass on both clocks. Raises ValueError on a negative step."""
        if seconds < 0:
            raise ValueError(f"time cannot go back by {seconds} s; use jump() to move the wall clock alone")
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, as an operator or NTP would."""
        self._now += seconds


@final
class TrioClock:
    """Both clocks driven by trio's clock, so that `autojump_clock` moves them. `start` is unix seconds."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start

    def now(self) -> float:
        return self._start + self.monotonic()

    def monotonic(self) -> float:
        import trio

        return trio.current_time()

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, as an operator or NTP would."""
        self._start += seconds


class Ids(Protocol):
    """Source of identifiers and nonces."""

    def uuid4(self) -> str:
        """Return a random UUID (version 4) in canonical text form."""
        ...

    def token(self, size: int = 16) -> str:
        """`size` random bytes as lower-case hex."""
        ...


@final
class SystemIds:
    """Identifiers from the operating system's secure source."""

    def uuid4(self) -> str:
        return str(uuid.uuid4())

    def token(self, size: int = 16) -> str:
        return secrets.token_hex(size)


@final
class SeededIds:
    """Repeatable identifiers for tests and simulations; never for secrets."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)

    def uuid4(self) -> str:
        return str(uuid.UUID(bytes=self._rng.randbytes(16), version=4))

    def token(self, size: int = 16) -> str:
        return self._rng.randbytes(size).hex()
