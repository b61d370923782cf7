"""The relay in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from engram.relay.records.adoption import adopt
from engram.relay.records.dead_letters import dlq_discard, dlq_list, dlq_park, dlq_retry, dlq_retry_all, dlq_show
from engram.relay.records.negotiated import has_negotiated, note_negotiated
from engram.relay.records.outbox import (
    DELIVERED_KEPT_S,
    LOG_KEPT_S,
    OPEN_BOUND,
    PURGED_AT_ONCE,
    claim,
    due,
    enqueue,
    interrupted,
    last_delivered,
    next_attempt_at,
    postpone,
    purge,
    settle,
    withdraw,
)
from engram.relay.records.reports import failures_in_a_row, heads, log_lines, oldest, status
from engram.relay.records.signatures import may_sign
from engram.relay.records.streams import bring_forward, count, count_by_state, end_long_waits, stream_name, streams

__all__ = [
    "DELIVERED_KEPT_S",
    "LOG_KEPT_S",
    "OPEN_BOUND",
    "PURGED_AT_ONCE",
    "adopt",
    "bring_forward",
    "claim",
    "count",
    "count_by_state",
    "dlq_discard",
    "dlq_list",
    "dlq_park",
    "dlq_retry",
    "dlq_retry_all",
    "dlq_show",
    "due",
    "end_long_waits",
    "enqueue",
    "failures_in_a_row",
    "has_negotiated",
    "heads",
    "interrupted",
    "last_delivered",
    "log_lines",
    "may_sign",
    "next_attempt_at",
    "note_negotiated",
    "oldest",
    "postpone",
    "purge",
    "settle",
    "status",
    "stream_name",
    "streams",
    "withdraw",
]
