"""The payment's state machine and what is believed of a payment: tables first, no clock, no I/O.

| state      | event            | next       | with                                                          |
|------------|------------------|------------|---------------------------------------------------------------|
| reserved   | verified         | settling   | rejected and released instead when the session has been ended |
| reserved   | refused          | rejected   | release                                                       |
| settling   | settled          | settled    | deliver; refund_due instead when the session has been ended   |
| settling   | refused          | rejected   | release                                                       |
| settling   | unclear          | unknown    |                                                               |
| unknown    | settled          | settled    | as for settling; nothing is delivered twice; refund_due       |
|            |                  |            | instead when its end has left a refund                        |
| unknown    | unclear          | unknown    |                                                               |
| unknown    | voided           | void       | release; withdraw when it had been delivered, forgive when    |
|            |                  |            | its end has left a refund                                     |
| rejected   | retried          | reserved   |                                                               |
| rejected   | arrived          | refund_due | refund                                                        |
| void       | arrived          | refund_due | refund                                                        |
| settled    | reorganised      | unknown    |                                                               |
| settled    | owed             | refund_due | refund                                                        |
| refund_due | refund_sent      | refunding  |                                                               |
| refunding  | part_refunded    | refund_due | another part of it is owed                                    |
| refunding  | refund_confirmed | refunded   |                                                               |

Everything else leaves the payment as it is. `unknown` is left only by proof: a success with a transaction, or that
the authorization expired unused. Settling is committed before it is requested, so a payment found in
`settling` without a child was interrupted and is `unclear`.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

import msgspec

from engram.payments.eip712 import recover
from engram.payments.keccak import checksummed
from engram.payments.model import AuthorizationKey, Payload, Payment, PaymentState, Requirements
from engram.payments.outcomes import (
    Invalid,
    NotSent,
    Pending,
    Rejected,
    Settled,
    Settlement,
    Unavailable,
    Unknown,
    Valid,
    Verification,
)
from engram.payments.purchase_answer import Bought, CannotNow, NoRoom, PurchaseAnswer, Refused, StillPending
from engram.payments.x402 import SCHEME, canonical_network


class PaymentEvent(StrEnum):
    """What may happen to a payment."""

    VERIFIED = "verified"
    REFUSED = "refused"
    SETTLED = "settled"
    UNCLEAR = "unclear"
    VOIDED = "voided"
    """Proof that the authorization was cancelled or expired unused."""
    RETRIED = "retried"
    """The same request came again and nothing had ever been broadcast."""
    ARRIVED = "arrived"
    """The money came although it had been given up."""
    REORGANISED = "reorganised"
    OWED = "owed"
    """What was paid for cannot be had."""
    REFUND_SENT = "refund_sent"
    PART_REFUNDED = "part_refunded"
    REFUND_CONFIRMED = "refund_confirmed"


class Delivery(StrEnum):
    """How what was bought stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    OWED = "owed"
    """It was delivered and has ended; some of it is to be paid back."""
    IMPOSSIBLE = "impossible"
    """The session has been stopped or is over."""


class PaymentEffect(StrEnum):
    """What is written in the same transaction as the new state."""

    DELIVER = "deliver"
    """The session goes on to provisioning, or the seconds are added."""
    RELEASE = "release"
    """What was held for the buyer is given up."""
    REFUND = "refund"
    """A refund of all that is left of the payment is frozen."""
    WITHDRAW = "withdraw"
    """The session is ended: its payment is proven never to have been made."""
    FORGIVE = "forgive"
    """What was to be paid back of it is dropped, for the same reason."""


class Transition(msgspec.Struct, frozen=True):
    """The next state and what goes with it."""

    state: PaymentState
    effects: tuple[PaymentEffect, ...] = ()


OPEN: Final = frozenset({PaymentState.RESERVED, PaymentState.SETTLING, PaymentState.UNKNOWN})
"""States with work to do; they hold a place."""
AT_ONCE: Final = frozenset({PaymentState.RESERVED, PaymentState.SETTLING})
"""States in which a buyer waits; work on the others takes turns."""
OWED: Final = frozenset({PaymentState.REFUND_DUE, PaymentState.REFUNDING})
"""States in which money is to be sent back."""
WORKED: Final = OPEN | OWED
"""States that have a child to work on them when it is due."""
GIVEN_UP: Final = frozenset({PaymentState.REJECTED, PaymentState.VOID})
"""Nothing is expected of them any more; they are only watched for money that comes all the same."""
PAID: Final = frozenset({PaymentState.SETTLED, PaymentState.REFUND_DUE, PaymentState.REFUNDING, PaymentState.REFUNDED})
"""The money is, or was, with us."""

_S, _E = PaymentState, PaymentEvent
TRANSITIONS: Final[Mapping[tuple[PaymentState, PaymentEvent], Transition]] = MappingProxyType(
    {
        (_S.RESERVED, _E.VERIFIED): Transition(_S.SETTLING),
        (_S.RESERVED, _E.REFUSED): Transition(_S.REJECTED, (PaymentEffect.RELEASE,)),
        (_S.SETTLING, _E.SETTLED): Transition(_S.SETTLED, (PaymentEffect.DELIVER,)),
        (_S.SETTLING, _E.REFUSED): Transition(_S.REJECTED, (PaymentEffect.RELEASE,)),
        (_S.SETTLING, _E.UNCLEAR): Transition(_S.UNKNOWN),
        (_S.UNKNOWN, _E.SETTLED): Transition(_S.SETTLED, (PaymentEffect.DELIVER,)),
        (_S.UNKNOWN, _E.UNCLEAR): Transition(_S.UNKNOWN),
        (_S.UNKNOWN, _E.VOIDED): Transition(_S.VOID, (PaymentEffect.RELEASE,)),
        (_S.REJECTED, _E.RETRIED): Transition(_S.RESERVED),
        (_S.REJECTED, _E.ARRIVED): Transition(_S.REFUND_DUE, (PaymentEffect.REFUND,)),
        (_S.VOID, _E.ARRIVED): Transition(_S.REFUND_DUE, (PaymentEffect.REFUND,)),
        (_S.SETTLED, _E.REORGANISED): Transition(_S.UNKNOWN),
        (_S.SETTLED, _E.OWED): Transition(_S.REFUND_DUE, (PaymentEffect.REFUND,)),
        (_S.REFUND_DUE, _E.REFUND_SENT): Transition(_S.REFUNDING),
        (_S.REFUNDING, _E.PART_REFUNDED): Transition(_S.REFUND_DUE),
        (_S.REFUNDING, _E.REFUND_CONFIRMED): Transition(_S.REFUNDED),
    }
)


def decide(state: PaymentState, event: PaymentEvent, delivery: Delivery) -> Transition | None:
    """Return what `event` does to a payment in `state`, or None when it does not apply."""
    decision = TRANSITIONS.get((state, event))
    if decision is None:
        return None
    match event, delivery:
        case PaymentEvent.VERIFIED, Delivery.IMPOSSIBLE:
            return Transition(PaymentState.REJECTED, (PaymentEffect.RELEASE,))  # no longer wanted: take no money
        case PaymentEvent.SETTLED, Delivery.IMPOSSIBLE:
            return Transition(PaymentState.REFUND_DUE, (PaymentEffect.RELEASE, PaymentEffect.REFUND))
        case PaymentEvent.SETTLED, Delivery.DELIVERED:
            return Transition(PaymentState.SETTLED)  # its block was reorganised away and it came back
        case PaymentEvent.SETTLED, Delivery.OWED:
            return Transition(PaymentState.REFUND_DUE)  # the same, and its session ended before it did
        case PaymentEvent.VOIDED, Delivery.DELIVERED:
            return Transition(PaymentState.VOID, (PaymentEffect.WITHDRAW,))
        case PaymentEvent.VOIDED, Delivery.OWED:
            return Transition(PaymentState.VOID, (PaymentEffect.FORGIVE,))
        case _:
            return decision


# Checks of a payment before the facilitator is called.

AHEAD_S: Final = 120
"""An authorization may be valid for this much longer than we required: clocks differ."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a payment is not taken: x402's word for it, and a sentence for the buyer."""

    reason: str
    message: str


def refusal(payload: Payload, requirements: Requirements, now: float, min_validity_left_s: float) -> Refusal | None:
    """Return why `payload` does not meet our own `requirements` at `now` (unix seconds), or None when it does.

    Compares everything the client says with what we recomputed, then recovers the signer (about 0.1 ms).
    """
    network, signed = requirements.network, payload.authorization
    if payload.scheme != SCHEME:
        return Refusal("unsupported_scheme", f"the scheme is {payload.scheme[:40]!r}; only 'exact' is taken")
    if canonical_network(payload.network) != network.caip2:
        return Refusal(
            "network_mismatch",
            f"the payment is on {payload.network[:40]!r}; it is taken on {network.caip2} ({network.v1_name})",
        )
    if payload.accepted is not None and (
        payload.accepted.asset != network.asset
        or payload.accepted.amount != requirements.amount
        or payload.accepted.pay_to != requirements.pay_to
        or payload.accepted.max_timeout_s != requirements.max_timeout_s
    ):
        return Refusal("invalid_payment_requirements", "what was accepted is not what is offered: ask for a new quote")
    if signed.pay_to != requirements.pay_to:
        return Refusal(
            "invalid_exact_evm_payload_recipient_mismatch",
            f"the authorization pays {checksummed(signed.pay_to)}; it must pay {checksummed(requirements.pay_to)}",
        )
    if signed.value != requirements.amount:
        return Refusal(
            "invalid_exact_evm_payload_authorization_value_mismatch",
            f"the authorization is for {signed.value}, the price is {requirements.amount} atomic units",
        )
    if signed.payer == signed.pay_to:
        return Refusal("invalid_payload", "the recipient cannot be its own buyer")
    if signed.valid_after >= now:
        return Refusal(
            "invalid_exact_evm_payload_authorization_valid_after",
            f"the authorization is valid after {signed.valid_after} (unix seconds), which is not in the past",
        )
    if signed.valid_before < now + min_validity_left_s:
        return Refusal(
            "invalid_exact_evm_payload_authorization_valid_before",
            f"the authorization must be good for {min_validity_left_s:g} more seconds",
        )
    if signed.valid_before > now + requirements.max_timeout_s + AHEAD_S:
        return Refusal(
            "invalid_exact_evm_payload_authorization_valid_before",
            f"the authorization must expire within {requirements.max_timeout_s} s",
        )
    if recover(signed, network, payload.signature) != signed.payer:
        return Refusal(
            "invalid_exact_evm_payload_signature",
            f"the signature is not that of the payer, {checksummed(signed.payer)}",
        )
    return None


# What a facilitator's answer means.

BEFORE_BROADCAST: Final = frozenset(
    {
        "insufficient_funds",
        "invalid_exact_evm_insufficient_balance",
        "invalid_exact_evm_payload_signature",
        "invalid_exact_evm_payload_recipient_mismatch",
        "invalid_exact_evm_payload_authorization_value_mismatch",
        "invalid_exact_evm_payload_authorization_valid_before",
        "invalid_exact_evm_payload_authorization_valid_after",
        "invalid_exact_evm_payload_undeployed_smart_wallet",
        "invalid_exact_evm_token_name_mismatch",
        "invalid_exact_evm_token_version_mismatch",
        "invalid_exact_evm_eip3009_not_supported",
        "missing_eip712_domain",
        "network_mismatch",
        "invalid_network",
        "unsupported_scheme",
        "invalid_scheme",
        "invalid_x402_version",
        "invalid_payload",
        "invalid_payment_requirements",
        "asset_not_deployed_contract",
    }
)
"""Reasons of a failed settlement that are found before anything is broadcast. Not among them, because the money may
have moved: nonce_already_used and transaction_simulation_failed (somebody else may have submitted it),
transaction_failed, and every word we do not know."""
EXPIRED: Final = "invalid_exact_evm_payload_authorization_valid_before"
NONCE_USED: Final = "invalid_exact_evm_nonce_already_used"
SIMULATION_FAILED: Final = "invalid_exact_evm_transaction_simulation_failed"
"""What a used authorization is called, too, by a facilitator that could not ask the token why."""
MAY_BE_USED: Final = frozenset({NONCE_USED, SIMULATION_FAILED})
"""Refusals of a verification that may mean that somebody has submitted the authorization already."""
MAY_HAVE_MOVED: Final = "authorization_may_be_used"
"""What such a refusal is kept as where nothing proves it."""
PENDING: Final = "settlement_pending"

_TRANSACTION = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)
_REASON = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)
_OUTCOME_STATUSES = range(200, 500)


def read_settlement(status: int, body: object, network: str, payer: bytes) -> Settlement:
    """Return what an answered POST /settle means. `network` is the CAIP-2 id of the payment, `payer` who pays.

    Facilitators answer outcomes as 200, some as 4xx with the same JSON. Anything that is not clearly a success of
    this payer's on our network or a refusal before broadcasting is Unknown. Naming the payer is optional in x402.
    """
    if status not in _OUTCOME_STATUSES or not isinstance(body, dict) or not isinstance(body.get("success"), bool):
        return Unknown(f"http_{status}")
    named = body.get("transaction")
    transaction = named.lower() if isinstance(named, str) and _TRANSACTION.fullmatch(named) else None
    if body["success"]:
        ours = canonical_network(str(body.get("network"))) == network and not _names_another(body, payer)
        if status != 200 or transaction is None or not ours:
            return Unknown("success_without_proof", transaction)
        return Settled(transaction)
    reason = _reason(body.get("errorReason"))
    if reason == PENDING:
        return Pending(transaction)
    if reason in BEFORE_BROADCAST and named in ("", None):
        return Rejected(reason)
    return Unknown(reason, transaction)


def read_verification(status: int, body: object, payer: bytes) -> Verification:
    """Return what an answered POST /verify means; a verdict about another payer is none."""
    if status not in _OUTCOME_STATUSES or not isinstance(body, dict) or not isinstance(body.get("isValid"), bool):
        return Unavailable(f"http_{status}")
    if not body["isValid"]:
        return Invalid(_reason(body.get("invalidReason")))
    if status != 200 or _names_another(body, payer):
        return Unavailable("verdict_without_proof")
    return Valid()


def kept_refusal(reason: str, *, proven: bool) -> str:
    """Return what a refused verification is kept as; `proven`: the refusing side knows that no money has moved.

    >>> kept_refusal("insufficient_funds", proven=False), kept_refusal(NONCE_USED, proven=False)
    ('insufficient_funds', 'authorization_may_be_used')
    """
    return MAY_HAVE_MOVED if reason in MAY_BE_USED and not proven else reason


def _names_another(body: Mapping[object, object], payer: bytes) -> bool:
    named = body.get("payer")
    return named is not None and (not isinstance(named, str) or named.lower() != "0x" + payer.hex())


def settlement_event(
    state: PaymentState, settlement: Settlement, *, play: bool, valid_before: int, now: float
) -> PaymentEvent:
    """Return the event that an answer to a settlement is, for a payment in `settling` (sent once) or `unknown`.

    For a payment in `unknown` a refusal proves nothing about the request before it; only play money's books, which
    know every authorization they ever took, prove by "expired" that it was never used.
    """
    match settlement:
        case Settled():
            return PaymentEvent.SETTLED
        case NotSent() | Rejected() if state is PaymentState.SETTLING:
            return PaymentEvent.REFUSED
        case Rejected(reason) if play and reason == EXPIRED and now > valid_before:
            return PaymentEvent.VOIDED
        case NotSent() | Rejected() | Pending() | Unknown():
            return PaymentEvent.UNCLEAR
        case _:
            assert_never(settlement)


def _reason(value: object) -> str:
    return value if isinstance(value, str) and _REASON.fullmatch(value) else "unnamed_reason"


# Answers to buyers.

NOT_REACHED: Final = "facilitator_unavailable"
INTERRUPTED: Final = "interrupted"
STOPPED: Final = "session_stopped"
PENDING_RETRY_S: Final = 3
"""When a buyer whose payment is not decided yet should ask again."""
UNAVAILABLE_RETRY_S: Final = 5


def answer(payment: Payment) -> PurchaseAnswer:
    """Return the answer to the buyer of `payment` as it stands; an open outcome is never a failure."""
    match payment.state:
        case PaymentState.RESERVED | PaymentState.SETTLING | PaymentState.UNKNOWN:
            return StillPending(payment, PENDING_RETRY_S)
        case PaymentState.SETTLED | PaymentState.REFUND_DUE | PaymentState.REFUNDING | PaymentState.REFUNDED:
            return Bought(payment)
        case PaymentState.VOID:
            return Refused("void", "the authorization expired unused: sign a new one")
        case PaymentState.REJECTED if payment.reason in (NOT_REACHED, INTERRUPTED):
            return CannotNow(
                NOT_REACHED,
                "the payment could not be settled now and was not taken: send it again",
                UNAVAILABLE_RETRY_S,
            )
        case PaymentState.REJECTED if payment.reason == MAY_HAVE_MOVED:
            return CannotNow(
                MAY_HAVE_MOVED,
                "the facilitator says that this authorization may be used already, and nothing shows whether it paid: "
                "send it again rather than a new one",
                UNAVAILABLE_RETRY_S,
            )
        case PaymentState.REJECTED if payment.reason == STOPPED:
            return NoRoom("session_over", "the session was stopped before it was paid; no money was taken", 0)
        case PaymentState.REJECTED:
            reason = payment.reason or "unnamed_reason"
            return Refused(reason, f"the payment was refused: {reason}")
        case _:
            assert_never(payment.state)


def key_of(payload: Payload, requirements: Requirements) -> AuthorizationKey:
    """Return the canonical authorization of a presented payment, on our own network and token whatever it says."""
    network, signed = requirements.network, payload.authorization
    return AuthorizationKey(network.caip2, network.asset, signed.payer, signed.nonce)


def was_paid(payment: Payment) -> bool:
    """Return whether the money reached us, also when its block was reorganized away since."""
    return payment.state in PAID or (payment.state is PaymentState.UNKNOWN and payment.settled_at is not None)


def is_decided(payment: Payment) -> bool:
    """Return whether the answer to the buyer is final for now, so that waiting longer is no use."""
    return payment.state not in OPEN or payment.quarantined_at is not None


def is_stale(payment: Payment, now: float, reserve_ttl_s: float) -> bool:
    """Return whether a reservation never began to settle and is to be given up."""
    return payment.state is PaymentState.RESERVED and now - payment.updated_at >= reserve_ttl_s


# When to look again, and what is given back.

RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
WATCH_MIN_S: Final = 15.0
WATCH_MAX_S: Final = 2 * RETRY_MAX_S
"""What is due later than this is taken for due by a clock that was set back."""
QUARANTINE_AFTER: Final = 5
"""Crashes of a payment's work."""


def retry_delay_s(attempts: int) -> float:
    """Return the seconds until an unknown settlement is tried again.

    >>> [retry_delay_s(attempts) for attempts in (1, 2, 3, 10)]
    [1.0, 2.0, 4.0, 60.0]
    """
    return min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(max(attempts, 1) - 1, 10))


def watch_delay_s(waited_s: float) -> float:
    """Return the seconds until the chain is looked at again for what may still change, after `waited_s` of that.

    >>> [watch_delay_s(waited_s) for waited_s in (0.0, 600.0, 86_400.0)]
    [15.0, 60.0, 120.0]
    """
    return max(WATCH_MIN_S, min(WATCH_MAX_S, waited_s / 10))


def refund_nonce(network: str, asset: bytes, payer: bytes, nonce: bytes, number: int) -> bytes:
    """Return the nonce that part `number` of a payment's refund has for ever, so that it cannot be paid twice."""
    parts = (b"engram refund", network.encode(), asset, payer, nonce, str(number).encode())
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def refundable(paid: int, refunded: int, wanted: int | None) -> int:
    """Return the atomic units that a refund of `wanted` (None: all) may be, when `refunded` are committed already."""
    left = max(0, paid - refunded)
    return left if wanted is None else max(0, min(wanted, left))


def request_hash(method: str, raw_path: bytes, controller: bytes, body: bytes) -> bytes:
    """Return what makes two requests the same: method, raw path, controller key and body, each with its length."""
    parts = (method.encode(), raw_path, controller, body)
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
