"""How the facilitator stands: whether it is left alone for a while, and what it says it supports.

Sales follow it: while it cannot be used, a buyer gets a 503 with Retry-After and never a 402, so that nobody signs a
payment that cannot be settled.
"""

from enum import StrEnum
from typing import Final, final

import msgspec

from config.pricing import MOST_UNITS
from engram.clock import Clock
from engram.http.errors import BadAnswer, Interrupted, TooLarge
from engram.payments.facilitator import Facilitator
from engram.payments.model import Transferable
from engram.payments.networks import Network
from engram.payments.outcomes import NotSent, Settlement, Unavailable, Unknown, Verification
from engram.payments.purchase_answer import NoRoom
from engram.payments.x402 import SCHEME, canonical_network

LEFT_ALONE: Final = "facilitator_left_alone"
RETRY_S: Final = 10


class BreakerState(StrEnum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    TRYING = "trying"
    """One request is on its way to find out."""


@final
class Breaker:
    """Opens after so many failures in a row, and lets one request try when its time is up."""

    def __init__(self, clock: Clock, failures: int, open_s: float) -> None:
        self._clock = clock
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._since = 0.0
        self.state = BreakerState.CLOSED

    def admit(self) -> bool:
        """Whether a request may be sent now; each one that may must report `succeeded` or `failed`."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.retry_after_s() > 0:
            return False
        self.state, self._since = BreakerState.TRYING, self._clock.monotonic()
        return True

    def retry_after_s(self) -> float:
        """Seconds until the next request may try; 0 when one may now. A try that never reports is given up, too."""
        if self.state is BreakerState.CLOSED:
            return 0.0
        return max(0.0, self._since + self._open_s - self._clock.monotonic())

    def succeeded(self) -> None:
        """It answered."""
        self._failures = 0
        self.state = BreakerState.CLOSED

    def failed(self) -> None:
        """It could not be reached, or said nothing that can be read."""
        self._failures += 1
        if self.state is BreakerState.TRYING or self._failures >= self._limit:
            self.state, self._since = BreakerState.OPEN, self._clock.monotonic()


@final
class GuardedFacilitator:
    """A facilitator behind a breaker: what is not sent is told as not sent."""

    def __init__(self, facilitator: Facilitator, breaker: Breaker) -> None:
        self._facilitator = facilitator
        self._breaker = breaker

    async def verify(self, transfer: Transferable) -> Verification:
        """As the facilitator's, or Unavailable at once."""
        if not self._breaker.admit():
            return Unavailable(LEFT_ALONE)
        verdict = await self._facilitator.verify(transfer)
        self._report(isinstance(verdict, Unavailable))
        return verdict

    async def settle(self, transfer: Transferable) -> Settlement:
        """As the facilitator's, or NotSent at once."""
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
    """Nothing was said that can be read, as the adapter names it; the facilitator's own words do not look like that."""
    match settlement:
        case NotSent():
            return True
        case Unknown(why):
            return why.startswith("http_") or why in (Interrupted.__name__, TooLarge.__name__, BadAnswer.__name__)
        case _:
            return False


class Kind(msgspec.Struct, frozen=True):
    """How the facilitator supports our network."""

    minimum: int = 0
    """Atomic units below which it settles nothing; it moves."""
    transfer_method: str | None = None
    """What it names as its own choice; our offers ask for eip3009 whatever it is."""


class Supported(msgspec.Struct, frozen=True):
    """A /supported answer as far as it concerns us; `kind` None: our network is not among them."""

    kind: Kind | None


def read_supported(body: object, network: Network) -> Supported | None:
    """Returns what a /supported answer says of scheme `exact` on `network`, None when it is no such answer."""
    kinds = body.get("kinds") if isinstance(body, dict) else None
    if not isinstance(kinds, list):
        return None
    for kind in kinds:
        if not isinstance(kind, dict) or kind.get("scheme") != SCHEME or kind.get("x402Version") != 2:
            continue
        if canonical_network(str(kind.get("network"))) != network.caip2:
            continue
        extra = kind.get("extra")
        told = extra if isinstance(extra, dict) else {}
        method = told.get("assetTransferMethod")
        return Supported(Kind(_units(told.get("minPaymentAmountAtomic")), method if isinstance(method, str) else None))
    return Supported(None)


def _units(told: object) -> int:
    if isinstance(told, str) and told.isascii() and told.isdecimal():
        return min(int(told), MOST_UNITS + 1) if len(told) <= 30 else MOST_UNITS + 1
    if not isinstance(told, int) or isinstance(told, bool) or told < 0:
        return 0
    return min(told, MOST_UNITS + 1)  # what is more than anything costs is no more than that


@final
class Standing:
    """What is known of the facilitator now."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker: Final = breaker
        self.supported: Supported | None = None
        """None until /supported was read; what was read last is kept while it cannot be read."""

    def refusal(self, amount: int | None = None) -> NoRoom | None:
        """Why nothing can be sold for `amount` (atomic units; None: for any) at the moment, None when it can."""
        left_s = self.breaker.retry_after_s()
        if left_s > 0:
            return NoRoom("facilitator_unavailable", "Payments cannot be settled at the moment.", int(left_s) + 1)
        if self.supported is None:
            return NoRoom("facilitator_unavailable", "It is not known yet whether payments can be settled.", RETRY_S)
        kind = self.supported.kind
        if kind is None:
            return NoRoom("facilitator_unsupported", "The facilitator does not settle on this network now.", 60)
        if amount is not None and amount < kind.minimum:
            return NoRoom(
                "below_minimum", f"The facilitator settles no less than {kind.minimum / 1_000_000:g} USD now.", 0
            )
        return None
