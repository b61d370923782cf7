"""Answers of the gateway and of a node. Fields unknown to this version are ignored."""

from collections.abc import Mapping

import msgspec

from engram.api.gateway_model import IdentityAnswer as Identity
from engram.api.gateway_model import LinkPaymentAnswer as OrderPayment
from engram.api.gateway_model import OrderAnswer as PayOrder
from engram.api.gateway_model import OrderStatusAnswer as OrderStatus
from engram.api.gateway_model import PaymentAnswer as Payment
from engram.api.gateway_model import SessionAnswer as Session
from engram.api.gateway_model import SpendingAnswer as Spending
from engram.api.gateway_model import StoppedAnswer as Stopped
from engram.api.gateway_model import TierAnswer as Tier

__all__ = [
    "Event",
    "Hit",
    "Identity",
    "Memory",
    "OrderPayment",
    "OrderStatus",
    "PayOrder",
    "Payment",
    "Session",
    "Spending",
    "Stopped",
    "Tier",
]


class Event(msgspec.Struct, frozen=True):
    """One server-sent event: `state`, `stats` or `end`."""

    event: str
    data: dict[str, object]
    id: str | None = None


class Hit(msgspec.Struct, frozen=True):
    """A memory that was found. `score` is the cosine similarity, -1 to 1.

    `relevance` is what the hits are ordered by, where a mode, diversity or recency was asked for.
    """

    cid: str
    score: float
    metadata: dict[str, object] = {}
    trust_tier: str = ""
    kept_text: str | None = msgspec.field(default=None, name="text")
    """The original text, where the node keeps it and shows it: to the owner and to the node's controller."""
    relevance: float | None = None

    @property
    def text(self) -> str:
        """The metadata `text`, else the text that the memory was made from; empty when there is neither."""
        return _text(self.metadata, self.kept_text)


class Memory(msgspec.Struct, frozen=True):
    """A stored memory with its content id; texts as in a Hit.

    `key` names the fact that it is about, `expires_at` (unix seconds) is when searches no longer find it, and
    `superseded_by` the memory that took its place.
    """

    cid: str
    metadata: dict[str, object] = {}
    kept_text: str | None = msgspec.field(default=None, name="text")
    key: str | None = None
    expires_at: float | None = None
    superseded_by: str | None = None

    @property
    def text(self) -> str:
        """The metadata `text`, else the text that the memory was made from; empty when there is neither."""
        return _text(self.metadata, self.kept_text)


def _text(metadata: Mapping[str, object], kept: str | None) -> str:
    text = metadata.get("text")
    return text if isinstance(text, str) else kept or ""
