"""The dependencies of the gateway's surface, composed in engram/roles."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from config.model import Settings
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock, Ids
from engram.gateway.feed import EventFeed
from engram.gateway.pricing import Shop
from engram.gateway.views import TimedStats
from engram.hints import Hints
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import Ledger
from engram.provisioning.backends import Backends
from engram.provisioning.countersigning import Countersigner
from engram.sessions import Instants
from engram.telemetry.metrics import Metrics

Probe = Callable[[], Awaitable[str]]
"""Returns what is wrong with a part, in a few words; empty when it is fine."""


class LatestStats(Protocol):
    """The newest stats of the nodes."""

    def latest(self, session_id: str) -> TimedStats | None:
        """Return the newest stats of a session's node, None before the first."""
        ...


class NoBalance(Exception):
    """What an address owns cannot be told, or changed, now; the message says why."""


class Balances(Protocol):
    """Knows what addresses own."""

    has_faucet: bool
    """Whether play money can be given."""

    async def of(self, address: bytes) -> int | None:
        """Return atomic units, None where they cannot be known here. Raises NoBalance."""
        ...

    async def give(self, address: bytes) -> int:
        """Give play money and return what the address owns then. Raises NoBalance."""
        ...


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that handlers use."""

    settings: Settings
    public_url: Callable[[], str]
    """Returns the base URL that clients see, without a trailing slash; known once the listener is bound."""
    ledger: Ledger
    keypair: Keypair
    """The gateway's own key."""
    clock: Clock
    instants: Instants
    ids: Ids
    shop: Shop
    stats: LatestStats
    subnets: Subnets
    feed: EventFeed
    metrics: Metrics
    probes: Mapping[str, Probe]
    """The probes of /ready, by name."""
    countersigner: Countersigner
    """Signs by the hotkeys of nodes on machines of others."""
    backends: Backends
    """Where nodes run."""
    hints: Hints
    balances: Balances
    """What spending keys own."""
    node_http: HttpClient
    """Passes requests of buyers on to their nodes."""
