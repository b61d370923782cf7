"""What the backend works with."""

from collections.abc import Callable, Mapping

import msgspec

from engram.clock import Clock
from engram.ledger import Ledger
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.provider import Providers
from engram.provisioning.akash.resources import GroupSpec
from engram.provisioning.akash.rules import Budgets
from engram.provisioning.akash.sending import Sender
from engram.provisioning.model import NodeSpec
from engram.sessions import Tier, TierName
from engram.telemetry.metrics import Metrics


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the chain and of a provider for one node."""

    manifest: bytes
    """JSON, as it is sent."""
    hash: bytes
    """SHA-256 of the sorted manifest."""
    groups: tuple[GroupSpec, ...]
    service: str
    """The node's service in the manifest."""
    port: int
    """The port that the node listens on, inside."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """For what an order is made."""

    spec: NodeSpec
    dseq: int
    wide: bool
    """Anywhere: without required attributes; an auditor must have signed all the same."""
    ceiling: int
    """The highest price, picoACT a block."""


class AkashParts(msgspec.Struct, frozen=True, kw_only=True):
    """Ports and numbers of the backend. Seconds; amounts uact or uakt."""

    ledger: Ledger
    ledger_id: str
    chain: Chain
    sender: Sender
    providers: Providers
    clock: Clock
    metrics: Metrics
    order_of: Callable[[Wish], Order]
    service: str
    port: int
    max_price: dict[TierName, float]
    """uact a block."""
    tiers: Mapping[TierName, Tier]
    places: int
    budgets: Budgets = Budgets()
    min_reclaim_s: int = 3600
    creates_per_block: int = 10
    poll_s: float = 2.0
    """Between looks at bids, manifests and statuses."""
    watch_s: float = 30.0
    """Between looks at leases and at the providers' statuses."""
    escrow_s: float = 600.0
    reconcile_s: float = 300.0
    orphan_age_s: float = 900.0
    alarm_akt: float = 10.0
    alarm_act: float = 20.0
    akt_usd: float = 1.0
    mint_akt: float = 0.0
    """AKT burned for ACT when `alarm_act` is undercut; 0: none."""
    wallet_s: float = 60.0
    probe_s: float = 600.0
    """Between looks at the versions that the chain speaks."""
    max_deposit_act: float = 50.0
    """The most that one deployment may hold in its escrow."""
