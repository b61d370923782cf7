"""What a node reports of itself, as of one poll."""

import msgspec

from engram.api.node_model import NodeStats


class Sample(msgspec.Struct, frozen=True):
    """One answer of a node."""

    stats: NodeStats
    at: float
    """When it came, on the monotonic clock the poller was given."""


class PollTarget(msgspec.Struct, frozen=True, array_like=True):
    """A running session and where its node is."""

    session_id: str
    endpoint: str
    degraded: bool
    hotkey: bytes | None = None
    """The node's public key, as the ledger has it."""
