"""RESERVED: the one transaction with which a payment begins, or the reason why it does not."""

from typing import TypeAlias

import msgspec
from sqlalchemy import Connection

from engram import sessions
from engram.payments import records, statements
from engram.payments.model import Limits, Payment, PaymentKind, PaymentState
from engram.payments.purchase_answer import Conflict, NoRoom, Replayed
from engram.payments.records import RETRY_AFTER_S
from engram.sessions import EndReason, Instant, Session, SessionState


class Reservation(msgspec.Struct, frozen=True):
    """All that RESERVED writes at once."""

    payment: Payment
    """State RESERVED, with a fresh id."""
    session: Session | None
    """The new session in `payment_pending`; None for an extension of payment.session_id."""
    message_hash: bytes | None
    limits: Limits
    now: Instant


class Reserved(msgspec.Struct, frozen=True):
    """The payment is ours to work on."""

    payment: Payment


class Known(msgspec.Struct, frozen=True):
    """The same request came before; this is its payment."""

    payment: Payment


ReservationAnswer: TypeAlias = Reserved | Known | Conflict | Replayed | NoRoom


def reserve(connection: Connection, reservation: Reservation) -> ReservationAnswer:
    """Write RESERVED, the session, the replay key and the holds in one go, or say why not (nothing is written)."""
    asked = reservation.payment
    known = records.find_authorization(connection, asked.key)
    if known is not None:
        answer = known_answer(known, asked.controller, asked.request_hash)
        if isinstance(answer, Conflict) or not _may_retry(connection, known):
            return answer
    if (said := _replayed(connection, reservation) or _identified(connection, asked)) is not None:
        return said
    refused = _room(connection, reservation)
    if refused is not None:
        return refused
    payment = _retried(connection, known, asked) if known else _inserted(connection, asked)
    if reservation.session is not None:
        session = msgspec.structs.replace(reservation.session, id=payment.session_id, payment_id=payment.id)
        sessions.records.insert_session(connection, session)
    _remember_request(connection, reservation, payment)
    return Reserved(payment)


def known_answer(known: Payment, controller: bytes, request_hash: bytes) -> Known | Conflict:
    """What is said to a request that presents a known authorization."""
    if (known.controller, known.request_hash) == (controller, request_hash):
        return Known(known)
    return Conflict("this payment was presented with another request: sign a new one")


def _may_retry(connection: Connection, known: Payment) -> bool:
    """Nothing was ever broadcast for it and nobody stopped its session, so the same request may try again."""
    if known.state is not PaymentState.REJECTED or known.transaction_hash or known.quarantined_at:
        return False
    if known.kind is PaymentKind.EXTENSION:
        return True
    session = sessions.records.get(connection, known.session_id)
    return session is not None and session.end_reason is EndReason.PAYMENT


def _replayed(connection: Connection, reservation: Reservation) -> Known | Replayed | None:
    if reservation.message_hash is None:
        return None
    asked = reservation.payment
    key = {"public_key": asked.controller, "message_hash": reservation.message_hash}
    row = statements.ANSWERED_REQUEST.values(connection, key)
    if row is None:
        return None
    payment_id, request_hash = row
    answered = records.get(connection, payment_id)
    if answered is not None and answered.state in (PaymentState.REJECTED, PaymentState.VOID):
        return None  # no money moved by it: it was answered with a 402, which uses nothing up
    if request_hash != asked.request_hash or answered is None:
        return Replayed("this signed request was used before for something else: sign with a new timestamp")
    return Known(answered)


def _identified(connection: Connection, asked: Payment) -> Conflict | None:
    """The buyer's own word for a purchase stands for one payment; one that moved no money gives it free again."""
    if asked.identifier is None:
        return None
    who = {"controller": asked.controller, "identifier": asked.identifier}
    if statements.PAYMENT_BY_IDENTIFIER.values(connection, who) is None:
        return None
    return Conflict("this payment identifier stands for another payment: send that one again, or use a new identifier")


def _room(connection: Connection, reservation: Reservation) -> NoRoom | None:
    asked, limits = reservation.payment, reservation.limits
    who = {"payer": asked.payer, "controller": asked.controller, "client_address": asked.client_address}
    counted = statements.OPEN_PAYMENTS.values(connection, who)
    assert counted is not None, "counting always gives a row"
    of_payer, of_hotkey, from_address = counted
    if max(of_payer, of_hotkey) >= limits.holds_per_payer or (
        asked.client_address and from_address >= limits.holds_per_address
    ):
        return NoRoom(
            "too_many_open_payments", "earlier payments are still being settled: wait for them", RETRY_AFTER_S
        )
    if reservation.session is not None:
        return records.room(connection, asked.controller, limits)
    extended = sessions.records.get(connection, asked.session_id)
    if extended is None or extended.controller != asked.controller:
        return NoRoom("session_over", "there is no such session to extend", RETRY_AFTER_S)
    if extended.state is SessionState.PAYMENT_PENDING:
        return NoRoom("session_not_paid", "the session is not paid yet: extend it once it is", RETRY_AFTER_S)
    if not sessions.records.hold_extension(connection, asked.session_id):
        return NoRoom("session_over", "the session has ended: buy a new one", RETRY_AFTER_S)
    return None


def _inserted(connection: Connection, asked: Payment) -> Payment:
    statements.INSERT_PAYMENT.change(connection, records.columns_of(asked))
    return asked


def _retried(connection: Connection, known: Payment, asked: Payment) -> Payment:
    """The known payment begins anew, under its own id and its session's."""
    payment = msgspec.structs.replace(
        asked,
        id=known.id,
        session_id=known.session_id,
        created_at=known.created_at,
        crashes=known.crashes,
        attempts=known.attempts,
    )
    statements.REPLACE_PAYMENT.change(connection, records.change_of(known, payment))
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
    statements.REMEMBER_REQUEST.change(connection, remembered)
