"""The Prometheus metrics of one process, made from the table in `table.py`."""

from collections.abc import Callable
from typing import Final, final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from engram.telemetry import loop_metrics
from engram.telemetry.gauges import Gauge
from engram.telemetry.table import TABLE, Metric

__all__ = ["CONTENT_TYPE", "TABLE", "Metric", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@final
class Metrics:
    """The metrics of one process, in a registry of their own.

    Counters and histograms show their known children from the start, so that `increase` sees the first event; a gauge
    shows nothing until its owner has measured it.
    """

    http_requests: loop_metrics.Counter
    http_seconds: loop_metrics.Histogram
    http_refused: Counter
    http_connections: Gauge
    http_event_streams: Gauge
    auth_refused: Counter
    payments: loop_metrics.Counter
    payments_open: Gauge
    payments_oldest: Gauge
    refunds: Gauge
    refunds_usd: Gauge
    refunds_oldest: Gauge
    payment_seconds: loop_metrics.Histogram
    facilitator_seconds: loop_metrics.Histogram
    sessions: Gauge
    launches: Counter
    launch_seconds: Histogram
    nodes: Gauge
    nodes_orphaned: Gauge
    akash_deployments: Gauge
    akash_balance: Gauge
    akash_spare_act: Gauge
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
    relay_oldest: Gauge
    relay_send_seconds: Histogram
    relay_lag_seconds: Histogram
    relay_sends: Counter
    relay_failures_in_a_row: Gauge
    relay_held_back: Gauge
    relay_withdrawn: Counter
    relay_not_queued: Counter
    relay_verdicts: Counter
    relay_candidates: Counter
    relay_anchors: Counter
    xeris_overdue: Counter
    xeris_unanchored: Gauge
    validator_rounds: Counter
    validator_round_seconds: Histogram
    validator_weights: Counter
    validator_due: Gauge
    validator_weights_age: Gauge
    validator_cutoff: Gauge
    validator_round_age: Gauge
    validator_planted: Gauge
    xeris_judged: Counter
    xeris_newest_age: Gauge
    worker_connected: Gauge
    worker_connections: Counter
    worker_jobs: loop_metrics.Counter
    worker_job_seconds: loop_metrics.Histogram
    worker_refused: Counter
    worker_unwritten: Counter
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
    node_commitments: Counter
    ledger_commits: loop_metrics.Counter
    ledger_commit_seconds: Histogram
    ledger_writes: loop_metrics.Counter
    ledger_queue: Gauge
    actor_restarts: Counter
    actor_mailbox: Gauge
    dead_letters: Counter
    backup_time: Gauge
    backup_due: Gauge
    hints_lost: Counter
    vectors: Gauge
    miner_ready: Gauge
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
    proxy_phase_seconds: loop_metrics.Histogram
    proxy_bytes: Counter
    proxy_backend_up: Gauge
    proxy_breaker_open: Gauge
    proxy_backend_in_flight: Gauge
    proxy_places: Gauge
    proxy_spool_bytes: Gauge
    proxy_body_memory_bytes: Gauge
    proxy_jobs: Gauge
    proxy_jobs_kept: Gauge
    proxy_settings: Counter
    proxy_metagraph_age: Gauge
    proxy_min_stake: Gauge
    proxy_min_stake_age: Gauge
    loop_lag: Histogram
    disk_free: Gauge
    disk_size: Gauge
    mcp_requests: loop_metrics.Counter
    mcp_seconds: loop_metrics.Histogram

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
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


def _made(row: Metric, registry: CollectorRegistry) -> object:
    if row.kind == "gauge":
        return Gauge(row.name, row.help, row.labels, registry=registry, known=row.known)
    made: Counter | Histogram | loop_metrics.Counter | loop_metrics.Histogram
    match row.kind:
        case "counter" if row.loop_only:
            made = loop_metrics.Counter(row.name, row.help, row.labels, registry=registry)
        case "histogram" if row.loop_only:
            made = loop_metrics.Histogram(row.name, row.help, row.labels, registry=registry, buckets=row.buckets)
        case "counter":
            made = Counter(row.name, row.help, row.labels, registry=registry)
        case "histogram":
            made = Histogram(row.name, row.help, row.labels, registry=registry, buckets=row.buckets)
    for known in row.known:
        made.labels(*known)
    return made
