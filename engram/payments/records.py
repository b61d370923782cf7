"""Payments and refunds in the ledger. Functions are called inside `ledger.write` or `ledger.read`.

Every arrow of rules.py is one compare-and-set made by `advance`, together with what it does to the session; the
first one (RESERVED) is made in reservations.py.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Label, RowMapping, delete, func, insert, select, update

from engram import sessions
from engram.ledger import Row, owners
from engram.ledger.sql import one_of
from engram.payments import prepaid, rules, statements
from engram.payments.model import (
    AuthorizationKey,
    DuePayment,
    HoldLimits,
    Payment,
    PaymentKind,
    PaymentState,
    Refund,
    RefundState,
)
from engram.payments.purchase_answer import NoRoom
from engram.payments.rules import Delivery, PaymentEffect, PaymentEvent, Transition
from engram.payments.tables import PAYMENT, answered_requests, payments, refunds
from engram.sessions import EndReason, Instant, SessionEvent, SessionState

# A tenth of the cost of calling the enumeration.
_STATES = {str(state): state for state in PaymentState}
_KINDS = {str(kind): kind for kind in PaymentKind}


RETRY_AFTER_S = 5
"""What a buyer is told to wait for a place or a hold."""


LONGEST_OPEN_S = 604_800
"""A payment that settles does so within a week of its reservation, or is not among the sums of the day."""


def find_authorization(connection: Connection, key: AuthorizationKey) -> Payment | None:
    """Return the payment with this canonical authorization, whatever else it says."""
    parameters = {"network": key.network, "asset": key.asset, "payer": key.payer, "nonce": key.nonce}
    row = statements.PAYMENT_BY_AUTHORIZATION.first(connection, parameters)
    return None if row is None else _payment(row)


def of_identifier(connection: Connection, controller: bytes, identifier: str) -> list[Payment]:
    """Return the payments of a hotkey that bear this identifier and count; those that moved no money do not."""
    rows = statements.PAYMENT_BY_IDENTIFIER.rows(connection, {"controller": controller, "identifier": identifier})
    return [found for (payment_id,) in rows if (found := get(connection, payment_id)) is not None]


def room(connection: Connection, controller: bytes, limits: HoldLimits) -> NoRoom | None:
    """Why this hotkey cannot get a new session now; asked before a price is quoted, and again when reserving."""
    return no_room(*sessions.counts.taken(connection, controller), limits)


def no_room(live: int, held: int, limits: HoldLimits) -> NoRoom | None:
    """Why a hotkey with `live` sessions gets no new one now, where `held` sessions hold places."""
    if live >= limits.live_per_hotkey:
        return NoRoom(
            "session_limit", f"{live} of {limits.live_per_hotkey} sessions are live: stop one first", RETRY_AFTER_S
        )
    if held >= limits.places:
        return NoRoom("no_capacity", "every node is taken at the moment", 30)
    return None


def advance(
    connection: Connection,
    payment_id: str,
    event: PaymentEvent,
    now: Instant,
    *,
    reason: str | None = None,
    transaction: str | None = None,
    watch_at: float | None = None,
) -> Payment | None:
    """Apply `event` with its effects on the session and refunds; returns the payment as it is then.

    `watch_at` is when the chain is to be looked at for a payment that is settled, rejected or void then (None: never).

    Returns None when there is no such payment or the event does not apply in its state (nothing is changed).
    """
    before = get(connection, payment_id)
    if before is None:
        return None
    decision = rules.decide(before.state, event, _delivery(connection, before))
    if decision is None:
        return None
    if event is PaymentEvent.VERIFIED and decision.state is PaymentState.REJECTED:
        reason = rules.STOPPED
    after = _after(before, decision, event, now.wall, reason, transaction, watch_at)
    if statements.UPDATE_PAYMENT.change(connection, change_of(before, after)) != 1:
        return None
    for effect in decision.effects:
        _perform(connection, effect, after, now)
    return after


def mark_refund_due(
    connection: Connection, payment_id: str, reason: str, now: Instant, amount: int | None = None
) -> Refund | None:
    """Owe the payer `amount` atomic units of a settled payment (None: all that is left), frozen with address and
    nonce. Returns None when nothing is left, or the payment was never settled. One whose block was reorganised away
    stays unknown; it is worked off once it is settled again."""
    payment = get(connection, payment_id)
    if payment is None or not rules.was_paid(payment):
        return None
    refund = _open_refund(connection, payment, reason, now.wall, amount)
    if refund is None or payment.state is PaymentState.UNKNOWN:
        return refund
    connection.execute(
        update(payments)
        .where(payments.c.id == payment_id)
        .values(
            state=str(PaymentState.REFUNDING if payment.state is PaymentState.REFUNDING else PaymentState.REFUND_DUE),
            reason=reason,
            updated_at=now.wall,
            next_attempt_at=None if payment.quarantined_at else now.wall,
        )
    )
    return refund


def count_crash(connection: Connection, payment_id: str, at: float) -> Payment | None:
    """Count one crash of the payment's work; at the fifth it is quarantined for the operator."""
    payment = get(connection, payment_id)
    if payment is None:
        return None
    crashes = payment.crashes + 1
    quarantined = crashes >= rules.QUARANTINE_AFTER
    again = payment.state in rules.WORKED or payment.next_attempt_at is not None
    after = msgspec.structs.replace(
        payment,
        crashes=crashes,
        quarantined_at=payment.quarantined_at or (at if quarantined else None),
        next_attempt_at=at + rules.retry_delay_s(crashes) if again and not quarantined else None,
    )
    statements.UPDATE_PAYMENT.apply(connection, change_of(payment, after))
    return after


def look_again(connection: Connection, payment: Payment, at: float | None) -> None:
    """Set when the payment's work is due next, unless it has changed meanwhile; None: never."""
    connection.execute(
        update(payments)
        .where(payments.c.id == payment.id, payments.c.state == str(payment.state), payments.c.quarantined_at.is_(None))
        .values(next_attempt_at=at)
    )


def release_quarantine(connection: Connection, payment_id: str, at: float) -> Payment | None:
    """Let the payment be worked on again, with a clean count."""
    payment = get(connection, payment_id)
    if payment is None:
        return None
    due = None if payment.state is PaymentState.REFUNDED else at  # others may have been watched
    after = msgspec.structs.replace(payment, crashes=0, quarantined_at=None, next_attempt_at=due)
    statements.UPDATE_PAYMENT.apply(connection, change_of(payment, after))
    return after


def forget_answered_requests(connection: Connection, before: float) -> int:
    """Drop replay keys written before `before` (unix seconds); their signatures must have run out long ago."""
    return connection.execute(delete(answered_requests).where(answered_requests.c.at < before)).rowcount


# Reading.


def transaction_of(payment_id: Column[Any]) -> Label[Any]:
    """Select the transaction of the payment that a column names, within a read of that column's table."""
    query = select(payments.c.transaction_hash).where(payments.c.id == payment_id)
    return query.scalar_subquery().label("transaction_hash")


def get(connection: Connection, payment_id: str) -> Payment | None:
    """Return the payment of that id."""
    row = statements.PAYMENT_BY_ID.first(connection, {"id": payment_id})
    return None if row is None else _payment(row)


def due(connection: Connection, now: float, limit: int) -> list[DuePayment]:
    """At most `limit` payments of this process whose work is due: those whose buyers wait first, then the longest
    waiting, and last those that were given up."""
    found: dict[str, DuePayment] = {}
    owner = owners.me(connection)
    for statement in statements.IN_TURN:
        for row in connection.execute(statement, {"now": now, "owner": owner, "most": limit - len(found)}):
            found.setdefault(row.id, DuePayment(row.id, PaymentState(row.state)))
    return list(found.values())


def of_session(connection: Connection, session_id: str) -> list[Payment]:
    """All payments of a session, the first one first."""
    query = select(*PAYMENT).where(payments.c.session_id == session_id).order_by(payments.c.created_at)
    return [_payment(row) for row in connection.execute(query).mappings()]


def open_of(connection: Connection, controller: bytes) -> list[str]:
    """Return the ids of a hotkey's payments whose outcome is not known yet, newest first, at most 20."""
    return list(connection.execute(statements.OPEN_OF_HOTKEY, {"controller": controller}).scalars())


def list_payments(
    connection: Connection, *, state: PaymentState | None = None, limit: int = 200, before: float | None = None
) -> list[Payment]:
    """Return the newest payments, newest first; `before` (created_at) pages on."""
    query = select(*PAYMENT).order_by(payments.c.created_at.desc(), payments.c.id).limit(limit)
    if state is not None:
        query = query.where(payments.c.state == str(state))
    if before is not None:
        query = query.where(payments.c.created_at < before)
    return [_payment(row) for row in connection.execute(query).mappings()]


def count_by_state(connection: Connection) -> dict[PaymentState, int]:
    """How many payments are in each state."""
    query = select(payments.c.state, func.count()).group_by(payments.c.state)
    return {PaymentState(state): count for state, count in connection.execute(query)}


def count_unknown(connection: Connection, before: float) -> int:
    """How many payments of unknown outcome were begun before `before` (unix seconds)."""
    unknown = payments.c.state == str(PaymentState.UNKNOWN)
    query = select(func.count()).select_from(payments).where(unknown, payments.c.created_at < before)
    return connection.execute(query).scalar_one()


def count_quarantined(connection: Connection) -> int:
    """How many payments are in quarantine."""
    query = select(func.count()).select_from(payments).where(payments.c.quarantined_at.is_not(None))
    return connection.execute(query).scalar_one()


def list_quarantined(connection: Connection, limit: int) -> list[str]:
    """Ids of payments in quarantine."""
    query = select(payments.c.id).where(payments.c.quarantined_at.is_not(None)).limit(limit)
    return list(connection.execute(query).scalars())


def transactions_of(connection: Connection, payment_ids: Collection[str]) -> dict[str, str | None]:
    """Return the transaction of each of these payments, None while there is none."""
    query = select(payments.c.id, payments.c.transaction_hash).where(payments.c.id.in_(sorted(payment_ids)))
    return dict(connection.execute(query).all())


def refunds_by_state(connection: Connection) -> dict[RefundState, tuple[int, int]]:
    """How many parts of refunds are in each state, and their atomic units in all."""
    query = select(refunds.c.state, func.count(), func.sum(refunds.c.amount)).group_by(refunds.c.state)
    return {RefundState(state): (count, int(amount)) for state, count, amount in connection.execute(query)}


def oldest(connection: Connection, states: Iterable[PaymentState]) -> dict[str, float]:
    """Return when the oldest payment in each of these open states was begun (unix seconds); none for an empty state."""
    query = (
        select(payments.c.state, func.min(payments.c.created_at))
        .where(one_of(payments.c.state, [str(state) for state in states]))
        .group_by(payments.c.state)
    )
    return {str(state): float(at) for state, at in connection.execute(query)}


def oldest_refunds(connection: Connection) -> dict[str, float]:
    """Return since when the oldest part of a refund is in each open state (unix seconds); none for an empty state."""
    query = (
        select(refunds.c.state, func.min(refunds.c.created_at))
        .where(refunds.c.state != str(RefundState.REFUNDED))
        .group_by(refunds.c.state)
    )
    return {str(state): float(at) for state, at in connection.execute(query)}


def moved_since(connection: Connection, since: float) -> tuple[int, int]:
    """Return the atomic units that were taken, and those that were sent back, since `since` (unix seconds)."""
    taken = select(func.coalesce(func.sum(payments.c.amount), 0)).where(
        payments.c.created_at >= since - LONGEST_OPEN_S, payments.c.settled_at >= since
    )
    returned = select(func.coalesce(func.sum(refunds.c.amount), 0)).where(
        refunds.c.state == str(RefundState.REFUNDED), refunds.c.updated_at >= since
    )
    return int(connection.execute(taken).scalar_one()), int(connection.execute(returned).scalar_one())


def refunds_of(connection: Connection, payment_id: str) -> list[Refund]:
    """Return the refunds of a payment by number."""
    rows = connection.execute(statements.REFUNDS_OF, {"payment_id": payment_id})
    return [_refund(row) for row in rows.mappings()]


def refunded_by_session(connection: Connection, session_ids: Sequence[str]) -> dict[str, int]:
    """Return what of each session's payments goes back or went, in micro-dollars; sessions without are left out."""
    found: dict[str, int] = {}
    for first in range(0, len(session_ids), 500):
        query = (
            select(payments.c.session_id, func.sum(refunds.c.amount))
            .join(refunds, refunds.c.payment_id == payments.c.id)
            .where(payments.c.session_id.in_(session_ids[first : first + 500]))
            .group_by(payments.c.session_id)
        )
        found |= {session_id: int(amount) for session_id, amount in connection.execute(query)}
    return found


def open_refunds(connection: Connection, limit: int = 200) -> list[Refund]:
    """Refunds that are owed or on their way, oldest first: the operator's queue."""
    query = (
        select(refunds).where(refunds.c.state != str(RefundState.REFUNDED)).order_by(refunds.c.created_at).limit(limit)
    )
    return [_refund(row) for row in connection.execute(query).mappings()]


# The parts of a transition.


def _delivery(connection: Connection, payment: Payment) -> Delivery:
    if payment.settled_at is not None:
        owed = any(part.state is not RefundState.REFUNDED for part in refunds_of(connection, payment.id))
        return Delivery.OWED if owed else Delivery.DELIVERED
    if payment.kind is PaymentKind.CREDIT:
        return Delivery.WAITING
    wanted = {SessionState.PAYMENT_PENDING} if payment.kind is PaymentKind.SESSION else sessions.LIVE
    waiting = sessions.records.state_of(connection, payment.session_id) in wanted
    return Delivery.WAITING if waiting else Delivery.IMPOSSIBLE


def _after(
    before: Payment,
    decision: Transition,
    event: PaymentEvent,
    now: float,
    reason: str | None,
    transaction: str | None,
    watch_at: float | None,
) -> Payment:
    state = decision.state
    attempts = before.attempts + (state is PaymentState.SETTLING or event is PaymentEvent.UNCLEAR)
    match state:
        case PaymentState.SETTLING | PaymentState.REFUND_DUE | PaymentState.REFUNDING:
            next_attempt_at: float | None = now
        case PaymentState.UNKNOWN:
            next_attempt_at = now + rules.retry_delay_s(attempts)
        case PaymentState.SETTLED | PaymentState.REJECTED | PaymentState.VOID:
            next_attempt_at = watch_at
        case _:
            next_attempt_at = None
    if event is PaymentEvent.SETTLED:
        reason = rules.STOPPED if state is PaymentState.REFUND_DUE else None
    return msgspec.structs.replace(
        before,
        state=state,
        attempts=attempts,
        next_attempt_at=None if before.quarantined_at else next_attempt_at,
        reason=reason if reason is not None or event is PaymentEvent.SETTLED else before.reason,
        transaction_hash=transaction or before.transaction_hash,
        settled_at=before.settled_at or (now if state in rules.PAID else None),
        updated_at=now,
    )


def _perform(connection: Connection, effect: PaymentEffect, payment: Payment, now: Instant) -> None:
    is_session, is_credit = payment.kind is PaymentKind.SESSION, payment.kind is PaymentKind.CREDIT
    match effect:
        case PaymentEffect.DELIVER if is_credit:
            prepaid.add(connection, payment.controller, int(payment.seconds), now.wall)
        case PaymentEffect.WITHDRAW if is_credit:
            prepaid.add(connection, payment.controller, -int(payment.seconds), now.wall)
        case PaymentEffect.RELEASE if is_credit:
            return  # nothing was held for it
        case PaymentEffect.DELIVER if is_session:
            sessions.records.transition(connection, payment.session_id, SessionEvent.SETTLED, now)
        case PaymentEffect.DELIVER:
            sessions.records.add_seconds(connection, payment.session_id, payment.seconds, payment.amount, now.wall)
            sessions.records.release_extension(connection, payment.session_id)
        case PaymentEffect.RELEASE if is_session:
            sessions.records.transition(
                connection,
                payment.session_id,
                SessionEvent.PAYMENT_FAILED,
                now,
                error=f"payment {payment.state}: {payment.reason}",
            )
        case PaymentEffect.RELEASE:
            sessions.records.release_extension(connection, payment.session_id)
        case PaymentEffect.REFUND:
            _open_refund(connection, payment, payment.reason or str(payment.state), now.wall, None)
        case PaymentEffect.WITHDRAW if is_session:
            sessions.records.transition(connection, payment.session_id, SessionEvent.END, now, reason=EndReason.PAYMENT)
        case PaymentEffect.FORGIVE:
            never_sent = (refunds.c.payment_id == payment.id) & (refunds.c.state == str(RefundState.DUE))
            connection.execute(delete(refunds).where(never_sent))
        case PaymentEffect.WITHDRAW:
            sessions.records.add_seconds(connection, payment.session_id, -payment.seconds, -payment.amount, now.wall)


def _open_refund(
    connection: Connection, payment: Payment, reason: str, now: float, requested: int | None
) -> Refund | None:
    earlier = refunds_of(connection, payment.id)
    amount = rules.refundable(payment.amount, sum(refund.amount for refund in earlier), requested)
    if amount == 0:
        return None
    number = len(earlier) + 1
    refund = Refund(
        payment_id=payment.id,
        number=number,
        state=RefundState.DUE,
        address=payment.payer,
        amount=amount,
        nonce=rules.refund_nonce(payment.network, payment.asset, payment.payer, payment.nonce, number),
        reason=reason,
        transaction_hash=None,
        created_at=now,
        updated_at=now,
    )
    connection.execute(insert(refunds).values(msgspec.structs.asdict(refund) | {"state": str(refund.state)}))
    return refund


# Rows.


def columns_of(payment: Payment) -> dict[str, Any]:
    """Return the row of a payment, by column."""
    columns = msgspec.structs.asdict(payment)
    columns["state"], columns["kind"] = payment.state.value, payment.kind.value
    return columns


def change_of(before: Payment, after: Payment) -> dict[str, Any]:
    """Return the parameters of UPDATE_PAYMENT and REPLACE_PAYMENT."""
    change = columns_of(after)
    del change["id"]
    change["row"], change["was"] = before.id, before.state.value
    return change


def _payment(row: RowMapping | Row) -> Payment:
    columns: dict[str, Any] = {**row}
    columns["state"] = _STATES[columns["state"]]
    columns["kind"] = _KINDS[columns["kind"]]
    return Payment(**columns)


def _refund(row: RowMapping) -> Refund:
    columns = dict(row)
    columns["state"] = RefundState(columns["state"])
    return Refund(**columns)
