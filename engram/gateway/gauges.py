"""Gauges that are read at each scrape instead of being kept: counts in the ledger, ages, and the tree."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from sqlalchemy import Connection, func, select

from actors import NodeInfo
from engram.chain.sync.gauges import count_changes, measure
from engram.chain.sync.subnets import Subnets
from engram.gateway.feed import EventFeed
from engram.ledger import Ledger
from engram.ledger.schema import nodes, payments, relay_outbox, sessions
from engram.payments import RefundState
from engram.payments import records as payment_records
from engram.payments import rules as payment_rules
from engram.sessions import SessionState
from engram.sessions import records as session_records
from engram.telemetry.metrics import Metrics

TREE_DEPTH = 3
"""Children further down are counted with their supervisor: their names are ids."""


def gauges(
    metrics: Metrics, ledger: Ledger, subnets: Subnets, feed: EventFeed, tree: Callable[[], Iterable[NodeInfo]]
) -> Callable[[], Awaitable[None]]:
    """What is to be awaited before each scrape (raises LedgerError); changes on the chain are counted from now on."""
    count_changes(metrics, subnets)

    async def refresh() -> None:
        await ledger.read(lambda connection: _from_ledger(metrics, connection))
        measure(metrics, subnets)
        metrics.http_event_streams.labels("gateway").set(feed.open_streams)
        depths: Counter[str] = Counter()
        for node in tree():
            depths["/".join(node.path.split("/")[:TREE_DEPTH])] += node.mailbox_depth or 0
        for path, depth in depths.items():
            metrics.actor_mailbox.labels(path).set(depth)

    return refresh


def _from_ledger(metrics: Metrics, connection: Connection) -> None:
    by_state = session_records.count_by_state(connection)
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
    for area, table in (("sessions", sessions), ("payments", payments)):
        count = select(func.count()).select_from(table).where(table.c.quarantined_at.is_not(None))
        metrics.quarantined.labels(area).set(connection.execute(count).scalar_one())
    living = select(nodes.c.backend, func.count()).where(nodes.c.state != "gone").group_by(nodes.c.backend)
    for backend, running in connection.execute(living):
        metrics.nodes.labels(backend).set(running)
    outbox = select(relay_outbox.c.state, func.count()).group_by(relay_outbox.c.state)
    for entry_state, waiting in connection.execute(outbox):
        metrics.relay_entries.labels(entry_state).set(waiting)
