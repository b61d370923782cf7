"""Every Prometheus metric of Engram, in one table. A test compares the table with the registry.

Labels have few, known values: never a hotkey, an address, a session or a path with parameters.
"""

from collections.abc import Callable
from typing import Final, Literal, final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from engram.telemetry import loop_metrics

Kind = Literal["counter", "gauge", "histogram"]

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAGS: Final = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)
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
    loop_only: bool = False
    """Whether it is changed only by the event loop's thread, for each request or purchase."""


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
    Metric("payments", "counter", "engram_payments", "Payments that entered a state.", ("state",), loop_only=True),
    Metric("payments_open", "gauge", "engram_payments_open", "Payments not yet in a terminal state.", ("state",)),
    Metric("refunds", "gauge", "engram_refunds", "Parts of refunds now in a state.", ("state",)),
    Metric("refunds_usd", "gauge", "engram_refunds_usd", "Dollars of the refunds now in a state.", ("state",)),
    Metric(
        "payment_seconds",
        "histogram",
        "engram_payment_seconds",
        "From reservation to an outcome.",
        ("outcome",),
        loop_only=True,
    ),
    Metric(
        "facilitator_seconds",
        "histogram",
        "engram_facilitator_seconds",
        "Calls to the facilitator.",
        ("call", "outcome"),
        loop_only=True,
    ),
    Metric("sessions", "gauge", "engram_sessions", "Sessions now in a state.", ("state",)),
    Metric("launches", "counter", "engram_launches", "Launches of nodes.", ("backend", "outcome")),
    Metric("launch_seconds", "histogram", "engram_launch_seconds", "From launch to healthy.", ("backend",), _SLOW),
    Metric("nodes", "gauge", "engram_nodes", "Nodes now in existence.", ("backend",)),
    Metric(
        "akash_deployments",
        "gauge",
        "engram_akash_deployments",
        "Active deployments of the account, by this ledger (ours) and by others.",
        ("whose",),
    ),
    Metric("akash_balance", "gauge", "engram_akash_balance", "Balance of the account.", ("denom",)),
    Metric(
        "akash_margin",
        "gauge",
        "engram_akash_margin_ratio",
        "Share of the price of sessions on Akash that their leases did not cost, over the last 7 days.",
    ),
    Metric("akash_orphans", "counter", "engram_akash_orphans_closed", "Deployments closed that no session wanted."),
    Metric("backend_places", "gauge", "engram_backend_places", "Nodes that may run at once.", ("backend",)),
    Metric("backend_up", "gauge", "engram_backend_up", "1 while the backend answers.", ("backend",)),
    Metric("polls", "counter", "engram_polls", "Polls of nodes.", ("outcome",)),
    Metric("introductions", "counter", "engram_node_introductions", "Nodes that showed a key.", ("verdict",)),
    Metric("poll_seconds", "histogram", "engram_poll_seconds", "Polls of nodes.", ()),
    Metric("quarantined", "gauge", "engram_quarantined", "Rows whose work crashed too often.", ("area",)),
    Metric(
        "sales_blocked",
        "gauge",
        "engram_sales_blocked",
        "1 while this keeps anything from being sold.",
        ("reason",),
    ),
    Metric("relay_entries", "gauge", "engram_relay_entries", "Entries of the relay's outbox.", ("state",)),
    Metric("relay_sends", "counter", "engram_relay_sends", "Attempts to deliver a payload.", ("outcome",)),
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
        "relay_not_queued", "counter", "engram_relay_not_queued", "Payloads that never reached the outbox.", ("reason",)
    ),
    Metric("relay_verdicts", "counter", "engram_relay_verdicts", "Proposals of others, judged.", ("verdict",)),
    Metric(
        "relay_candidates",
        "counter",
        "engram_relay_candidates",
        "Own scores that were relayed with a quorum, or were not.",
        ("state",),
    ),
    Metric("relay_anchors", "counter", "engram_relay_anchors", "Roots of what was delivered, committed on the chain."),
    Metric(
        "xeris_overdue",
        "counter",
        "engram_xeris_overdue",
        "Accepted payloads that were not anchored in time.",
        ("kind",),
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
        "validator_weights", "counter", "engram_validator_weights", "Weights sent, by what became of them.", ("state",)
    ),
    Metric("validator_due", "gauge", "engram_validator_due", "1 for where setting weights stands.", ("verdict",)),
    Metric("validator_planted", "gauge", "engram_validator_planted", "Planted records now in a state.", ("state",)),
    Metric(
        "xeris_judged", "counter", "engram_xeris_judged", "Payloads that were submitted to this receiver.", ("code",)
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
    Metric("worker_in_flight", "gauge", "engram_worker_in_flight", "Jobs now in a state.", ("state",)),
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
    ),
    Metric("announcements", "counter", "engram_announcements", "Announcements on the chain.", ("outcome",)),
    Metric("ledger_commits", "counter", "engram_ledger_commits", "Group commits.", ("outcome",), loop_only=True),
    Metric("ledger_commit_seconds", "histogram", "engram_ledger_commit_seconds", "Group commits, fsync included.", ()),
    Metric("ledger_writes", "counter", "engram_ledger_writes", "Transactions asked for.", ("outcome",), loop_only=True),
    Metric("ledger_queue", "gauge", "engram_ledger_queue", "Transactions waiting for the writer.", ()),
    Metric("actor_restarts", "counter", "engram_actor_restarts", "Restarts by supervisors.", ("actor",)),
    Metric("actor_mailbox", "gauge", "engram_actor_mailbox", "Messages waiting in a mailbox.", ("actor",)),
    Metric("dead_letters", "counter", "engram_dead_letters", "Messages that nobody handled.", ("reason",)),
    Metric(
        "hints_lost",
        "counter",
        "engram_hints_lost",
        "Hints dropped; the next reading of the ledger finds the fact.",
        ("to",),
    ),
    Metric("vectors", "gauge", "engram_miner_vectors", "Vectors that this miner stores.", ()),
    Metric("ingests", "counter", "engram_miner_ingests", "Ingest requests.", ("outcome",)),
    Metric("queries", "counter", "engram_miner_queries", "Query requests.", ("outcome",)),
    Metric("ingest_seconds", "histogram", "engram_miner_ingest_seconds", "Ingest requests.", ()),
    Metric("query_seconds", "histogram", "engram_miner_query_seconds", "Query requests.", ()),
    Metric("challenges", "counter", "engram_miner_challenges", "Storage challenges.", ("outcome",)),
    Metric("damaged_records", "counter", "engram_miner_damaged_records", "Times a record was not what its CID says."),
    Metric("search_behind", "gauge", "engram_miner_search_behind", "Changes that words or windows lack.", ("what",)),
    Metric("searches", "counter", "engram_miner_searches", "Searches by mode; none: the records' vectors.", ("mode",)),
    Metric("late_buckets", "counter", "engram_miner_late_buckets", "Private answers that took more than one bucket."),
    Metric("proxy_auth", "counter", "engram_proxy_auth", "Decisions about callers of the proxy.", ("result", "reason")),
    Metric("proxy_ends", "counter", "engram_proxy_ends", "Requests to the proxy by how they ended.", ("route", "end")),
    Metric(
        "proxy_seconds",
        "histogram",
        "engram_proxy_request_seconds",
        "From a request's head to its end.",
        ("route", "phase"),
        loop_only=True,
    ),
    Metric("proxy_bytes", "counter", "engram_proxy_bytes", "Bytes of bodies passed on.", ("route", "direction")),
    Metric(
        "proxy_backend_up", "gauge", "engram_proxy_backend_up", "Servers of a backend that take requests.", ("backend",)
    ),
    Metric(
        "proxy_backend_in_flight",
        "gauge",
        "engram_proxy_backend_in_flight",
        "Requests in progress at a backend.",
        ("backend",),
    ),
    Metric("proxy_places", "gauge", "engram_proxy_places", "Requests passed on, and waiting for it.", ("state",)),
    Metric("proxy_spool_bytes", "gauge", "engram_proxy_spool_bytes", "Bytes of bodies that wait for their proof."),
    Metric("proxy_body_memory_bytes", "gauge", "engram_proxy_body_memory_bytes", "Bytes of bodies in memory."),
    Metric("proxy_jobs", "gauge", "engram_proxy_jobs", "Jobs that run now."),
    Metric("proxy_settings", "counter", "engram_proxy_settings", "Readings of changed settings.", ("outcome",)),
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
)


@final
class Metrics:
    """The metrics of one process, in a registry of their own."""

    http_requests: loop_metrics.Counter
    http_seconds: loop_metrics.Histogram
    http_refused: Counter
    http_connections: Gauge
    http_event_streams: Gauge
    auth_refused: Counter
    payments: loop_metrics.Counter
    payments_open: Gauge
    refunds: Gauge
    refunds_usd: Gauge
    payment_seconds: loop_metrics.Histogram
    facilitator_seconds: loop_metrics.Histogram
    sessions: Gauge
    launches: Counter
    launch_seconds: Histogram
    nodes: Gauge
    akash_deployments: Gauge
    akash_balance: Gauge
    akash_margin: Gauge
    akash_orphans: Counter
    backend_places: Gauge
    backend_up: Gauge
    polls: Counter
    introductions: Counter
    poll_seconds: Histogram
    quarantined: Gauge
    sales_blocked: Gauge
    relay_entries: Gauge
    relay_sends: Counter
    relay_failures_in_a_row: Gauge
    relay_held_back: Gauge
    relay_withdrawn: Counter
    relay_not_queued: Counter
    relay_verdicts: Counter
    relay_candidates: Counter
    relay_anchors: Counter
    xeris_overdue: Counter
    validator_rounds: Counter
    validator_round_seconds: Histogram
    validator_weights: Counter
    validator_due: Gauge
    validator_planted: Gauge
    xeris_judged: Counter
    worker_connected: Gauge
    worker_connections: Counter
    worker_jobs: loop_metrics.Counter
    worker_job_seconds: loop_metrics.Histogram
    worker_refused: Counter
    worker_in_flight: Gauge
    worker_unacknowledged: Gauge
    chain_block: Gauge
    chain_age: Gauge
    chain_head_age: Gauge
    chain_endpoint_serves: Gauge
    chain_changes: Counter
    chain_endpoint_failures: Gauge
    announcement: Gauge
    announcements: Counter
    ledger_commits: loop_metrics.Counter
    ledger_commit_seconds: Histogram
    ledger_writes: loop_metrics.Counter
    ledger_queue: Gauge
    actor_restarts: Counter
    actor_mailbox: Gauge
    dead_letters: Counter
    hints_lost: Counter
    vectors: Gauge
    ingests: Counter
    queries: Counter
    ingest_seconds: Histogram
    query_seconds: Histogram
    challenges: Counter
    damaged_records: Counter
    search_behind: Gauge
    searches: Counter
    late_buckets: Counter
    proxy_auth: Counter
    proxy_ends: Counter
    proxy_seconds: loop_metrics.Histogram
    proxy_bytes: Counter
    proxy_backend_up: Gauge
    proxy_backend_in_flight: Gauge
    proxy_places: Gauge
    proxy_spool_bytes: Gauge
    proxy_body_memory_bytes: Gauge
    proxy_jobs: Gauge
    proxy_settings: Counter
    proxy_metagraph_age: Gauge
    proxy_min_stake: Gauge
    proxy_min_stake_age: Gauge
    loop_lag: Histogram

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._before_scrape: list[Callable[[], None]] = []
        ProcessCollector(registry=self.registry)
        for row in TABLE:
            setattr(self, row.attribute, _made(row, self.registry))

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each rendering, to set gauges that are not kept up to date. It must not block."""
        self._before_scrape.append(refresh)

    def render(self) -> bytes:
        """Return the text that Prometheus reads (version 0.0.4, UTF-8)."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(self.registry)


CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def _made(row: Metric, registry: CollectorRegistry) -> object:
    match row.kind:
        case "counter" if row.loop_only:
            return loop_metrics.Counter(row.name, row.help, row.labels, registry=registry)
        case "histogram" if row.loop_only:
            return loop_metrics.Histogram(row.name, row.help, row.labels, registry=registry, buckets=row.buckets)
        case "counter":
            return Counter(row.name, row.help, row.labels, registry=registry)
        case "gauge":
            return Gauge(row.name, row.help, row.labels, registry=registry)
        case "histogram":
            return Histogram(row.name, row.help, row.labels, registry=registry, buckets=row.buckets)
