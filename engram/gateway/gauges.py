"""Gauges that are computed at each scrape: counts in the ledger, ages, and the supervision tree."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import product
from typing import Final

from sqlalchemy import Connection

from actors import NodeInfo
from engram.chain.sync.gauges import count_changes, measure
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock
from engram.gateway.feed import EventFeed
from engram.ledger import Ledger
from engram.payments import records as payment_records
from engram.payments import rules as payment_rules
from engram.provisioning import records as node_records
from engram.provisioning.backends import Backends
from engram.relay import gauges as relay
from engram.sessions import counts
from engram.sessions import records as session_records
from engram.telemetry.metrics import Metrics

LAUNCH_OUTCOMES: Final = ("healthy", "refused", "rejected", "unreached", "unanswered", "unhealthy")
TREE_DEPTH: Final = 3
"""Deeper children are counted under their supervisor, because their names are ids."""


def gauges(
    metrics: Metrics,
    ledger: Ledger,
    subnets: Subnets,
    feed: EventFeed,
    backends: Backends,
    tree: Callable[[], Iterable[NodeInfo]],
    clock: Clock,
) -> Callable[[], Awaitable[None]]:
    """Return a function to await before each scrape (it raises LedgerError), and start to count chain changes."""
    count_changes(metrics, subnets)
    for backend, outcome in product(backends.names, LAUNCH_OUTCOMES):
        metrics.launches.labels(backend, outcome)
        metrics.launch_seconds.labels(backend)

    async def refresh() -> None:
        await ledger.read(lambda connection: _from_ledger(metrics, backends.names, clock.now(), connection))
        measure(metrics, subnets)
        metrics.backend_places.show({each.name: each.places for each in backends.standings})
        metrics.backend_up.show({each.name: each.answers for each in backends.standings})
        metrics.http_event_streams.labels("gateway").set(feed.open_streams)
        depths: Counter[str] = Counter()
        for node in tree():
            depths["/".join(node.path.split("/")[:TREE_DEPTH])] += node.mailbox_depth or 0
        metrics.actor_mailbox.show(depths)

    return refresh


def _from_ledger(metrics: Metrics, backends: Iterable[str], now: float, connection: Connection) -> None:
    metrics.sessions.show(counts.by_state(connection))
    by_payment = payment_records.count_by_state(connection)
    metrics.payments_open.show({state: by_payment.get(state, 0) for state in payment_rules.OPEN})
    metrics.payments_oldest.show(_ages(payment_records.oldest(connection, payment_rules.OPEN), now))
    by_refund = payment_records.refunds_by_state(connection)
    metrics.refunds.show({state: parts for state, (parts, _) in by_refund.items()})
    metrics.refunds_usd.show({state: units / 1_000_000 for state, (_, units) in by_refund.items()})
    metrics.refunds_oldest.show(_ages(payment_records.oldest_refunds(connection), now))
    metrics.quarantined.show(
        {
            "sessions": session_records.count_quarantined(connection),
            "payments": payment_records.count_quarantined(connection),
        }
    )
    by_backend = node_records.count_by_backend(connection)
    metrics.nodes.show({backend: by_backend.get(backend, 0) for backend in backends})
    relay.measure(metrics, connection, now)


def _ages(oldest: Mapping[str, float], now: float) -> dict[str, float]:
    return {state: max(0.0, now - at) for state, at in oldest.items()}
