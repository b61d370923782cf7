"""What the operator is shown."""

import msgspec

from engram.chain.model import ChainStatus


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """One actor, job or supervisor of the live tree."""

    path: str
    kind: str
    state: str
    restarts: int
    last_error: str | None = None
    mailbox_depth: int | None = None
    mailbox_bound: int | None = None
    oldest_age_s: float | None = None


class MoneyToday(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken and sent back since midnight (UTC), and what is owed."""

    since: float
    """Unix seconds."""
    in_usd: float
    out_usd: float
    refunds_due: int
    refunds_due_usd: float


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the running process is. Durations in seconds."""

    version: str
    environment: str
    python: str
    libraries: dict[str, str]
    sqlite: str
    ledger_id: str
    started_at: float
    """Unix seconds."""
    uptime_s: float
    selling: bool
    sessions: dict[str, int]
    """How many are in each state."""
    payments: dict[str, int]
    quarantined: list[str]
    """Ids of sessions and payments that are worked on no more until the operator looks at them."""
    event_streams: int
    ages_s: dict[str, float]
    """How old what is known of other things is, by their names."""
    chain: ChainStatus
    tree: list[TreeNode]
    money: MoneyToday | None = None
    extra: dict[str, dict[str, object]] = {}
    """What else parts of the process tell (relay, loop, …)."""


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the operator's list shows it."""

    session_id: str
    controller_hotkey: str
    status: str
    tier: str
    created_at: float
    expires_at: float
    remaining_s: float
    amount_usd: float
    node_endpoint: str | None
    node_hotkey: str | None
    end_reason: str | None
    error: str | None
    crashes: int
    quarantined_at: float | None


class EventRow(msgspec.Struct, frozen=True):
    """One line of a session's history."""

    id: int
    at: float
    event: str
    data: dict[str, object]


class RefundRow(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a refund."""

    number: int
    state: str
    address: str
    amount_usd: float
    reason: str
    transaction: str | None
    answer: str | None = None
    """Why it is not sent yet, or the last answer."""


class PaymentRow(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as the operator's list and export show it. Nothing in it could be used to pay."""

    payment_id: str
    state: str
    kind: str
    session_id: str
    controller_hotkey: str
    network: str
    payer: str
    pay_to: str
    amount_usd: float
    amount_atomic: int
    hours: float
    transaction: str | None
    reason: str | None
    created_at: float
    settled_at: float | None
    crashes: int
    quarantined_at: float | None


class PaymentDetail(msgspec.Struct, frozen=True):
    """A payment with its refunds."""

    payment: PaymentRow
    refunds: list[RefundRow]


class SessionDetail(msgspec.Struct, frozen=True):
    """A session with its history and payments."""

    session: SessionRow
    events: list[EventRow]
    payments: list[PaymentRow]


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """A payload that the relay gave up on (or is still trying to deliver)."""

    id: int
    kind: str
    output_hash: str
    block: int
    state: str
    attempts: int
    next_attempt_at: float
    last_reason: str | None
    created_at: float
    updated_at: float


class NodeKeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A miner hotkey of the pool."""

    hotkey: str
    path: str
    source: str
    added_at: float
    retired_at: float | None
    session_id: str | None


class SessionPage(msgspec.Struct, frozen=True):
    """Sessions, and the id the next page begins after; empty at the end."""

    rows: list[SessionRow]
    after: str


class PaymentPage(msgspec.Struct, frozen=True):
    """Payments, and the time the next page begins before; None at the end."""

    rows: list[PaymentRow]
    before: float | None


class AttemptRow(msgspec.Struct, frozen=True):
    """One attempt of the relay."""

    at: float
    status: str
    http_status: int | None


class DeadLetterDetail(msgspec.Struct, frozen=True):
    """An entry of the outbox: its payload as JSON text, and its newest 100 attempts."""

    entry: DeadLetterRow
    payload: str
    attempts: list[AttemptRow]


class Done(msgspec.Struct, frozen=True):
    """It was carried out; `changed` is false when there was nothing to change."""

    changed: bool
    message: str = ""


class BackupMade(msgspec.Struct, frozen=True):
    """A backup is complete and on disk."""

    path: str
    bytes: int
