"""What the facilitator supports, and whether anything can be sold through it now.

While it cannot be used a buyer gets a 503 with Retry-After and never a 402, so that no payment is signed that cannot
be settled.
"""

from typing import Final, final

import msgspec

from config.pricing import MOST_UNITS
from engram.payments.breaker import Breaker
from engram.payments.networks import Network
from engram.payments.purchase_answer import NoRoom
from engram.payments.x402 import SCHEME, canonical_network

RETRY_S: Final = 10


class Kind(msgspec.Struct, frozen=True):
    """How the facilitator supports our network."""

    minimum: int = 0
    """Atomic units below which it settles nothing; changes over time."""
    transfer_method: str | None = None
    """Its default method. Our offers ask for eip3009 whatever it is."""


class Supported(msgspec.Struct, frozen=True):
    """The part of a /supported answer that concerns us; `kind` is None when our network is not in it."""

    kind: Kind | None


def read_supported(body: object, network: Network) -> Supported | None:
    """Return what a /supported answer says of scheme `exact` on `network`, None when it is not such an answer."""
    kinds = body.get("kinds") if isinstance(body, dict) else None
    if not isinstance(kinds, list):
        return None
    for kind in kinds:
        if not isinstance(kind, dict) or kind.get("scheme") != SCHEME or kind.get("x402Version") != 2:
            continue
        if canonical_network(str(kind.get("network"))) != network.caip2:
            continue
        extra = kind.get("extra")
        named = extra if isinstance(extra, dict) else {}
        method = named.get("assetTransferMethod")
        return Supported(Kind(_units(named.get("minPaymentAmountAtomic")), method if isinstance(method, str) else None))
    return Supported(None)


def _units(value: object) -> int:
    """Return an amount in atomic units, capped just above the highest price; 0 when it is none."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return min(int(value), MOST_UNITS + 1) if len(value) <= 30 else MOST_UNITS + 1
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return 0
    return min(value, MOST_UNITS + 1)


@final
class FacilitatorStatus:
    """Whether the facilitator can be used now: its breaker, and what it last said it supports."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker: Final = breaker
        self.supported: Supported | None = None
        """None until /supported was read; what was read last is kept while it cannot be read."""

    def refusal(self, amount: int | None = None) -> NoRoom | None:
        """Return why nothing can be sold for `amount` now (atomic units; None: any amount), None when it can."""
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
