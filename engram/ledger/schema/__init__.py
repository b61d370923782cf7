"""Every table of the ledger, one module an area."""

from engram.ledger.schema._base import metadata
from engram.ledger.schema._facilitator import play_accounts, play_authorizations
from engram.ledger.schema._meta import meta
from engram.ledger.schema._payments import answered_requests, payments, refunds
from engram.ledger.schema._relay import relay_log, relay_outbox
from engram.ledger.schema._sessions import node_keys, nodes, paid_clock, session_counts, session_events, sessions

__all__ = [
    "answered_requests",
    "meta",
    "metadata",
    "node_keys",
    "nodes",
    "paid_clock",
    "payments",
    "play_accounts",
    "play_authorizations",
    "refunds",
    "relay_log",
    "relay_outbox",
    "session_counts",
    "session_events",
    "sessions",
]
