"""What the gateway's surface needs of the rest; engram/roles puts it together."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from config.model import Settings
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock, Ids
from engram.gateway.feed import EventFeed
from engram.gateway.pricing import Shop
from engram.gateway.tickets import Tickets
from engram.gateway.views import NodeStats
from engram.hotkeys import Keypair
from engram.ledger import Ledger
from engram.sessions import Instants
from engram.telemetry.metrics import Metrics

Probe = Callable[[], Awaitable[str]]
"""What is wrong with a part, in a few words; empty when nothing is."""


class StatsView(Protocol):
    """What was last learned from the nodes."""

    def latest(self, session_id: str) -> NodeStats | None:
        """The newest stats of a session's node, None before the first."""
        ...


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that handlers use."""

    settings: Settings
    public_url: Callable[[], str]
    """Base URL that clients see, no slash at its end; known once the listener is bound."""
    ledger: Ledger
    keypair: Keypair
    """The gateway's own key."""
    clock: Clock
    instants: Instants
    ids: Ids
    shop: Shop
    stats: StatsView
    subnets: Subnets
    feed: EventFeed
    tickets: Tickets
    metrics: Metrics
    probes: Mapping[str, Probe]
    """Asked by /ready."""
    not_enforced: Callable[[], Sequence[str]] = tuple
    """Limits of a tier that the backend cannot hold its nodes to."""
    session_changed: Callable[[str], None]
    """Hint to the provisioner that a session's facts changed; never raises."""
