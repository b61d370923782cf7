"""Converts records of the ledger to the answers that clients see."""

from collections.abc import Mapping

import msgspec

from engram.api.gateway_model import SessionAnswer, TierAnswer, TiersAnswer
from engram.hotkeys import ss58
from engram.sessions import Instant, Session, Tier, TierName, rules


class TimedStats(msgspec.Struct, frozen=True):
    """The newest stats of a node, and when they were read (this process's monotonic clock)."""

    stats: Mapping[str, object]
    at: float


def session_answer(
    session: Session, now: Instant, monotonic: float, *, transaction: str | None = None, stats: TimedStats | None = None
) -> SessionAnswer:
    """Return the session as its controller sees it at `now`; the age of `stats` is counted to `monotonic`."""
    return SessionAnswer(
        session_id=session.id,
        controller_hotkey=ss58.encode(session.controller),
        status=str(session.state),
        created_at=session.created_at,
        expires_at=rules.expires_at(session, now),
        node_endpoint=session.node_endpoint,
        node_hotkey=None if session.node_hotkey is None else ss58.encode(session.node_hotkey),
        payment_tx=transaction,
        network=session.network,
        amount_paid_usd=session.amount_usd_micros / 1_000_000,
        stats={} if stats is None else dict(stats.stats),
        error=session.error,
        remaining_seconds=rules.remaining_s(session, now),
        tier=str(session.tier),
        payment_id=session.payment_id,
        end_reason=None if session.end_reason is None else str(session.end_reason),
        stats_age_s=None if stats is None else round(max(0.0, monotonic - stats.at), 3),
        emptied_at=session.emptied_at,
        restored_at=session.restored_at,
        memory=str(rules.memory(session)),
    )


def tiers_answer(tiers: Mapping[TierName, Tier]) -> TiersAnswer:
    """Return the tiers on sale."""
    return TiersAnswer(
        tiers=[
            TierAnswer(
                tier=str(tier.name),
                cpu_vcpu=tier.cpu_vcpu,
                memory_gb=tier.memory_gb,
                storage_gb=tier.storage_gb,
                price_akt_per_hour=tier.price_akt_per_hour,
                price_usd_per_hour=tier.usd_per_hour,
            )
            for tier in tiers.values()
        ]
    )
