"""Nodes: the order for one, what a backend reports of it, what the ledger holds of it."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from engram.sessions import Tier, TierName


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is to be. The token makes a launch idempotent and begins with the id of this ledger."""

    token: str
    session_id: str
    tier: Tier
    controller: bytes
    """32-byte public key that alone may administer the node."""
    hotkey: bytes
    """32-byte public key of the node itself."""
    hotkey_file: str
    port: int | None
    """The port held for it in the ledger; None where the backend finds one."""
    ends_at: float
    """Unix time at which the node ends by itself unless it is extended."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend knows of a node."""

    token: str
    session_id: str
    endpoint: str
    """Base URL, without a slash at the end."""
    alive: bool
    """False: it does not run, but what it stored is still there (or has not been removed yet)."""
    reference: str = ""
    """The backend's own name for it, JSON; for the operator and the ledger."""
    store: str = ""
    """Names what holds its memory, where a launch of the same token may begin with another, empty one."""


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend can hold at once, and which of a tier's limits it cannot enforce."""

    backend: str
    places: int
    """Nodes at once."""
    first_port: int | None = None
    """The ledger allocates ports from here (`port_count` of them); None: the backend finds its own."""
    port_count: int = 0
    not_enforced: tuple[str, ...] = ()
    is_elsewhere: bool = False
    """Whether its machines are others' and a launch takes minutes: it waits for no turn, and is given up as soon as its
    session changes."""
    hourly_usd_micros: Mapping[TierName, int] = msgspec.field(default_factory=dict)
    """What an hour of a tier costs the operator there, in millionths of a US dollar; a tier that is left out costs
    nothing."""
    spare_usd_micros: int | None = None
    """What is left to pay for nodes besides those of the `paid_sessions`; None: no account limits them."""
    paid_sessions: frozenset[str] = frozenset()
    """Sessions whose node's whole time is paid, or set aside for."""

    def cost_usd_micros(self, tier: TierName, seconds: float) -> float:
        """Return what a node of this tier costs the operator there for so long."""
        return self.hourly_usd_micros.get(tier, 0) * seconds / 3600.0

    def places_for(self, tier: TierName, seconds: float) -> int:
        """Return how many nodes there may be at once if the next ones are of this tier and run for so long.

        >>> offers = Offers(
        ...     backend="a",
        ...     places=9,
        ...     paid_sessions=frozenset({"s1", "s2"}),
        ...     spare_usd_micros=250,
        ...     hourly_usd_micros={TierName.PRO: 100},
        ... )
        >>> offers.places_for(TierName.PRO, 3600.0), offers.places_for(TierName.PRO, 36_000.0)
        (4, 2)
        """
        cost = self.cost_usd_micros(tier, seconds)
        if self.spare_usd_micros is None or cost <= 0:
            return self.places
        return min(self.places, len(self.paid_sessions) + int(max(0, self.spare_usd_micros) / cost))


class NodeState(StrEnum):
    """A node in the ledger. Its port is held until it is gone."""

    LAUNCHING = "launching"
    RUNNING = "running"
    GONE = "gone"


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A node as the ledger holds it."""

    token: str
    session_id: str
    backend: str
    state: NodeState
    port: int | None
    reference: str | None
    hotkey: bytes | None
    created_at: float
    gone_at: float | None = None


class NodeKey(msgspec.Struct, frozen=True, kw_only=True):
    """A miner hotkey of the pool; `path` is where its wallet file was when it joined (see `node_keys.file_of`)."""

    public_key: bytes
    path: str
    source: str
    added_at: float
    retired_at: float | None = None
    session_id: str | None = None
    """Who leases it."""
    leased_at: float | None = None
