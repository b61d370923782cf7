"""The endpoints of the play-money facilitator, one row each: x402's /verify, /settle and /supported; balance, health.

Source: x402 v2 specification, section 7.
"""

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from engram.api.gateway_model import HealthAnswer
from engram.api.route import NoBody, Response, Route


class PaymentBody(msgspec.Struct, frozen=True, rename="camel"):
    """The body of /verify and /settle."""

    x402_version: int
    payment_payload: dict[str, object]
    payment_requirements: dict[str, object]


class VerifyAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Whether a payment could be settled now; `payer` once the payment could be read."""

    is_valid: bool
    invalid_reason: str | UnsetType = UNSET
    payer: str | UnsetType = UNSET


class SettleAnswer(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Whether a payment was settled, now or before, and in which transaction."""

    success: bool
    error_reason: str | UnsetType = UNSET
    transaction: str = ""
    network: str
    payer: str | UnsetType = UNSET
    amount: str | UnsetType = UNSET
    """Atomic units."""


class SupportedKind(msgspec.Struct, frozen=True, rename="camel"):
    """One scheme on one network."""

    x402_version: int
    scheme: str
    network: str
    extra: dict[str, str]


class SupportedAnswer(msgspec.Struct, frozen=True):
    """What can be settled here."""

    kinds: list[SupportedKind]
    extensions: list[str]
    signers: dict[str, list[str]]


class BalanceAnswer(msgspec.Struct, frozen=True):
    """What an address owns, in atomic units and in dollars."""

    address: str
    balance: str
    usd: float


VERIFY: Final = Route(
    "verify", "POST", "/verify", "Check a payment", PaymentBody, Response(200, "The verdict.", VerifyAnswer)
)
SETTLE: Final = Route(
    "settle", "POST", "/settle", "Settle a payment", PaymentBody, Response(200, "The settlement.", SettleAnswer)
)
SUPPORTED: Final = Route(
    "supported", "GET", "/supported", "What can be settled", NoBody, Response(200, "The kinds.", SupportedAnswer)
)
BALANCE: Final = Route(
    "balance", "GET", "/balance/{address}", "What an address owns", NoBody, Response(200, "It.", BalanceAnswer)
)
HEALTH: Final = Route("health", "GET", "/health", "Whether it is up", NoBody, Response(200, "It is.", HealthAnswer))

ROUTES: Final = (VERIFY, SETTLE, SUPPORTED, BALANCE, HEALTH)
