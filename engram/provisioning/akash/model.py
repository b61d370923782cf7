"""Deployments on Akash: what the ledger holds of each, and the amounts that the network counts in."""

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from enum import StrEnum

import msgspec

PICO = 1_000_000
"""Prices are counted in picoACT (a millionth of a uact) a block: the network quotes fractions of a uact."""
BLOCK_S = 6.117
"""Mean time between blocks: 588.5 blocks an hour (provider's price script)."""
BLOCKS_PER_HOUR = 588.5
SUCCESSOR = ".next"
"""Ends the token of a deployment that is to take over another one's."""


class DeploymentState(StrEnum):
    """Where a deployment is. The arrows between them are in rules.py."""

    CREATING = "creating"
    """Its create transaction is committed to; whether the chain has it is not known yet."""
    BIDDING = "bidding"
    """On chain; providers bid."""
    LEASING = "leasing"
    """A bid is chosen; whether the chain has the lease is not known yet."""
    DELIVERING = "delivering"
    """The lease is on chain; the provider has not taken the manifest yet."""
    STARTING = "starting"
    """The provider starts the node."""
    SERVING = "serving"
    CLOSING = "closing"
    """Nothing of it may be left; its close transaction is committed to."""
    CLOSED = "closed"
    """Seen to be closed, or never to have been on chain."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as the ledger holds it. Prices are in picoACT a block, deposits in uact, times unix seconds."""

    dseq: int
    token: str
    """Launch token of its node. At most one deployment of a token is not closed."""
    session_id: str
    state: DeploymentState
    hash: bytes
    """SHA-256 of the sorted manifest, 32 bytes: unique, since the manifest bears the launch token."""
    manifest: bytes
    """The manifest as it is sent, JSON."""
    wide: bool
    """Placed anywhere: without required attributes and a reclamation window."""
    ceiling: int
    """The highest price that is accepted."""
    deposit_uact: int
    """Deposited so far."""
    created_at: float
    state_since: float
    ends_at: float
    """When the session's node ends by itself, as known now."""
    gseq: int = 1
    oseq: int = 1
    bseq: int = 0
    provider: str | None = None
    price: int | None = None
    excluded: tuple[str, ...] = ()
    """Providers of this order whose bids were gone when a lease was asked for."""
    endpoint: str | None = None
    tries: int = 0
    """Transactions in this state that the chain never took."""
    reason: str | None = None
    """Why it is closed: the first reason given."""
    stopped_at: float | None = None
    """The gateway wants it restarted, and took it out of service until then."""
    restarts: int = 0
    """Restarts wanted since it last stayed in service."""
    lost_at: float | None = None
    """The chain ended its lease."""
    reclaim_at: float | None = None
    """The provider takes its machine back at this time."""
    logs: str = ""
    """The last lines of a node that never became ready."""
    closed_at: float | None = None
    cost_uact: int | None = None
    """What the escrow paid, once it is closed."""


class Bid(msgspec.Struct, frozen=True, kw_only=True):
    """An offer of a provider for an order."""

    provider: str
    gseq: int
    oseq: int
    bseq: int
    price: int
    """picoACT a block."""
    denom: str
    reclaim_s: float = 0.0
    """Notice that the provider gives before it takes its machine back; 0: none."""


class ProviderMemory(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider did."""

    provider: str
    strikes: float = 0.0
    """Failures, halved every `HALF_LIFE_S`."""
    struck_at: float = 0.0
    successes: int = 0
    failures: int = 0
    last_failure: str = ""
    blacklisted_until: float = 0.0


def pico_of(amount: str) -> int:
    """Return a decimal amount of uact in picoACT, rounded up.

    Negative amounts are kept: an overdrawn escrow shows them. Raises ValueError.

    >>> pico_of("8.653000000000000000"), pico_of("-0.5"), pico_of("0.0000000001")
    (8653000, -500000, 1)
    """
    try:
        value = Decimal(amount)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or abs(value) >= Decimal(10) ** 24:
        raise ValueError(f"{amount[:40]!r} is not a decimal amount below 10^24")
    return int((value * PICO).to_integral_value(ROUND_CEILING))


def blocks(seconds: float) -> int:
    """Return how many blocks are made in that time, rounded up; 0 for a time that is over.

    >>> blocks(6.117), blocks(3600.0), blocks(-1.0)
    (1, 589, 0)
    """
    return max(0, -int(-seconds // BLOCK_S))
