"""Rows and bids for tests of rules."""

from typing import Any

import msgspec

from engram.provisioning.akash.bidding import BidLimits
from engram.provisioning.akash.model import PICO, Bid, Deployment, DeploymentState, ProviderMemory

S = DeploymentState


def a_row(state: DeploymentState = S.CREATING, **changes: Any) -> Deployment:
    row = Deployment(
        dseq=1,
        token="t",
        session_id="s",
        state=state,
        hash=b"\1" * 32,
        manifest=b"[]",
        wide=False,
        ceiling=30 * PICO,
        deposit_uact=500_000,
        created_at=0.0,
        state_since=0.0,
        ends_at=3600.0,
    )
    return msgspec.structs.replace(row, **changes)


def a_bid(provider: str = "p1", price: float = 9.0, **changes: Any) -> Bid:
    bid = Bid(provider=provider, gseq=1, oseq=1, bseq=0, price=int(price * PICO), denom="uact", reclaim_s=3600.0)
    return msgspec.structs.replace(bid, **changes)


def limits(now: float = 0.0, **memories: ProviderMemory) -> BidLimits:
    return BidLimits(now=now, memories=memories)
