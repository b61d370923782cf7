"""What a node reports of itself, as of one poll."""

import msgspec


class NodeStats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A node's /stats; null: not known to the node either. Rates are shares of 1, times milliseconds."""

    status: str = "ok"
    vectors: int = 0
    peers: int | None = None
    uid: int | None = None
    queries_today: int = 0
    p50_latency_ms: float | None = None
    proof_rate: float | None = None
    uptime_pct: float | None = None
    block: int | None = None
    avg_score: float | None = None
    hotkey: str | None = None


class Sample(msgspec.Struct, frozen=True):
    """One answer of a node."""

    stats: NodeStats
    at: float
    """When it came, on the monotonic clock the poller was given."""


class Target(msgspec.Struct, frozen=True, array_like=True):
    """A running session and where its node is."""

    session_id: str
    endpoint: str
    degraded: bool
    hotkey: bytes | None = None
    """The node's public key, as the ledger has it."""
