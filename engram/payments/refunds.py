"""Refunds in the ledger: from what is owed to what was sent. Functions are called inside `ledger.write` or `.read`.

One refund is one part of a payment. Address, amount and nonce are frozen when it becomes due; the first signature
freezes its sender, for all parts of the payment. While it is `refunding` what was signed is sent again unchanged.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, func, select, update

from engram import sessions
from engram.payments import records, refund_rules, rules
from engram.payments.model import Payment, PaymentState, Refund, RefundState
from engram.payments.refund_key import SignedRefund
from engram.payments.refund_rules import Ended, RefundTerms
from engram.payments.rules import PaymentEvent
from engram.payments.tables import payments, refunds
from engram.sessions import Instant

DAY_S: Final = 86_400.0
OTHER_KEY: Final = "signed_by_another_key"
DAILY_LIMIT: Final = "daily_limit_reached"
NO_KEY: Final = "no_refund_key"
BY_HAND: Final = "sent_by_hand"
PARK_S: Final = 60.0
"""A refund that has to wait is looked at this often."""


class Signed(msgspec.Struct, frozen=True):
    """The refund as it was written."""

    refund: Refund


class NotSigned(msgspec.Struct, frozen=True):
    """Why nothing was written."""

    reason: str


def settle_up(connection: Connection, session_id: str, terms: RefundTerms, now: Instant) -> list[Refund]:
    """Owe the buyer what the end of the session gives back, once. Call it in the transaction that ends the session."""
    session = sessions.records.get(connection, session_id)
    if session is None:
        return []
    ended = Ended(
        reason=session.end_reason,
        was_active=session.active_at is not None,
        paid_s=session.paid_s,
        used_s=session.used_s,
        outage_s=sessions.history.outage_s(connection, session_id),
    )
    reason = str(session.end_reason or session.state)
    paid = [payment for payment in records.of_session(connection, session_id) if _is_ours(connection, payment)]
    owed = [
        records.mark_refund_due(connection, payment.id, reason, now, amount)
        for payment, amount in refund_rules.parts(paid, refund_rules.owed_s(ended, terms), terms.min_part)
    ]
    return [refund for refund in owed if refund is not None]


def next_part(connection: Connection, payment_id: str) -> tuple[Payment, Refund] | None:
    """Return the payment and the first of its refunds that was not sent yet; one that is on its way comes first."""
    payment = records.get(connection, payment_id)
    if payment is None:
        return None
    open_parts = [part for part in records.refunds_of(connection, payment_id) if part.state is not RefundState.REFUNDED]
    if not open_parts:
        return None
    return payment, min(open_parts, key=lambda part: (part.state is RefundState.DUE, part.number))


def sign(
    connection: Connection, refund: Refund, signed: SignedRefund, now: Instant, daily_limit: int
) -> Signed | NotSigned:
    """Commit what will be sent, before it is. `daily_limit` is in atomic units, all refunds of 24 hours together."""
    others = [part for part in records.refunds_of(connection, refund.payment_id) if part.sender is not None]
    if any(part.sender != signed.sender for part in others):
        return NotSigned(OTHER_KEY)
    if refund.signed_at is None and _signed_since(connection, now.wall - DAY_S) + refund.amount > daily_limit:
        return NotSigned(DAILY_LIMIT)
    after = msgspec.structs.replace(
        refund,
        state=RefundState.REFUNDING,
        sender=signed.sender,
        payload=signed.payload,
        requirements=signed.requirements,
        valid_before=signed.valid_before,
        signed_at=refund.signed_at or now.wall,
        attempts=0,
        updated_at=now.wall,
    )
    if not _change(connection, refund, after):
        return NotSigned("changed")
    _payment_is(connection, refund.payment_id, PaymentEvent.REFUND_SENT, now)
    return Signed(after)


def confirm(connection: Connection, refund: Refund, transaction: str | None, now: Instant) -> bool:
    """Record that a part was paid. Returns False when that was known."""
    after = msgspec.structs.replace(
        refund, state=RefundState.REFUNDED, transaction_hash=transaction, answer=None, updated_at=now.wall
    )
    if not _change(connection, refund, after):
        return False
    more = next_part(connection, refund.payment_id) is not None
    event = PaymentEvent.PART_REFUNDED if more else PaymentEvent.REFUND_CONFIRMED
    _payment_is(connection, refund.payment_id, event, now)
    return True


def sent_by_hand(connection: Connection, payment_id: str, number: int, transaction: str, now: Instant) -> bool:
    """Note that the operator sent the part, so that no key ever does. False when it is not due: there is no such part,
    it was sent, or it is signed and on its way."""
    part = next((one for one in records.refunds_of(connection, payment_id) if one.number == number), None)
    if part is None or part.state is not RefundState.DUE:
        return False
    after = msgspec.structs.replace(
        part, state=RefundState.REFUNDED, transaction_hash=transaction, answer=BY_HAND, updated_at=now.wall
    )
    if not _change(connection, part, after):
        return False
    _payment_is(connection, payment_id, PaymentEvent.REFUND_SENT, now)
    left = next_part(connection, payment_id)
    if left is None:
        _payment_is(connection, payment_id, PaymentEvent.REFUND_CONFIRMED, now)
    elif left[1].state is RefundState.DUE:
        _payment_is(connection, payment_id, PaymentEvent.PART_REFUNDED, now)
    return True


def wait(connection: Connection, refund: Refund, answer: str, now: Instant) -> None:
    """Note the answer to one more sending, and look again later."""
    after = msgspec.structs.replace(refund, attempts=refund.attempts + 1, answer=answer, updated_at=now.wall)
    if _change(connection, refund, after):
        _look_again(connection, refund.payment_id, now.wall + rules.retry_delay_s(after.attempts))


def park(connection: Connection, refund: Refund, answer: str, now: Instant, *, until: float | None) -> None:
    """Postpone a part for a reason of ours; None: until the operator acts."""
    if _change(connection, refund, msgspec.structs.replace(refund, answer=answer, updated_at=now.wall)):
        _look_again(connection, refund.payment_id, until)


def wake(connection: Connection, at: float) -> int:
    """Let refunds that waited for a key be worked on; returns how many."""
    return connection.execute(
        update(payments)
        .where(
            payments.c.state.in_([str(PaymentState.REFUND_DUE), str(PaymentState.REFUNDING)]),
            payments.c.next_attempt_at.is_(None),
            payments.c.quarantined_at.is_(None),
        )
        .values(next_attempt_at=at)
    ).rowcount


def _is_ours(connection: Connection, payment: Payment) -> bool:
    """Return whether the payment was paid and does not go back in full already."""
    spoken_for = sum(part.amount for part in records.refunds_of(connection, payment.id))
    return rules.was_paid(payment) and spoken_for < payment.amount


def _signed_since(connection: Connection, since: float) -> int:
    query = select(func.coalesce(func.sum(refunds.c.amount), 0)).where(refunds.c.signed_at > since)
    return int(connection.execute(query).scalar_one())


def _change(connection: Connection, before: Refund, after: Refund) -> bool:
    columns = msgspec.structs.asdict(after) | {"state": str(after.state)}
    won = connection.execute(
        update(refunds)
        .where(
            refunds.c.payment_id == before.payment_id,
            refunds.c.number == before.number,
            refunds.c.state == str(before.state),
            refunds.c.valid_before.is_not_distinct_from(before.valid_before),
        )
        .values({name: columns[name] for name in _CHANGING})
    )
    return won.rowcount == 1


_CHANGING: Final[Sequence[str]] = (
    "state",
    "transaction_hash",
    "updated_at",
    "sender",
    "payload",
    "requirements",
    "valid_before",
    "signed_at",
    "attempts",
    "answer",
)
"""Not among them, for ever: address, amount, nonce."""


def _payment_is(connection: Connection, payment_id: str, event: PaymentEvent, now: Instant) -> None:
    records.advance(connection, payment_id, event, now)


def _look_again(connection: Connection, payment_id: str, at: float | None) -> None:
    connection.execute(update(payments).where(payments.c.id == payment_id).values(next_attempt_at=at))
