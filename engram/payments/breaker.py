"""A circuit breaker in front of the facilitator: after so many failures in a row it is not called for a while."""

from enum import StrEnum
from typing import Final, final

from engram.clock import Clock
from engram.http.errors import BadAnswer, Interrupted, TooLarge
from engram.payments.facilitator import Facilitator
from engram.payments.model import Transferable
from engram.payments.outcomes import NotSent, Settlement, Unavailable, Unknown, Verification

LEFT_ALONE: Final = "facilitator_left_alone"


class BreakerState(StrEnum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    TRYING = "trying"
    """One request is on its way to find out."""


@final
class Breaker:
    """Opens after `failures` in a row for `open_s` seconds, then lets one request try."""

    def __init__(self, clock: Clock, failures: int, open_s: float) -> None:
        self._clock = clock
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._since = 0.0
        self.state = BreakerState.CLOSED

    def admit(self) -> bool:
        """Return whether a request may be sent now; each one that is sent must report `succeeded` or `failed`."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.retry_after_s() > 0:
            return False
        self.state, self._since = BreakerState.TRYING, self._clock.monotonic()
        return True

    def retry_after_s(self) -> float:
        """Return the seconds until the next request may try, 0 when one may now. A try that never reports times out."""
        if self.state is BreakerState.CLOSED:
            return 0.0
        return max(0.0, self._since + self._open_s - self._clock.monotonic())

    def succeeded(self) -> None:
        """Close the breaker: the facilitator answered."""
        self._failures = 0
        self.state = BreakerState.CLOSED

    def failed(self) -> None:
        """Count a failure: the facilitator was not reached, or its answer could not be read."""
        self._failures += 1
        if self.state is BreakerState.TRYING or self._failures >= self._limit:
            self.state, self._since = BreakerState.OPEN, self._clock.monotonic()


@final
class GuardedFacilitator:
    """A facilitator behind a breaker. What is not sent returns Unavailable or NotSent at once."""

    def __init__(self, facilitator: Facilitator, breaker: Breaker) -> None:
        self._facilitator = facilitator
        self._breaker = breaker

    async def verify(self, transfer: Transferable) -> Verification:
        """Verify as the facilitator does; Unavailable while the breaker is open."""
        if not self._breaker.admit():
            return Unavailable(LEFT_ALONE)
        verdict = await self._facilitator.verify(transfer)
        self._report(isinstance(verdict, Unavailable))
        return verdict

    async def settle(self, transfer: Transferable) -> Settlement:
        """Settle as the facilitator does; NotSent while the breaker is open."""
        if not self._breaker.admit():
            return NotSent(LEFT_ALONE)
        settlement = await self._facilitator.settle(transfer)
        self._report(_is_silence(settlement))
        return settlement

    def _report(self, failed: bool) -> None:
        if failed:
            self._breaker.failed()
        else:
            self._breaker.succeeded()


def _is_silence(settlement: Settlement) -> bool:
    """Return whether the adapter got no readable answer; a facilitator's own reasons are not named like that."""
    match settlement:
        case NotSent():
            return True
        case Unknown(why):
            return why.startswith("http_") or why in (Interrupted.__name__, TooLarge.__name__, BadAnswer.__name__)
        case _:
            return False
