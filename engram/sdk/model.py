"""What the gateway and a node answer. Fields this version does not know are ignored."""

from collections.abc import Mapping
from typing import Final

import msgspec

ENDED: Final = frozenset({"stopped", "expired", "failed"})


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """A size of node that can be bought."""

    tier: str
    cpu_vcpu: float
    memory_gb: float
    storage_gb: float
    price_usd_per_hour: float


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A compute session. Times are unix seconds."""

    session_id: str
    controller_hotkey: str
    status: str
    """payment_pending, provisioning, active, degraded, stopping, stopped, expired or failed."""
    created_at: float
    expires_at: float
    remaining_seconds: float
    node_endpoint: str | None = None
    node_hotkey: str | None = None
    payment_tx: str | None = None
    payment_id: str | None = None
    network: str = ""
    amount_paid_usd: float = 0.0
    tier: str = ""
    stats: dict[str, object] = {}
    """What the gateway last learned from the node; empty before the first poll."""
    stats_age_s: float | None = None
    error: str | None = None
    end_reason: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the session is over for good."""
        return self.status in ENDED


class Stopped(msgspec.Struct, frozen=True):
    """The answer to a stop."""

    stopped: bool
    session_id: str


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as the gateway sees it. `status` is reserved, settling, settled, rejected, unknown, void, refund_due,
    refunding or refunded."""

    payment_id: str
    session_id: str
    kind: str
    status: str
    amount_usd: float
    network: str
    transaction: str | None = None
    reason: str | None = None


class Identity(msgspec.Struct, frozen=True):
    """The gateway's own key, which signs its answers."""

    hotkey: str


class Event(msgspec.Struct, frozen=True):
    """One server-sent event: `state`, `stats` or `end`."""

    event: str
    data: dict[str, object]
    id: str | None = None


class Hit(msgspec.Struct, frozen=True):
    """A memory that was found. `score` is the cosine similarity, -1 to 1."""

    cid: str
    score: float
    metadata: dict[str, object] = {}
    trust_tier: str = ""
    kept_text: str | None = msgspec.field(default=None, name="text")
    """The text that it was made from, where the node keeps and shows it: to its owner and to the node's controller."""

    @property
    def text(self) -> str:
        """The metadata `text`, else the text that the memory was made from; empty when there is neither."""
        return _text(self.metadata, self.kept_text)


class Memory(msgspec.Struct, frozen=True):
    """A stored memory by its content id; texts as in a Hit."""

    cid: str
    metadata: dict[str, object] = {}
    kept_text: str | None = msgspec.field(default=None, name="text")

    @property
    def text(self) -> str:
        """The metadata `text`, else the text that the memory was made from; empty when there is neither."""
        return _text(self.metadata, self.kept_text)


def _text(metadata: Mapping[str, object], kept: str | None) -> str:
    text = metadata.get("text")
    return text if isinstance(text, str) else kept or ""
