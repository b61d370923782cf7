"""The table of every Prometheus metric of Engram. A test compares it with the registry.

Labels have few, known values: never a hotkey, an address, a session or a path with parameters. The dashboards and alert
rules in `deploy/` are checked against this table, and `docs/metrics.md` is made from it.
"""

from itertools import product
from typing import Final, Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAGS: Final = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)
_LONG: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
_SLOW: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 240.0, 480.0)


class Metric(msgspec.Struct, frozen=True):
    """A row of the table. Times are in seconds."""

    attribute: str
    """Name of the attribute of `Metrics`."""
    kind: Kind
    name: str
    """Exported name; counters gain `_total`."""
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _FAST
    known: tuple[tuple[str, ...], ...] = ()
    """Values of the labels that exist from the start (counters, histograms) or at each setting (gauges)."""
    only_known: bool = True
    """Whether no other values than those may come, where there are any."""
    loop_only: bool = False
    """Whether it is changed only by the event loop's thread, for each request or purchase."""


def _each(*words: str) -> tuple[tuple[str, ...], ...]:
    """Return the known values of a single label.

    >>> _each("ok", "failed")
    (('ok',), ('failed',))
    """
    return tuple((word,) for word in words)


_PAYMENT_STATES: Final = _each(
    "reserved", "settling", "unknown", "settled", "rejected", "void", "refund_due", "refunding", "refunded"
)
_SALES_REASONS: Final = _each(
    "not_selling",
    "node_parts_missing",
    "price_out_of_range",
    "no_recipient",
    "no_hotkeys",
    "no_places",
    "backends_silent",
    "disk_full",
    "chain_unknown",
    "facilitator_unavailable",
    "facilitator_unsupported",
    "below_minimum",
    "no_capacity",
)
_QUORUM_VERDICTS: Final = _each(
    "signed",
    "malformed",
    "other_signer",
    "other_subnet",
    "chain_unknown",
    "no_permit",
    "not_its_turn",
    "settled",
    "not_final",
    "reorganized",
    "equivocation",
    "not_measured",
    "differs",
    "signed_another",
    "no_own_permit",
)
_JUDGED: Final = _each(
    "accepted",
    "repeated",
    "anchor_leaves",
    "anchor_root",
    "commitment_other",
    "commitment_unknown",
    "cosignature",
    "equivocation",
    "from_the_future",
    "no_permit",
    "nonce",
    "nonce_used",
    "output_hash",
    "payment_required",
    "not_final",
    "permits_unknown",
    "quorum",
    "root",
    "schema",
    "signature",
    "subnet",
    "too_old",
    "unknown_gateway",
    "too_many",
)
_DUE: Final = _each(
    "chain_stale",
    "not_registered",
    "no_permit",
    "outdated",
    "no_round",
    "no_scores",
    "too_few",
    "set",
    "unsettled",
    "refused",
    "rate_limited",
    "due",
)

TABLE: Final = (
    Metric(
        "http_requests",
        "counter",
        "engram_http_requests",
        "Answered requests.",
        ("surface", "method", "route", "status"),
        loop_only=True,
    ),
    Metric(
        "http_seconds",
        "histogram",
        "engram_http_request_seconds",
        "From the headers to the last byte of the answer.",
        ("surface", "route"),
        loop_only=True,
    ),
    Metric(
        "http_refused",
        "counter",
        "engram_http_refused",
        "Requests refused before the application.",
        ("surface", "code"),
    ),
    Metric("http_connections", "gauge", "engram_http_connections", "Open client connections.", ("surface",)),
    Metric("http_event_streams", "gauge", "engram_http_event_streams", "Open server-sent event streams.", ("surface",)),
    Metric("auth_refused", "counter", "engram_auth_refused", "Signed requests refused.", ("surface", "code")),
    Metric(
        "payments",
        "counter",
        "engram_payments",
        "Payments that entered a state.",
        ("state",),
        loop_only=True,
        known=_PAYMENT_STATES,
    ),
    Metric(
        "payments_open",
        "gauge",
        "engram_payments_open",
        "Payments not yet in a terminal state.",
        ("state",),
        known=_each("reserved", "settling", "unknown"),
    ),
    Metric(
        "payments_oldest",
        "gauge",
        "engram_payments_oldest_seconds",
        "Age of the oldest payment in a state; 0 without one.",
        ("state",),
        known=_each("reserved", "settling", "unknown"),
    ),
    Metric(
        "refunds",
        "gauge",
        "engram_refunds",
        "Parts of refunds now in a state.",
        ("state",),
        known=_each("due", "refunding", "refunded"),
    ),
    Metric(
        "refunds_usd",
        "gauge",
        "engram_refunds_usd",
        "Dollars of the refunds now in a state.",
        ("state",),
        known=_each("due", "refunding", "refunded"),
    ),
    Metric(
        "refunds_oldest",
        "gauge",
        "engram_refunds_oldest_seconds",
        "Age of the oldest part of a refund in a state; 0 without one.",
        ("state",),
        known=_each("due", "refunding"),
    ),
    Metric(
        "payment_seconds",
        "histogram",
        "engram_payment_seconds",
        "From reservation to an outcome.",
        ("outcome",),
        loop_only=True,
        known=_each("settled", "rejected", "void"),
        only_known=False,
    ),
    Metric(
        "facilitator_seconds",
        "histogram",
        "engram_facilitator_seconds",
        "Calls to the facilitator.",
        ("call", "outcome"),
        loop_only=True,
        known=(
            *product(("verify",), ("valid", "invalid", "unavailable")),
            *product(("settle",), ("notsent", "rejected", "settled", "pending", "unknown")),
            *product(("look",), ("paid", "spent", "unused", "noevidence")),
        ),
        only_known=False,
    ),
    Metric(
        "sessions",
        "gauge",
        "engram_sessions",
        "Sessions now in a state.",
        ("state",),
        known=_each(
            "payment_pending", "provisioning", "active", "degraded", "stopping", "stopped", "expired", "failed"
        ),
    ),
    Metric("launches", "counter", "engram_launches", "Launches of nodes.", ("backend", "outcome")),
    Metric("launch_seconds", "histogram", "engram_launch_seconds", "From launch to healthy.", ("backend",), _SLOW),
    Metric("nodes", "gauge", "engram_nodes", "Nodes now in existence.", ("backend",)),
    Metric(
        "nodes_orphaned",
        "gauge",
        "engram_nodes_orphaned",
        "Nodes that no session holds, at the last comparison with the backend; they are destroyed.",
        ("backend",),
    ),
    Metric(
        "akash_deployments",
        "gauge",
        "engram_akash_deployments",
        "Active deployments of the account, by this ledger (ours) and by others.",
        ("whose",),
        known=_each("ours", "foreign"),
    ),
    Metric(
        "akash_balance",
        "gauge",
        "engram_akash_balance",
        "Balance of the account; no row while it is not known.",
        ("denom",),
        known=_each("akt", "act"),
    ),
    Metric(
        "akash_spare_act",
        "gauge",
        "engram_akash_spare_act",
        "ACT that no running node still needs, below 0 where they need more; no row while it is not known.",
    ),
    Metric(
        "akash_margin",
        "gauge",
        "engram_akash_margin_ratio",
        "Share of what sessions on Akash brought, less refunds, that leases and fees did not cost, in 7 days.",
    ),
    Metric("akash_orphans", "counter", "engram_akash_orphans_closed", "Deployments closed that no session wanted."),
    Metric("backend_places", "gauge", "engram_backend_places", "Nodes that may run at once.", ("backend",)),
    Metric("backend_up", "gauge", "engram_backend_up", "1 while the backend answers.", ("backend",)),
    Metric("polls", "counter", "engram_polls", "Polls of nodes.", ("outcome",), known=_each("answered", "failed")),
    Metric(
        "introductions",
        "counter",
        "engram_node_introductions",
        "Nodes that showed a key.",
        ("verdict",),
        known=_each("hotkey", "first", "same", "replaced", "wrong_key", "old_key", "too_many_keys"),
    ),
    Metric("poll_seconds", "histogram", "engram_poll_seconds", "Polls of nodes.", ()),
    Metric(
        "quarantined",
        "gauge",
        "engram_quarantined",
        "Rows whose work crashed too often.",
        ("area",),
        known=_each("sessions", "payments"),
    ),
    Metric(
        "sales_blocked",
        "gauge",
        "engram_sales_blocked",
        "1 while this keeps anything from being sold.",
        ("reason",),
        known=_SALES_REASONS,
    ),
    Metric(
        "relay_entries",
        "gauge",
        "engram_relay_entries",
        "Entries of the relay's outbox.",
        ("state",),
        known=_each("pending", "delivered", "abandoned", "discarded", "withdrawn"),
    ),
    Metric(
        "relay_oldest",
        "gauge",
        "engram_relay_oldest_seconds",
        "Age of the oldest entry in a state; 0 without one.",
        ("state",),
        known=_each("pending", "abandoned"),
    ),
    Metric("relay_send_seconds", "histogram", "engram_relay_send_seconds", "Attempts to deliver a payload.", ()),
    Metric(
        "relay_lag_seconds",
        "histogram",
        "engram_relay_lag_seconds",
        "From the queueing of a payload to its acknowledgement.",
        (),
        _LONG,
    ),
    Metric(
        "relay_sends",
        "counter",
        "engram_relay_sends",
        "Attempts to deliver a payload.",
        ("outcome",),
        known=_each("ok", "error", "unknown"),
        only_known=False,
    ),
    Metric(
        "relay_failures_in_a_row",
        "gauge",
        "engram_relay_failures_in_a_row",
        "Attempts in a row that delivered nothing.",
    ),
    Metric(
        "relay_held_back",
        "gauge",
        "engram_relay_held_back",
        "1 while the receiver is not to be sent to, but for a try.",
    ),
    Metric("relay_withdrawn", "counter", "engram_relay_withdrawn", "Payloads of blocks that the chain has given up."),
    Metric(
        "relay_not_queued",
        "counter",
        "engram_relay_not_queued",
        "Payloads that did not reach the outbox. Anchors and bundles (`_waits`) are tried again; the rest is lost.",
        ("reason",),
        known=_each("outbox_full", "no_block", "ledger", "anchor_waits", "bundle_waits"),
    ),
    Metric(
        "relay_verdicts",
        "counter",
        "engram_relay_verdicts",
        "Proposals of others, judged.",
        ("verdict",),
        known=_QUORUM_VERDICTS,
    ),
    Metric(
        "relay_candidates",
        "counter",
        "engram_relay_candidates",
        "Own scores that were relayed with a quorum, or were not.",
        ("state",),
        known=_each("waiting", "proposed", "bundled", "settled", "withdrawn", "missed", "short"),
    ),
    Metric("relay_anchors", "counter", "engram_relay_anchors", "Roots of what was delivered, committed on the chain."),
    Metric(
        "xeris_unanchored",
        "gauge",
        "engram_xeris_unanchored",
        "Accepted payloads that are overdue and have no anchor yet.",
        ("kind",),
        known=_each("scores", "ranking", "memory"),
    ),
    Metric(
        "xeris_overdue",
        "counter",
        "engram_xeris_overdue",
        "Accepted payloads that were not anchored in time.",
        ("kind",),
        known=_each("scores", "ranking", "memory"),
    ),
    Metric("validator_rounds", "counter", "engram_validator_rounds", "Rounds that were held to their end."),
    Metric(
        "validator_round_seconds",
        "histogram",
        "engram_validator_round_seconds",
        "From a round's first question to its scores.",
        buckets=_SLOW,
    ),
    Metric(
        "validator_weights",
        "counter",
        "engram_validator_weights",
        "Weights sent, by what became of them.",
        ("state",),
        known=_each("intent", "set", "refused", "lost", "unknown", "dry_run"),
    ),
    Metric(
        "validator_due",
        "gauge",
        "engram_validator_due",
        "1 for where setting weights stands.",
        ("verdict",),
        known=_DUE,
    ),
    Metric(
        "validator_weights_age",
        "gauge",
        "engram_validator_weights_age_blocks",
        "Blocks since the chain's LastUpdate of our uid; no row without a uid.",
    ),
    Metric(
        "validator_cutoff",
        "gauge",
        "engram_validator_activity_cutoff_blocks",
        "Blocks after which the chain ignores a validator's weights.",
    ),
    Metric(
        "validator_round_age",
        "gauge",
        "engram_validator_round_age_seconds",
        "Since the newest whole round ended; since the start before the first.",
    ),
    Metric(
        "validator_planted",
        "gauge",
        "engram_validator_planted",
        "Planted records now in a state.",
        ("state",),
        known=_each("drafted", "ready", "sending", "held", "refused", "deleting", "deleted", "lost"),
    ),
    Metric(
        "xeris_judged",
        "counter",
        "engram_xeris_judged",
        "Payloads that were submitted to this receiver.",
        ("code",),
        known=_JUDGED,
    ),
    Metric(
        "xeris_newest_age",
        "gauge",
        "engram_xeris_newest_age_seconds",
        "Since the newest payload was accepted; since the start before the first.",
    ),
    Metric("worker_connected", "gauge", "engram_worker_connected", "1 while the orchestrator is connected."),
    Metric(
        "worker_connections", "counter", "engram_worker_connections", "Connections to the orchestrator.", ("outcome",)
    ),
    Metric("worker_jobs", "counter", "engram_worker_jobs", "Jobs that ended.", ("kind", "outcome"), loop_only=True),
    Metric(
        "worker_job_seconds",
        "histogram",
        "engram_worker_job_seconds",
        "Jobs, while they ran.",
        ("kind",),
        _SLOW,
        loop_only=True,
    ),
    Metric("worker_refused", "counter", "engram_worker_refused", "Jobs that were refused."),
    Metric(
        "worker_unwritten",
        "counter",
        "engram_worker_unwritten",
        "Starts, results and acknowledgements of jobs that the ledger did not take; each is tried again.",
    ),
    Metric(
        "worker_in_flight",
        "gauge",
        "engram_worker_in_flight",
        "Jobs now in a state.",
        ("state",),
        known=_each("running", "waiting"),
    ),
    Metric(
        "worker_unacknowledged",
        "gauge",
        "engram_worker_unacknowledged",
        "Results that the orchestrator has not acknowledged.",
    ),
    Metric("chain_block", "gauge", "engram_chain_block", "Block of the newest metagraph.", ("netuid",)),
    Metric("chain_age", "gauge", "engram_chain_age_seconds", "Age of the newest metagraph.", ("netuid",)),
    Metric(
        "chain_head_age",
        "gauge",
        "engram_chain_head_age_seconds",
        "Since the finalized head last advanced; since the start as long as none is known.",
    ),
    Metric(
        "chain_endpoint_serves",
        "gauge",
        "engram_chain_endpoint_serves",
        "1 for the endpoint that answered the newest poll, 0 for the others.",
        ("endpoint",),
    ),
    Metric("chain_changes", "counter", "engram_chain_changes", "What changed on a subnet.", ("netuid", "kind")),
    Metric(
        "chain_endpoint_failures",
        "gauge",
        "engram_chain_endpoint_failures",
        "Failures in a row of a configured endpoint; 0: it serves, or was never needed.",
        ("endpoint",),
    ),
    Metric(
        "announcement",
        "gauge",
        "engram_announcement",
        "1 for how the announcement of this node stands; no row where none is wanted.",
        ("verdict",),
        known=_each("unread", "announced", "in_flight", "unregistered", "set_aside", "rate_limited", "due"),
    ),
    Metric(
        "announcements",
        "counter",
        "engram_announcements",
        "Announcements on the chain.",
        ("outcome",),
        known=_each("included", "refused", "unknown", "unsent", "never"),
    ),
    Metric(
        "node_commitments",
        "counter",
        "engram_node_commitments",
        "Commits of addresses of nodes on machines of others; `waiting`: for the next epoch.",
        ("outcome",),
        known=_each("included", "refused", "unknown", "unsent", "never", "waiting"),
    ),
    Metric(
        "ledger_commits",
        "counter",
        "engram_ledger_commits",
        "Group commits.",
        ("outcome",),
        loop_only=True,
        known=_each("done", "failed", "unknown"),
    ),
    Metric("ledger_commit_seconds", "histogram", "engram_ledger_commit_seconds", "Group commits, fsync included.", ()),
    Metric(
        "ledger_writes",
        "counter",
        "engram_ledger_writes",
        "Transactions asked for.",
        ("outcome",),
        loop_only=True,
        known=_each("done", "refused", "failed", "unknown"),
    ),
    Metric("ledger_queue", "gauge", "engram_ledger_queue", "Transactions waiting for the writer.", ()),
    Metric("actor_restarts", "counter", "engram_actor_restarts", "Restarts by supervisors.", ("actor",)),
    Metric("actor_mailbox", "gauge", "engram_actor_mailbox", "Messages waiting in a mailbox.", ("actor",)),
    Metric(
        "backup_time",
        "gauge",
        "engram_ledger_backup_timestamp_seconds",
        "Unix time of the newest backup in `backup.folder`; 0 where there is none.",
    ),
    Metric(
        "backup_due",
        "gauge",
        "engram_ledger_backup_due_timestamp_seconds",
        "Unix time when the next backup is due, past while none can be made; 0 without `backup.folder`.",
    ),
    Metric(
        "dead_letters",
        "counter",
        "engram_dead_letters",
        "Messages that nobody handled.",
        ("reason",),
        known=_each("crashed", "killed", "down", "dropped_oldest", "dropped_newest", "refused", "timer"),
    ),
    Metric(
        "hints_lost",
        "counter",
        "engram_hints_lost",
        "Hints dropped; the next reading of the ledger finds the fact.",
        ("to",),
    ),
    Metric("vectors", "gauge", "engram_miner_vectors", "Vectors that this miner stores.", ()),
    Metric("miner_ready", "gauge", "engram_miner_ready", "1 while this miner can store and find."),
    Metric(
        "ingests",
        "counter",
        "engram_miner_ingests",
        "Ingest requests.",
        ("outcome",),
        known=_each("stored", "refused", "failed"),
    ),
    Metric(
        "queries",
        "counter",
        "engram_miner_queries",
        "Query requests.",
        ("outcome",),
        known=_each("answered", "refused", "failed"),
    ),
    Metric(
        "search_behind",
        "gauge",
        "engram_miner_search_behind",
        "Changes that words or windows lack.",
        ("what",),
        known=_each("words", "windows"),
    ),
    Metric(
        "searches",
        "counter",
        "engram_miner_searches",
        "Searches by mode; none: the records' vectors.",
        ("mode",),
        known=_each("none", "vector", "words", "hybrid"),
    ),
    Metric("ingest_seconds", "histogram", "engram_miner_ingest_seconds", "Ingest requests.", ()),
    Metric("query_seconds", "histogram", "engram_miner_query_seconds", "Query requests.", ()),
    Metric(
        "challenges",
        "counter",
        "engram_miner_challenges",
        "Storage challenges.",
        ("outcome",),
        known=_each("proved", "failed"),
    ),
    Metric("damaged_records", "counter", "engram_miner_damaged_records", "Times a record was not what its CID says."),
    Metric("late_buckets", "counter", "engram_miner_late_buckets", "Private answers that took more than one bucket."),
    Metric("proxy_auth", "counter", "engram_proxy_auth", "Decisions about callers of the proxy.", ("result", "reason")),
    Metric("proxy_ends", "counter", "engram_proxy_ends", "Requests to the proxy by how they ended.", ("route", "end")),
    Metric(
        "proxy_seconds",
        "histogram",
        "engram_proxy_request_seconds",
        "From a request's head to its end, by the phase in which it ended.",
        ("route", "phase"),
        loop_only=True,
    ),
    Metric(
        "proxy_phase_seconds",
        "histogram",
        "engram_proxy_phase_seconds",
        "What each request spent in each of its phases.",
        ("route", "phase"),
        loop_only=True,
    ),
    Metric("proxy_bytes", "counter", "engram_proxy_bytes", "Bytes of bodies passed on.", ("route", "direction")),
    Metric(
        "proxy_backend_up", "gauge", "engram_proxy_backend_up", "Servers of a backend that take requests.", ("backend",)
    ),
    Metric(
        "proxy_breaker_open",
        "gauge",
        "engram_proxy_breaker_open",
        "1 while a backend is left alone because it failed too often.",
        ("backend",),
    ),
    Metric(
        "proxy_backend_in_flight",
        "gauge",
        "engram_proxy_backend_in_flight",
        "Requests in progress at a backend.",
        ("backend",),
    ),
    Metric(
        "proxy_places",
        "gauge",
        "engram_proxy_places",
        "Requests passed on, and waiting for it.",
        ("state",),
        known=_each("taken", "waiting"),
    ),
    Metric("proxy_spool_bytes", "gauge", "engram_proxy_spool_bytes", "Bytes of bodies that wait for their proof."),
    Metric("proxy_body_memory_bytes", "gauge", "engram_proxy_body_memory_bytes", "Bytes of bodies in memory."),
    Metric("proxy_jobs", "gauge", "engram_proxy_jobs", "Jobs that run now."),
    Metric("proxy_jobs_kept", "gauge", "engram_proxy_jobs_kept_bytes", "Bytes of results of jobs that are kept."),
    Metric(
        "proxy_settings",
        "counter",
        "engram_proxy_settings",
        "Readings of changed settings.",
        ("outcome",),
        known=_each("applied", "refused"),
    ),
    Metric(
        "proxy_metagraph_age",
        "gauge",
        "engram_proxy_metagraph_age_seconds",
        "Age of the metagraph that authorizes callers; -1: none was read.",
    ),
    Metric("proxy_min_stake", "gauge", "engram_proxy_min_stake", "Stake above which a validator may call."),
    Metric(
        "proxy_min_stake_age",
        "gauge",
        "engram_proxy_min_stake_age_seconds",
        "Age of that threshold where it is read from a URL; -1: it stands in the settings.",
    ),
    Metric("loop_lag", "histogram", "engram_loop_lag_seconds", "How late the event loop wakes a task.", (), _LAGS),
    Metric(
        "disk_free", "gauge", "engram_disk_free_bytes", "Bytes free for this process on the disk of its data folder."
    ),
    Metric("disk_size", "gauge", "engram_disk_size_bytes", "Bytes of that disk."),
    Metric(
        "mcp_requests",
        "counter",
        "engram_mcp_requests",
        "Requests of agents to an MCP server.",
        ("server", "method", "outcome"),
        loop_only=True,
    ),
    Metric(
        "mcp_seconds",
        "histogram",
        "engram_mcp_request_seconds",
        "Requests of agents to an MCP server.",
        ("server", "method"),
        loop_only=True,
    ),
)

BY_NAME: Final = {row.name: row for row in TABLE}
"""The rows by their exported name."""
