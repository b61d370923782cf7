"""The relay in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from engram.relay.records.dead_letters import dlq_discard, dlq_list, dlq_retry, dlq_retry_all, dlq_show
from engram.relay.records.outbox import (
    DELIVERED_KEPT_S,
    LOG_KEPT_S,
    OPEN_BOUND,
    claim,
    due,
    enqueue,
    interrupted,
    next_attempt_at,
    postpone,
    purge,
    settle,
    withdraw,
)
from engram.relay.records.reports import heads, log_lines, oldest, status
from engram.relay.records.signatures import may_sign
from engram.relay.records.streams import count, count_by_state, streams

__all__ = [
    "DELIVERED_KEPT_S",
    "LOG_KEPT_S",
    "OPEN_BOUND",
    "claim",
    "count",
    "count_by_state",
    "dlq_discard",
    "dlq_list",
    "dlq_retry",
    "dlq_retry_all",
    "dlq_show",
    "due",
    "enqueue",
    "heads",
    "interrupted",
    "log_lines",
    "may_sign",
    "next_attempt_at",
    "oldest",
    "postpone",
    "purge",
    "settle",
    "status",
    "streams",
    "withdraw",
]
