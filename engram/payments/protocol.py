"""Messages of the payment verifier."""

from typing import TypeAlias

import msgspec

from actors import Message
from engram.payments.model import AuthorizationKey, Payload, Payment, Quote
from engram.payments.purchase_answer import PurchaseAnswer
from engram.sessions import TierName


class NewSession(msgspec.Struct, frozen=True, tag=True):
    """A session of this tier for so many seconds."""

    tier: TierName
    seconds: float


class Extension(msgspec.Struct, frozen=True, tag=True):
    """More seconds for a session of the same controller."""

    session_id: str
    seconds: float


class Credit(msgspec.Struct, frozen=True, tag=True):
    """So many units for the order's controller."""

    units: int


Wanted: TypeAlias = NewSession | Extension | Credit


class Order(msgspec.Struct, frozen=True):
    """A signed request for something that costs money."""

    quote: Quote
    wanted: Wanted
    controller: bytes
    """Public key of the hotkey that signed the request."""
    request_hash: bytes
    """rules.request_hash of the request."""
    message_hash: bytes | None
    """sha256 of the signed message, the replay key with `controller`; None where signatures are switched off."""
    client_address: str
    """Address whose open payments are counted; empty for one that is exempt."""
    identifier: str | None = None
    """What its payment bears instead of the buyer's payment-identifier: at most one that counts may bear it."""
    expires_at: float | None = None
    """Unix seconds from when no new payment for it is taken; None: as long as its price holds."""


class Purchase(Message[PurchaseAnswer], frozen=True):
    """Buy what is ordered, paid with `payload`. Answered within settings.payments.answer_within_s."""

    order: Order
    payload: Payload
    key: AuthorizationKey
    """rules.key_of the payload, on our own network and token."""


class Advanced(Message[None], frozen=True):
    """From a payment's own work: its record changed."""

    payment: Payment


class Ended(Message[None], frozen=True):
    """From a payment's own work: it is over for now."""

    payment_id: str


class WorkOn(Message[None], frozen=True):
    """From the verifier to itself: see that this payment is worked on."""

    payment_id: str


class Reread(Message[None], frozen=True):
    """Start work on open payments that have no child."""


VerifierMessage: TypeAlias = Purchase | Advanced | Ended | WorkOn | Reread
