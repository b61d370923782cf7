"""Payments: the requirements we offer, the payload a buyer presents, the record the ledger keeps.

Amounts are atomic units (int).
"""

from enum import StrEnum
from typing import Protocol

import msgspec

from engram.api.refund_terms import PublishedTerms
from engram.payments.extensions import Discovery
from engram.payments.networks import Network


class PaymentState(StrEnum):
    """Where a payment is; the arrows between them are in rules.py."""

    RESERVED = "reserved"
    SETTLING = "settling"
    UNKNOWN = "unknown"
    SETTLED = "settled"
    REJECTED = "rejected"
    VOID = "void"
    REFUND_DUE = "refund_due"
    REFUNDING = "refunding"
    REFUNDED = "refunded"


class PaymentKind(StrEnum):
    """What a payment buys."""

    SESSION = "session"
    EXTENSION = "extension"
    CREDIT = "credit"
    """Units that are used later: engram/payments/prepaid.py."""


class RefundState(StrEnum):
    """Where one part of a refund is."""

    DUE = "due"
    REFUNDING = "refunding"
    REFUNDED = "refunded"


class Requirements(msgspec.Struct, frozen=True):
    """What we want to be paid, where and by when; always our own, never a client's echo of it."""

    network: Network
    amount: int
    """Atomic units of the network's token (6 decimals), which are micro-dollars."""
    pay_to: bytes
    max_timeout_s: int


class Quote(msgspec.Struct, frozen=True):
    """An offer: the requirements and what they buy."""

    requirements: Requirements
    resource: str
    """Absolute URL of what is sold, from the configured public URL."""
    description: str
    terms_url: str = ""
    """Where refund terms are published; not shown when empty."""
    refund_terms: PublishedTerms | None = None
    """When money comes back; not shown when None."""
    discovery: Discovery | None = None
    """How a request for it looks, for catalogues."""
    identifier_required: bool = False
    """Payments must bear a payment-identifier."""

    @property
    def amount_usd(self) -> float:
        """The price in dollars, for display."""
        return self.requirements.amount / 1_000_000


class Authorization(msgspec.Struct, frozen=True):
    """An EIP-3009 TransferWithAuthorization. Anyone who holds it signed can submit it: it is a bearer instrument."""

    payer: bytes
    pay_to: bytes
    value: int
    valid_after: int
    """Unix seconds of block time, exclusive."""
    valid_before: int
    """Unix seconds of block time, exclusive."""
    nonce: bytes


class AcceptedTerms(msgspec.Struct, frozen=True):
    """What an x402 v2 client says it agreed to; only ever compared with our own requirements."""

    amount: int
    asset: bytes
    pay_to: bytes
    max_timeout_s: int


class Payload(msgspec.Struct, frozen=True):
    """A payment as presented in a header, parsed and not yet believed."""

    version: int
    """x402 version of the header, 1 or 2."""
    scheme: str
    network: str
    """As written: CAIP-2 or a v1 name."""
    accepted: AcceptedTerms | None
    """None in version 1."""
    authorization: Authorization
    signature: bytes
    """r, s, v: 65 bytes with v 27 or 28."""
    identifier: str | None = None
    """The buyer's payment-identifier."""

    def __repr__(self) -> str:
        return f"Payload(version={self.version}, network={self.network!r}, payer=0x{self.authorization.payer.hex()})"


class AuthorizationKey(msgspec.Struct, frozen=True):
    """The canonical authorization, as bytes: what makes two presented payments the same payment."""

    network: str
    """CAIP-2 id."""
    asset: bytes
    payer: bytes
    nonce: bytes


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """One payment as the ledger holds it. Times are unix seconds."""

    id: str
    state: PaymentState
    kind: PaymentKind
    session_id: str
    """Of a credit, an id of nothing else."""
    controller: bytes
    """32-byte public key of the hotkey that signed the request; of a credit, the account."""
    request_hash: bytes
    network: str
    """CAIP-2 id. (network, asset, payer, nonce) are the canonical authorization: what makes it one payment."""
    asset: bytes
    payer: bytes
    nonce: bytes
    pay_to: bytes
    amount: int
    valid_after: int
    valid_before: int
    payload: bytes
    """x402 v2 PaymentPayload as JSON, re-sent unchanged."""
    requirements: bytes
    """Our requirements as JSON."""
    seconds: float
    """Paid time it buys; of a credit, how many units."""
    client_address: str
    """Address of the buyer's connection; empty when it counts towards no limit."""
    created_at: float
    updated_at: float
    reason: str | None = None
    """Why it was rejected, or the last answer that left it unknown."""
    transaction_hash: str | None = None
    attempts: int = 0
    """Settlements requested so far."""
    next_attempt_at: float | None = None
    """When its work is due; None when nothing is to be done, or the operator has to."""
    crashes: int = 0
    quarantined_at: float | None = None
    settled_at: float | None = None
    identifier: str | None = None
    """x402's payment-identifier, chosen by the buyer."""

    @property
    def key(self) -> AuthorizationKey:
        """Its canonical authorization."""
        return AuthorizationKey(self.network, self.asset, self.payer, self.nonce)

    def __repr__(self) -> str:
        return f"Payment(id={self.id!r}, state={self.state.value!r}, session_id={self.session_id!r})"


class DuePayment(msgspec.Struct, frozen=True):
    """A payment that is to be worked on now."""

    id: str
    state: PaymentState


class HoldLimits(msgspec.Struct, frozen=True):
    """How much may be held open at once."""

    places: int
    """Sessions that may hold a place."""
    live_per_hotkey: int
    holds_per_payer: int
    """Open payments of one payer, and of one hotkey."""
    holds_per_address: int
    """Open payments from one client address."""


class Refund(msgspec.Struct, frozen=True):
    """One part of what goes back to the payer; address, amount and nonce never change once written."""

    payment_id: str
    number: int
    state: RefundState
    address: bytes
    amount: int
    nonce: bytes
    reason: str
    transaction_hash: str | None
    created_at: float
    updated_at: float
    sender: bytes | None = None
    """Address of the key that sends it, for ever; None until it is signed."""
    payload: bytes | None = None
    """x402 v2 PaymentPayload as JSON, re-sent unchanged until it has expired."""
    requirements: bytes | None = None
    valid_before: int | None = None
    signed_at: float | None = None
    attempts: int = 0
    """Times that what is signed now was sent."""
    answer: str | None = None
    """Why it is not sent yet, or the last answer."""

    def __repr__(self) -> str:
        return f"Refund(payment_id={self.payment_id!r}, number={self.number}, state={self.state.value!r})"


class Transferable(Protocol):
    """What a facilitator is given: a buyer's payment, or a refund of ours."""

    @property
    def network(self) -> str: ...
    @property
    def payer(self) -> bytes: ...
    @property
    def nonce(self) -> bytes: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def requirements(self) -> bytes: ...


class RefundTransfer(msgspec.Struct, frozen=True):
    """A signed refund on its way to the facilitator: the payer is the refund key."""

    network: str
    """CAIP-2 id."""
    payer: bytes
    nonce: bytes
    payload: bytes
    """x402 v2 PaymentPayload, JSON."""
    requirements: bytes

    def __repr__(self) -> str:
        return f"RefundTransfer(network={self.network!r}, payer=0x{self.payer.hex()})"
