"""Every command that the running process takes."""

from typing import Annotated, TypeAlias

from msgspec import Meta

from engram import wire
from engram.control.model import (
    BackupMade,
    DeadLetterDetail,
    DeadLetterRow,
    Done,
    NodeKeyRow,
    PaymentDetail,
    PaymentPage,
    SessionDetail,
    SessionPage,
    SystemStatus,
)
from engram.control.protocol import Command

PAGE = 500
"""Rows of a page, at most."""

RowId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""What SQLite can number."""


class GetStatus(Command[SystemStatus], frozen=True, tag="status"):
    """How the process is."""


class ListSessions(Command[SessionPage], frozen=True, tag="list_sessions"):
    """Sessions by id, a page after `after`; all states when `state` is empty."""

    state: str = ""
    after: str = ""
    limit: int = PAGE


class ShowSession(Command[SessionDetail], frozen=True, tag="show_session"):
    """A session with its history and payments."""

    session_id: str


class StopSession(Command[Done], frozen=True, tag="stop_session"):
    """Stop a session for good, as the operator."""

    session_id: str


class ReleaseSession(Command[Done], frozen=True, tag="release_session"):
    """Let a quarantined session be worked on again."""

    session_id: str


class ListPayments(Command[PaymentPage], frozen=True, tag="list_payments"):
    """Payments, newest first, those before `before` (created_at); all states when `state` is empty."""

    state: str = ""
    before: float | None = None
    limit: int = PAGE


class ShowPayment(Command[PaymentDetail], frozen=True, tag="show_payment"):
    """A payment with its refunds."""

    payment_id: str


class ReleasePayment(Command[Done], frozen=True, tag="release_payment"):
    """Let a quarantined payment be worked on again."""

    payment_id: str


class NoteRefund(Command[Done], frozen=True, tag="note_refund"):
    """The operator has sent part `number` of a payment's refund, in this transaction: it is not sent again."""

    payment_id: str
    number: Annotated[int, Meta(ge=1, le=2**31)]
    transaction: Annotated[str, Meta(pattern="^0x[0-9a-fA-F]{64}$")]


class SetSelling(Command[Done], frozen=True, tag="set_selling"):
    """Start or stop selling; what was sold is served on."""

    on: bool


class BackupLedger(Command[BackupMade], frozen=True, tag="backup_ledger"):
    """Write a consistent copy of the ledger to `path` (absolute, must not exist)."""

    path: str


class ListDeadLetters(Command[list[DeadLetterRow]], frozen=True, tag="list_dead_letters"):
    """What the relay gave up on, oldest first, after number `after`."""

    after: RowId = 0
    limit: int = PAGE


class ShowDeadLetter(Command[DeadLetterDetail], frozen=True, tag="show_dead_letter"):
    """An entry of the relay's outbox with its attempts."""

    id: RowId


class RetryDeadLetter(Command[Done], frozen=True, tag="retry_dead_letter"):
    """Send a dead letter again; all of them when `id` is None."""

    id: RowId | None = None


class ParkEntry(Command[Done], frozen=True, tag="park_entry"):
    """Make a dead letter of an entry of the relay that waits."""

    id: RowId


class DiscardDeadLetter(Command[Done], frozen=True, tag="discard_dead_letter"):
    """Give a dead letter up."""

    id: RowId


class ListNodeKeys(Command[list[NodeKeyRow]], frozen=True, tag="list_node_keys"):
    """The pool of miner hotkeys."""


class AddNodeKey(Command[Done], frozen=True, tag="add_node_key"):
    """Add the hotkey of a wallet file (absolute path, mode 0600, unencrypted) to the pool."""

    path: str


class RetireNodeKey(Command[Done], frozen=True, tag="retire_node_key"):
    """Take a hotkey (SS58 or hex) out of the pool; a session that leases it keeps it to its end."""

    hotkey: str


AnyCommand: TypeAlias = (
    GetStatus
    | ListSessions
    | ShowSession
    | StopSession
    | ReleaseSession
    | ListPayments
    | ShowPayment
    | ReleasePayment
    | NoteRefund
    | SetSelling
    | BackupLedger
    | ListDeadLetters
    | ShowDeadLetter
    | RetryDeadLetter
    | DiscardDeadLetter
    | ParkEntry
    | ListNodeKeys
    | AddNodeKey
    | RetireNodeKey
)

decoder = wire.decoder(AnyCommand)
"""Reads a command line. Raises msgspec.DecodeError."""
