"""Gauges that are computed at each scrape: counts in the ledger, ages, and the supervision tree."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from sqlalchemy import Connection

from actors import NodeInfo
from engram.chain.sync.gauges import count_changes, measure
from engram.chain.sync.subnets import Subnets
from engram.gateway.feed import EventFeed
from engram.ledger import Ledger
from engram.payments import RefundState
from engram.payments import records as payment_records
from engram.payments import rules as payment_rules
from engram.provisioning import records as node_records
from engram.provisioning.backends import Backends
from engram.relay import records as relay_records
from engram.sessions import SessionState, counts
from engram.sessions import records as session_records
from engram.telemetry.metrics import Metrics

TREE_DEPTH = 3
"""Deeper children are counted under their supervisor, because their names are ids."""


def gauges(
    metrics: Metrics,
    ledger: Ledger,
    subnets: Subnets,
    feed: EventFeed,
    backends: Backends,
    tree: Callable[[], Iterable[NodeInfo]],
) -> Callable[[], Awaitable[None]]:
    """Return a function to await before each scrape (it raises LedgerError), and start to count chain changes."""
    count_changes(metrics, subnets)

    async def refresh() -> None:
        await ledger.read(lambda connection: _from_ledger(metrics, backends.names, connection))
        measure(metrics, subnets)
        for standing in backends.standings:
            metrics.backend_places.labels(standing.name).set(standing.places)
            metrics.backend_up.labels(standing.name).set(standing.answers)
        metrics.http_event_streams.labels("gateway").set(feed.open_streams)
        depths: Counter[str] = Counter()
        for node in tree():
            depths["/".join(node.path.split("/")[:TREE_DEPTH])] += node.mailbox_depth or 0
        for path, depth in depths.items():
            metrics.actor_mailbox.labels(path).set(depth)

    return refresh


def _from_ledger(metrics: Metrics, backends: Iterable[str], connection: Connection) -> None:
    by_state = counts.by_state(connection)
    for state in SessionState:
        metrics.sessions.labels(state).set(by_state.get(state, 0))
    by_payment = payment_records.count_by_state(connection)
    for open_state in payment_rules.OPEN:
        metrics.payments_open.labels(open_state).set(by_payment.get(open_state, 0))
    by_refund = payment_records.refunds_by_state(connection)
    for refund_state in RefundState:
        parts, units = by_refund.get(refund_state, (0, 0))
        metrics.refunds.labels(refund_state).set(parts)
        metrics.refunds_usd.labels(refund_state).set(units / 1_000_000)
    metrics.quarantined.labels("sessions").set(session_records.count_quarantined(connection))
    metrics.quarantined.labels("payments").set(payment_records.count_quarantined(connection))
    by_backend = node_records.count_by_backend(connection)
    for backend in backends:
        metrics.nodes.labels(backend).set(by_backend.get(backend, 0))
    for entry_state, waiting in relay_records.count_by_state(connection).items():
        metrics.relay_entries.labels(entry_state).set(waiting)
