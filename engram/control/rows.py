"""Records of the ledger as the operator sees them."""

from pathlib import Path

from engram import wire
from engram.control.model import (
    AttemptRow,
    DeadLetterRow,
    EventRow,
    NodeKeyRow,
    PaymentRow,
    RefundRow,
    SessionRow,
)
from engram.hotkeys import ss58
from engram.payments.keccak import checksummed
from engram.payments.model import Payment, Refund
from engram.payments.networks import short_name
from engram.provisioning.model import NodeKey
from engram.relay import Entry, LogLine
from engram.sessions import EventRecord, Instant, Session, rules


def session_row(session: Session, now: Instant) -> SessionRow:
    """Return a line of `engram sessions list`."""
    return SessionRow(
        session_id=session.id,
        controller_hotkey=ss58.encode(session.controller),
        status=str(session.state),
        tier=str(session.tier),
        created_at=session.created_at,
        expires_at=rules.expires_at(session, now),
        remaining_s=rules.remaining_s(session, now),
        amount_usd=session.amount_usd_micros / 1_000_000,
        node_endpoint=session.node_endpoint,
        node_hotkey=None if session.node_hotkey is None else ss58.encode(session.node_hotkey),
        end_reason=None if session.end_reason is None else str(session.end_reason),
        error=session.error,
        crashes=session.crashes,
        quarantined_at=session.quarantined_at,
    )


def event_row(event: EventRecord) -> EventRow:
    """Return a line of a session's history."""
    return EventRow(event.id, event.at, event.event, wire.decode(event.data, dict[str, object]))


def payment_row(payment: Payment) -> PaymentRow:
    """Return a line of `engram payments list`; without payload, nonce and signature."""
    return PaymentRow(
        payment_id=payment.id,
        state=str(payment.state),
        kind=str(payment.kind),
        session_id=payment.session_id,
        controller_hotkey=ss58.encode(payment.controller),
        network=short_name(payment.network),
        payer=checksummed(payment.payer),
        pay_to=checksummed(payment.pay_to),
        amount_usd=payment.amount / 1_000_000,
        amount_atomic=payment.amount,
        hours=payment.seconds / 3600,
        transaction=payment.transaction_hash,
        reason=payment.reason,
        created_at=payment.created_at,
        settled_at=payment.settled_at,
        crashes=payment.crashes,
        quarantined_at=payment.quarantined_at,
    )


def refund_row(refund: Refund) -> RefundRow:
    """Return one part of a refund."""
    return RefundRow(
        number=refund.number,
        state=str(refund.state),
        address=checksummed(refund.address),
        amount_usd=refund.amount / 1_000_000,
        reason=refund.reason,
        transaction=refund.transaction_hash,
        answer=refund.answer,
    )


def dead_letter_row(entry: Entry) -> DeadLetterRow:
    """Return a line of `engram relay dlq list`."""
    return DeadLetterRow(
        id=entry.id,
        kind=entry.kind,
        output_hash=entry.output_hash,
        block=entry.block,
        state=str(entry.state),
        attempts=entry.attempts,
        next_attempt_at=entry.next_attempt_at,
        last_reason=entry.last_reason,
        created_at=entry.created_at,
        updated_at=entry.updated_at,
    )


def attempt_row(line: LogLine) -> AttemptRow:
    """Return one attempt to deliver."""
    return AttemptRow(line.at, line.status, line.http_status)


def node_key_row(key: NodeKey, file: Path) -> NodeKeyRow:
    """Return a line of `engram hotkeys pool list`; the path is where the key lies, never the key."""
    return NodeKeyRow(
        hotkey=ss58.encode(key.public_key),
        path=str(file),
        source=key.source,
        added_at=key.added_at,
        retired_at=key.retired_at,
        session_id=key.session_id,
    )
