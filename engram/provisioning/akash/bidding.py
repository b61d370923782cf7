"""Which bid is taken, what a provider's past counts for, and when a node is placed again. Pure.

A failure of a provider costs it a strike, and strikes halve every six hours; each strike keeps it from being chosen for
longer. Many failures at once are one outage, and one strike.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from engram.provisioning.akash.model import PICO, Bid, Deployment, DeploymentState, ProviderMemory, blocks

HALF_LIFE_S = 6 * 3600.0
ONE_OUTAGE_S = 300.0
"""Failures of a provider this close together are one outage."""
BLACKLIST_S = 1_800.0
BLACKLIST_MAX_S = 24 * 3600.0
NOTICE_WORTH = 0.05
"""A provider that gives an hour's notice may cost this share more."""
RESERVE = 1.05
"""Blocks are not made at an exact rate: the escrow is this much larger than the session needs."""


class BidLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What bids are held against: who is out, and how providers did."""

    now: float
    memories: Mapping[str, ProviderMemory]
    wanted_notice_s: float = 3600.0
    left: frozenset[str] = frozenset()
    """Providers that the session's node was taken away from: they are chosen again only when no one else bids."""


def acceptable(bids: Iterable[Bid], row: Deployment, limits: BidLimits) -> list[Bid]:
    """Return the bids that may be taken: in uact, within the ceiling, of a provider that is not out."""
    return [
        bid
        for bid in bids
        if bid.denom == "uact"
        and 0 < bid.price <= row.ceiling
        and bid.provider not in row.excluded
        and not is_blacklisted(limits.memories.get(bid.provider), limits.now)
    ]


def best(bids: Sequence[Bid], limits: BidLimits) -> Bid:
    """Return the cheapest bid, where past failures make a provider dearer and notice makes it cheaper.

    A provider that the session has left comes last: what it called a running node was never healthy, say.
    """

    def weight(bid: Bid) -> tuple[bool, float, str, int]:
        memory = limits.memories.get(bid.provider)
        strikes = 0.0 if memory is None else strikes_at(memory, limits.now)
        notice = 0.0 if bid.reclaim_s >= limits.wanted_notice_s else NOTICE_WORTH
        return bid.provider in limits.left, bid.price * (1.0 + strikes) * (1.0 + notice), bid.provider, bid.bseq

    return min(bids, key=weight)


def strikes_at(memory: ProviderMemory, now: float) -> float:
    """Return the provider's strikes, decayed."""
    return memory.strikes * math.exp2(-max(0.0, now - memory.struck_at) / HALF_LIFE_S)


def is_blacklisted(memory: ProviderMemory | None, now: float) -> bool:
    """Return whether the provider is kept from being chosen now."""
    return memory is not None and now < memory.blacklisted_until


def after_failure(memory: ProviderMemory, reason: str, now: float) -> ProviderMemory:
    """Return the memory after a failure; another one of the same outage adds no strike."""
    failed = msgspec.structs.replace(memory, failures=memory.failures + 1, last_failure=reason[:200])
    if memory.strikes and now - memory.struck_at < ONE_OUTAGE_S:
        return failed
    strikes = strikes_at(memory, now) + 1.0
    out_s = min(BLACKLIST_MAX_S, BLACKLIST_S * 2.0 ** (strikes - 1.0))
    return msgspec.structs.replace(failed, strikes=strikes, struck_at=now, blacklisted_until=now + out_s)


def after_success(memory: ProviderMemory) -> ProviderMemory:
    """Return the memory after a node became ready there."""
    return msgspec.structs.replace(memory, successes=memory.successes + 1)


def ceiling(setting_uact_per_block: float, usd_micros_per_hour: int, blocks_per_hour: float) -> int:
    """Return the highest price accepted for a tier in picoACT a block: the setting's, and never more than the tier
    sells for (1 ACT is worth 1 USD).

    >>> ceiling(30.0, 100_000, 588.5), ceiling(30.0, 5_885, 588.5)
    (30000000, 10000000)
    """
    return min(int(setting_uact_per_block * PICO), int(usd_micros_per_hour * PICO / blocks_per_hour))


def escrow_uact(price: int, seconds: float, min_deposit_uact: int) -> int:
    """Return the deposit that pays `price` (picoACT a block) for so long, in uact: the escrow ends with the session.

    >>> escrow_uact(8_653_000, 3600.0, 500_000), escrow_uact(30_000_000, 72 * 3600.0, 500_000)
    (500000, 1334781)
    """
    return max(min_deposit_uact, -int(-price * blocks(seconds) * RESERVE // PICO))


def owed_uact(row: Deployment, now: float) -> int:
    """Return what the escrow of a deployment is still to be given for its session, in uact: by its price, or by the
    highest one that is accepted until a bid is taken. Nothing once it is to be closed.

    All of it, whatever an escrow may hold at once: what does not fit in now is deposited as the escrow drains.
    """
    if row.state in (DeploymentState.CLOSING, DeploymentState.CLOSED):
        return 0
    price = row.ceiling if row.price is None else row.price
    left = row.deposit_uact * PICO - price * blocks(now - row.created_at)
    return max(0, escrow_uact(price, row.ends_at - now, 0) - left // PICO)


class Attempt(msgspec.Struct, frozen=True):
    """A deployment of the node that came to nothing."""

    reason: str
    wide: bool
    at: float


class Plan(msgspec.Struct, frozen=True):
    """Place the node again."""

    wide: bool


class GiveUp(msgspec.Struct, frozen=True):
    """Place it no more."""

    reason: str
    for_good: bool


ATTEMPTS = 3
ATTEMPTS_WITHIN_S = 1_800.0
HOPELESS = frozenset({"manifest_rejected", "refused", "no_funds"})


def plan(attempts: Sequence[Attempt], now: float) -> Plan | GiveUp:
    """Return how the node is placed next, given what came to nothing lately; the last attempt stands last.

    An order without bids is widened once; another provider is tried at most twice.
    """
    recent = [attempt for attempt in attempts if now - attempt.at < ATTEMPTS_WITHIN_S]
    if not recent:
        return Plan(wide=False)
    last = recent[-1]
    if last.reason in HOPELESS:
        return GiveUp(last.reason, for_good=True)
    if last.reason == "no_bids" and last.wide:
        return GiveUp(last.reason, for_good=True)
    if len(recent) >= ATTEMPTS:
        return GiveUp(last.reason, for_good=True)
    return Plan(wide=last.wide or last.reason == "no_bids")
