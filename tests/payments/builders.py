"""Payments, wallets and reservations as the tests of this area need them."""

import hashlib
from typing import Any

import msgspec
from coincurve import PrivateKey

from engram.payments import x402
from engram.payments.eip712 import address_of, sign
from engram.payments.model import (
    AcceptedTerms,
    Authorization,
    HoldLimits,
    Payload,
    Payment,
    PaymentKind,
    PaymentState,
    Quote,
    Requirements,
)
from engram.payments.networks import PLAY, Network
from engram.payments.reservations import Reservation
from engram.sessions import Instant, Session, SessionState, TierName

NOW = 1_700_000_000.0
RECIPIENT = bytes.fromhex("11" * 20)
KEY = PrivateKey(hashlib.sha256(b"payer").digest())
PAYER = address_of(KEY.public_key)
ALICE = hashlib.sha256(b"alice").digest()
BOB = hashlib.sha256(b"bob").digest()
ROOMY = HoldLimits(places=50, live_per_hotkey=3, holds_per_payer=3, holds_per_address=3)


def instant(after_s: float = 0.0) -> Instant:
    return Instant(NOW + after_s, 100.0 + after_s, "boot-1")


def nonce(text: str = "a nonce") -> bytes:
    return hashlib.sha256(text.encode()).digest()


def requirements(amount: int = 100_000, network: Network = PLAY) -> Requirements:
    return Requirements(network, amount, RECIPIENT, 120)


def quote(amount: int = 100_000, network: Network = PLAY) -> Quote:
    return Quote(requirements(amount, network), "http://127.0.0.1:9000/sessions", "a lite node for an hour")


def authorization(text: str = "a nonce", **changes: Any) -> Authorization:
    plain = Authorization(PAYER, RECIPIENT, 100_000, 0, int(NOW) + 120, nonce(text))
    return msgspec.structs.replace(plain, **changes)


def payload(signed: Authorization | None = None, wanted: Requirements | None = None, **changes: Any) -> Payload:
    signed, wanted = signed or authorization(), wanted or requirements()
    plain = Payload(
        version=2,
        scheme="exact",
        network=wanted.network.caip2,
        accepted=AcceptedTerms(wanted.amount, wanted.network.asset, wanted.pay_to, wanted.max_timeout_s),
        authorization=signed,
        signature=sign(signed, wanted.network, KEY),
    )
    return msgspec.structs.replace(plain, **changes)


def payment(text: str = "a nonce", **changes: Any) -> Payment:
    """A reserved payment of one hour for a new session."""
    wanted = requirements()
    signed = authorization(text)
    plain = Payment(
        id=f"payment of {text}",
        state=PaymentState.RESERVED,
        kind=PaymentKind.SESSION,
        session_id=f"session of {text}",
        controller=ALICE,
        request_hash=nonce("the request"),
        network=PLAY.caip2,
        asset=PLAY.asset,
        payer=signed.payer,
        nonce=signed.nonce,
        pay_to=signed.pay_to,
        amount=signed.value,
        valid_after=signed.valid_after,
        valid_before=signed.valid_before,
        payload=msgspec.json.encode(x402.payload_json(signed, sign(signed, PLAY, KEY), wanted)),
        requirements=msgspec.json.encode(x402.requirements_json(wanted)),
        seconds=3600.0,
        client_address="",
        created_at=NOW,
        updated_at=NOW,
        next_attempt_at=NOW,
    )
    return msgspec.structs.replace(plain, **changes)


def session_of(paid: Payment, **changes: Any) -> Session:
    plain = Session(
        id=paid.session_id,
        controller=paid.controller,
        state=SessionState.PAYMENT_PENDING,
        tier=TierName.LITE,
        paid_s=paid.seconds,
        amount_usd_micros=paid.amount,
        network="engram-play",
        payment_id=paid.id,
        created_at=paid.created_at,
    )
    return msgspec.structs.replace(plain, **changes)


def reservation(
    text: str = "a nonce", *, limits: HoldLimits = ROOMY, message: str | None = None, **changes: Any
) -> Reservation:
    """All of a purchase of a session; `message` names the signed message, by default one of its own."""
    asked = payment(text, **changes)
    return Reservation(asked, session_of(asked), nonce(f"message {message or text}"), limits, instant())
