"""A compute session: what was bought, by whom, in which state it is, and how its paid time is counted."""

from enum import StrEnum

import msgspec


class TierName(StrEnum):
    """The sizes on sale."""

    LITE = "lite"
    STANDARD = "standard"
    PRO = "pro"


class Tier(msgspec.Struct, frozen=True):
    """One size of node and what an hour of it costs."""

    name: TierName
    cpu_vcpu: int
    memory_gb: int
    storage_gb: int
    usd_micros_per_hour: int

    @property
    def usd_per_hour(self) -> float:
        """The hourly price in dollars, for display."""
        return self.usd_micros_per_hour / 1_000_000

    @property
    def price_akt_per_hour(self) -> float:
        """Half the price in dollars: the original phone app doubles this field to get what it shows."""
        return self.usd_micros_per_hour / 2_000_000

    @property
    def memory_bytes(self) -> int:
        return self.memory_gb * 1024**3

    @property
    def storage_bytes(self) -> int:
        return self.storage_gb * 1024**3


class SessionState(StrEnum):
    """Where a session is; the arrows between them are in rules.py."""

    PAYMENT_PENDING = "payment_pending"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXPIRED = "expired"
    FAILED = "failed"


TERMINAL = frozenset({SessionState.STOPPED, SessionState.EXPIRED, SessionState.FAILED})
"""Nothing of the session is left; confirmed, not assumed."""
RUNNING = frozenset({SessionState.ACTIVE, SessionState.DEGRADED})
"""A node serves it and paid time is counted."""
HELD = frozenset(SessionState) - TERMINAL
"""States that hold a place."""
LIVE = HELD - {SessionState.STOPPING}
"""States that count towards the limit of a hotkey."""


class SessionEvent(StrEnum):
    """What may happen to a session."""

    SETTLED = "settled"
    PAYMENT_FAILED = "payment_failed"
    NODE_READY = "node_ready"
    PROVISION_FAILED = "provision_failed"
    """Given up, and no node was ever started (or each is confirmed gone)."""
    DEGRADE = "degrade"
    RECOVER = "recover"
    END = "end"
    """Stop it, for the end reason that comes with the event."""
    DESTROYED = "destroyed"
    """Its node is confirmed gone."""


class EndReason(StrEnum):
    """Why a session ends; kept from the moment it begins to stop."""

    USER = "stopped_by_user"
    OPERATOR = "stopped_by_operator"
    EXPIRED = "expired"
    PAYMENT = "payment_failed"
    PROVISION = "provision_failed"
    NODE_LOST = "node_lost"


class Instant(msgspec.Struct, frozen=True):
    """A reading of the machine's clocks.

    `wall` is unix seconds; `monotonic` seconds since this machine booted, time asleep included; `boot` names the
    boot that `monotonic` belongs to.
    """

    wall: float
    monotonic: float
    boot: str


class ClockSighting(msgspec.Struct, frozen=True):
    """What a process has seen of a paid clock that several share. Times are by its own machine's monotonic clock."""

    reading: float
    """What the clock's row read when it was last seen."""
    seen_at: float
    before: float | None
    """When the row was last seen with an earlier reading: it was moved on since. None: not known."""


class MemoryState(StrEnum):
    """What became of the memory of a session's node."""

    KEPT = "kept"
    """Nothing was lost."""
    LOST = "lost"
    """The node began again empty, and nobody has said that its memory was restored."""
    RESTORED = "restored"
    """By the controller, from what it had kept."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One session as the ledger holds it. Times are unix seconds, durations seconds, money micro-dollars."""

    id: str
    controller: bytes
    """32-byte sr25519 public key of the phone."""
    state: SessionState
    tier: TierName
    paid_s: float
    """Seconds bought so far, extensions included."""
    amount_usd_micros: int
    network: str
    payment_id: str
    created_at: float
    active_at: float | None = None
    ended_at: float | None = None
    end_reason: EndReason | None = None
    error: str | None = None
    used_s: float = 0.0
    """Paid time used up as of `counted`."""
    counted: Instant | None = None
    """None while no paid time runs."""
    pending_extensions: int = 0
    node_token: str | None = None
    node_endpoint: str | None = None
    node_hotkey: bytes | None = None
    launch_attempts: int = 0
    crashes: int = 0
    quarantined_at: float | None = None
    node_store: str | None = None
    """Names what holds the node's memory; None until a node serves."""
    emptied_at: float | None = None
    """When the node last began again with an empty memory."""
    restored_at: float | None = None
    """When the controller last said that it had restored what was lost then; None since a later loss."""


class RunningSession(msgspec.Struct, frozen=True, array_like=True):
    """A session that a node serves, and where the node is: all that watching it takes."""

    session_id: str
    state: SessionState
    token: str
    endpoint: str
    hotkey: bytes | None
    """The node's public key, None while it has none."""
    quarantined: bool


class EventRecord(msgspec.Struct, frozen=True):
    """One row of a session's history; ids rise over all sessions."""

    id: int
    session_id: str
    at: float
    event: str
    data: str
    """JSON object."""
