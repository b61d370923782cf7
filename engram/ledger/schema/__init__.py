"""Every table of the ledger, one module an area."""

from ._base import metadata
from ._facilitator import play_accounts, play_authorizations
from ._meta import meta
from ._payments import answered_requests, payments, refunds
from ._relay import relay_log, relay_outbox
from ._sessions import node_keys, nodes, session_events, sessions

__all__ = [
    "answered_requests",
    "meta",
    "metadata",
    "node_keys",
    "nodes",
    "payments",
    "play_accounts",
    "play_authorizations",
    "refunds",
    "relay_log",
    "relay_outbox",
    "session_events",
    "sessions",
]
