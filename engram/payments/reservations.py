"""RESERVED: the one transaction with which a payment begins, or the reason why it does not."""

from collections.abc import Callable
from typing import TypeAlias, assert_never

import msgspec
from sqlalchemy import Connection

from config.model import Settings
from engram import sessions
from engram.clock import Ids
from engram.ledger import Ledger, owners
from engram.ledger.sql import OWNER
from engram.payments import pay_links, records, rules, statements, x402
from engram.payments.model import HoldLimits, Payment, PaymentKind, PaymentState
from engram.payments.protocol import Credit, Extension, NewSession, Order, Purchase, Wanted
from engram.payments.purchase_answer import CannotNow, Conflict, NoRoom, PurchaseAnswer, Replayed
from engram.payments.records import RETRY_AFTER_S
from engram.sessions import EndReason, Instant, Session, SessionState


class Reservation(msgspec.Struct, frozen=True):
    """All that RESERVED writes at once."""

    payment: Payment
    """State RESERVED, with a fresh id."""
    session: Session | None
    """The new session in `payment_pending`; None for an extension of payment.session_id."""
    message_hash: bytes | None
    limits: HoldLimits
    now: Instant
    places_in: Callable[[Connection], int] | None = None
    """How many sessions may hold a place as the ledger is in the transaction; None: as `limits` says."""


class Reserved(msgspec.Struct, frozen=True):
    """The payment is ours to work on."""

    payment: Payment


class Known(msgspec.Struct, frozen=True):
    """The same request came before; this is its payment."""

    payment: Payment


ReservationAnswer: TypeAlias = Reserved | Known | Conflict | Replayed | NoRoom


def reservation_of(purchase: Purchase, ids: Ids, now: Instant, limits: HoldLimits) -> Reservation:
    """Return what RESERVED writes for a purchase, with fresh ids."""
    order, signed = purchase.order, purchase.payload.authorization
    requirements, wanted = order.quote.requirements, order.wanted
    payload = x402.payload_json(signed, purchase.payload.signature, requirements)
    if not requirements.network.play:  # play money's facilitator has no catalogue
        payload = x402.listed(payload, order.quote)
    payment = Payment(
        id=ids.uuid4(),
        state=PaymentState.RESERVED,
        kind=_kind(wanted),
        session_id=wanted.session_id if isinstance(wanted, Extension) else ids.uuid4(),
        controller=order.controller,
        request_hash=order.request_hash,
        network=requirements.network.caip2,
        asset=requirements.network.asset,
        payer=signed.payer,
        nonce=signed.nonce,
        pay_to=signed.pay_to,
        amount=requirements.amount,
        valid_after=signed.valid_after,
        valid_before=signed.valid_before,
        payload=msgspec.json.encode(payload),
        requirements=msgspec.json.encode(x402.requirements_json(requirements)),
        seconds=float(wanted.units) if isinstance(wanted, Credit) else wanted.seconds,
        client_address=order.client_address,
        created_at=now.wall,
        updated_at=now.wall,
        next_attempt_at=now.wall,
        identifier=order.identifier or purchase.payload.identifier,
    )
    session = _session(payment, wanted, requirements.network.v1_name)
    return Reservation(payment, session, order.message_hash, limits, now)


def reserve(connection: Connection, reservation: Reservation) -> ReservationAnswer:
    """Write RESERVED, the session, the replay key and the holds, or return why not (nothing is written)."""
    wanted = reservation.payment
    known = records.find_authorization(connection, wanted.key)
    if known is not None:
        found = known_answer(known, wanted.controller, wanted.request_hash)
        if isinstance(found, Conflict) or not _may_retry(connection, known):
            return found
    answered = _answered(connection, wanted.controller, reservation.message_hash, wanted.request_hash)
    if (answer := answered or _identified(connection, wanted)) is not None:
        return answer
    refused = _room(connection, reservation)
    if refused is not None:
        return refused
    payment = _retried(connection, known, wanted) if known else _inserted(connection, wanted)
    if reservation.session is not None:
        session = msgspec.structs.replace(reservation.session, id=payment.session_id, payment_id=payment.id)
        sessions.records.insert_session(connection, session)
    _remember_request(connection, reservation, payment)
    return Reserved(payment)


def limits_of(settings: Settings, places: int) -> HoldLimits:
    """Return the limits that hold now; `places` is how many sessions may hold a node."""
    return HoldLimits(
        places=min(places, settings.sessions.live_in_all),
        live_per_hotkey=settings.sessions.live_per_hotkey,
        holds_per_payer=settings.payments.holds_per_payer,
        holds_per_address=settings.payments.holds_per_address,
    )


def known_answer(known: Payment, controller: bytes, request_hash: bytes) -> Known | Conflict:
    """Return the answer to a request that presents a known authorization."""
    if (known.controller, known.request_hash) == (controller, request_hash):
        return Known(known)
    return Conflict("this payment was presented with another request: sign a new one")


def answered_request(connection: Connection, order: Order) -> Known | Replayed | None:
    """Return the payment that the same signed request was answered with; None when that used nothing up."""
    return _answered(connection, order.controller, order.message_hash, order.request_hash)


def is_answered(ledger: Ledger, order: Order) -> bool:
    """Return whether the same signed request is recorded, read on the event loop. Raises LaneClosed."""
    return order.message_hash is not None and bool(
        ledger.rows(statements.LOOK_ANSWERED, order.controller, order.message_hash)
    )


def lost_answer(known: Payment | None, order: Order) -> PurchaseAnswer:
    """Return the answer to an order whose purchase may go on: what the verifier said of it did not arrive."""
    answer = None if known is None else known_answer(known, order.controller, order.request_hash)
    match answer:
        case Known(payment) if payment.state is not PaymentState.REJECTED:
            return rules.answer(payment)
        case Conflict():
            return answer
        case _:  # not recorded yet, or about to be tried again
            text = "It is not known yet what became of this payment; send it again."
            return CannotNow("outcome_unknown", text, rules.PENDING_RETRY_S)


def _may_retry(connection: Connection, known: Payment) -> bool:
    """Return whether the same request may try again: nothing was broadcast and its session was not stopped."""
    if known.state is not PaymentState.REJECTED or known.transaction_hash or known.quarantined_at:
        return False
    if known.kind is not PaymentKind.SESSION:
        return True
    session = sessions.records.get(connection, known.session_id)
    return session is not None and session.end_reason is EndReason.PAYMENT


def _kind(wanted: Wanted) -> PaymentKind:
    match wanted:
        case NewSession():
            return PaymentKind.SESSION
        case Extension():
            return PaymentKind.EXTENSION
        case Credit():
            return PaymentKind.CREDIT
        case _:
            assert_never(wanted)


def _session(payment: Payment, wanted: Wanted, network: str) -> Session | None:
    if not isinstance(wanted, NewSession):
        return None
    return Session(
        id=payment.session_id,
        controller=payment.controller,
        state=SessionState.PAYMENT_PENDING,
        tier=wanted.tier,
        paid_s=wanted.seconds,
        amount_usd_micros=payment.amount,
        network=network,
        payment_id=payment.id,
        created_at=payment.created_at,
    )


def _answered(
    connection: Connection, controller: bytes, message_hash: bytes | None, request_hash: bytes
) -> Known | Replayed | None:
    if message_hash is None:
        return None
    key = {"public_key": controller, "message_hash": message_hash}
    row = statements.ANSWERED_REQUEST.values(connection, key)
    if row is None:
        return None
    payment_id, first_hash = row
    answered = records.get(connection, payment_id)
    if answered is not None and answered.state in (PaymentState.REJECTED, PaymentState.VOID):
        return None  # no money moved by it: it was answered with a 402, which uses nothing up
    if request_hash != first_hash or answered is None:
        return Replayed("this signed request was used before for something else: sign with a new timestamp")
    return Known(answered)


def _identified(connection: Connection, wanted: Payment) -> Conflict | None:
    """Refuse a payment-identifier that stands for another payment; one that moved no money frees it."""
    if wanted.identifier is None:
        return None
    who = {"controller": wanted.controller, "identifier": wanted.identifier}
    if statements.PAYMENT_BY_IDENTIFIER.values(connection, who) is None:
        return None
    if pay_links.is_link(wanted.identifier):
        return Conflict("this link is paid, or being paid, by another payment: nothing was taken", "order_taken")
    return Conflict("this payment identifier stands for another payment: send that one again, or use a new identifier")


def _room(connection: Connection, reservation: Reservation) -> NoRoom | None:
    wanted, limits = reservation.payment, reservation.limits
    who = {"payer": wanted.payer, "controller": wanted.controller, "client_address": wanted.client_address}
    counted = statements.OPEN_PAYMENTS.values(connection, who)
    assert counted is not None, "counting always gives a row"
    of_payer, of_hotkey, from_address = counted
    if max(of_payer, of_hotkey) >= limits.holds_per_payer or (
        wanted.client_address and from_address >= limits.holds_per_address
    ):
        return NoRoom(
            "too_many_open_payments", "earlier payments are still being settled: wait for them", RETRY_AFTER_S
        )
    if reservation.session is not None:
        if reservation.places_in is not None:
            limits = msgspec.structs.replace(limits, places=min(limits.places, reservation.places_in(connection)))
        return records.room(connection, wanted.controller, limits)
    if wanted.kind is PaymentKind.CREDIT:
        return None
    extended = sessions.records.get(connection, wanted.session_id)
    if extended is None or extended.controller != wanted.controller:
        return NoRoom("session_over", "there is no such session to extend", RETRY_AFTER_S)
    if extended.state is SessionState.PAYMENT_PENDING:
        return NoRoom("session_not_paid", "the session is not paid yet: extend it once it is", RETRY_AFTER_S)
    if not sessions.records.hold_extension(connection, wanted.session_id):
        return NoRoom("session_over", "the session has ended: buy a new one", RETRY_AFTER_S)
    return None


def _inserted(connection: Connection, payment: Payment) -> Payment:
    statements.INSERT_PAYMENT.apply(connection, records.columns_of(payment) | {OWNER: owners.me(connection)})
    return payment


def _retried(connection: Connection, known: Payment, again: Payment) -> Payment:
    """Start a known payment over, under its own id and its session's."""
    payment = msgspec.structs.replace(
        again,
        id=known.id,
        session_id=known.session_id,
        created_at=known.created_at,
        crashes=known.crashes,
        attempts=known.attempts,
    )
    change = records.change_of(known, payment) | {OWNER: owners.me(connection)}
    statements.REPLACE_PAYMENT.apply(connection, change)
    if known.kind is PaymentKind.SESSION:
        sessions.records.remove_unpaid(connection, known.session_id)
    return payment


def _remember_request(connection: Connection, reservation: Reservation, payment: Payment) -> None:
    if reservation.message_hash is None:
        return
    remembered = {
        "public_key": payment.controller,
        "message_hash": reservation.message_hash,
        "request_hash": payment.request_hash,
        "payment_id": payment.id,
        "at": reservation.now.wall,
    }
    statements.REMEMBER_REQUEST.apply(connection, remembered)
