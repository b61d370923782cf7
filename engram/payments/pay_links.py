"""Pay links: an order that the buyer makes, and that whoever has the link pays once from a wallet of their own.

The link carries the whole order, signed by the gateway, so that nothing is kept of links that nobody pays:

    base64url(JSON of the order) "." base64url(the gateway's sr25519 signature of "engram-pay-link-1:" and that JSON)

| state   | which is                                              | a payment now                                    |
|---------|-------------------------------------------------------|--------------------------------------------------|
| open    | nothing was paid, or what was tried moved no money    | is taken                                         |
| pending | a payment is being settled, or its outcome is unknown | is refused: that one may still arrive            |
| paid    | it was paid, and perhaps refunded since               | is refused                                       |
| expired | its time is over and no payment of it counts          | is refused; one that is known gets its answer    |

A payment of a link bears the identifier `order:ID`, which no buyer can choose and which at most one payment that
counts can bear: RESERVED's transaction refuses the second, before its authorization is shown to anybody. What was
bought belongs to the key that made the order; refunds go to the address that paid, as always.
"""

import base64
import binascii
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from engram import wire
from engram.hotkeys import Keypair, PublicKey, verify
from engram.payments import rules
from engram.payments.errors import MalformedPayment
from engram.payments.model import Payment, PaymentState

LINK_PATH: Final = "/orders/pay"
"""Where links are paid."""
LIFETIME_S: Final = 900
"""How long a link can be paid."""
EXPIRED: Final = "order_expired"
"""Code of the refusal of a payment that comes too late."""
_SIGNED_AS: Final = b"engram-pay-link-1:"
_LONGEST: Final = 2_048
_IDENTIFIER: Final = "order:"
"""Holds a character that a buyer's payment-identifier cannot have."""


class LinkState(StrEnum):
    """Where a pay link is; the table above."""

    OPEN = "open"
    PENDING = "pending"
    PAID = "paid"
    EXPIRED = "expired"


class PayLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a link sells, for how much, and to whom it is to be paid. Times are unix seconds."""

    id: str
    controller: str
    """Public key (hex) that what is bought will belong to."""
    tier: str
    hours: float
    seconds: float
    session_id: str | None
    """The session that gets more time; None for a new one."""
    network: str
    """CAIP-2 id."""
    amount: int
    """Atomic units of the network's token."""
    pay_to: str
    """Address (hex, 20 bytes) of the recipient."""
    expires_at: int

    @property
    def identifier(self) -> str:
        """What its payments bear."""
        return _IDENTIFIER + self.id


def is_link(identifier: str | None) -> bool:
    """Return whether a payment's identifier is that of a pay link."""
    return identifier is not None and identifier.startswith(_IDENTIFIER)


def seal(link: PayLink, gateway: Keypair) -> str:
    """Return the link's text, signed by the gateway's key."""
    content = msgspec.json.encode(link)
    return f"{_text(content)}.{_text(gateway.sign(_SIGNED_AS + content))}"


def read(text: str, gateway: PublicKey) -> PayLink:
    """Return the order in a link's text. Raises MalformedPayment for what this gateway did not make."""
    content, dot, signature = text.partition(".")
    try:
        if len(text) > _LONGEST or not dot:
            raise ValueError("not two parts")
        signed, by = _bytes(content), _bytes(signature)
        if len(by) != 64 or not verify(gateway, _SIGNED_AS + signed, by, allow_wrapped=False):
            raise MalformedPayment("this link was not made by this gateway: ask for another")
        return wire.decode(signed, PayLink)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise MalformedPayment("this is no pay link, or a part of it is missing: copy the whole of it") from None


def state(link: PayLink, payment: Payment | None, now: float) -> LinkState:
    """Return where a link is; `payment` is the one that counts for it, None for none."""
    if payment is not None:
        return LinkState.PAID if rules.was_paid(payment) else LinkState.PENDING
    return LinkState.EXPIRED if now >= link.expires_at else LinkState.OPEN


def counting(payments: Sequence[Payment]) -> Payment | None:
    """Return the one of a link's payments that counts; None for none.

    There are two where money that had been given up arrived after all, and goes back: the other one counts.
    """
    return max(payments, key=lambda each: (each.state is PaymentState.SETTLED, each.created_at), default=None)


def overdue(expires_at: float | None, now: float) -> rules.Refusal | None:
    """Return the refusal of a new payment for an order that was good until `expires_at`; None for none."""
    if expires_at is None or now < expires_at:
        return None
    return rules.Refusal(EXPIRED, "the link's time is over: nothing was taken; ask for another link")


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode("ascii").rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
