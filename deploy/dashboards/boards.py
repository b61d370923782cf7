"""The dashboards, as tables."""

from typing import Final

from deploy.dashboards.model import SELECTED as AT
from deploy.dashboards.model import Board, Panel, Query, Row, number, one, quantiles

PROCESS: Final = Row(
    "Process",
    (
        one("Memory", f"process_resident_memory_bytes{{{AT}}}", unit="bytes"),
        one("Disk free", f"engram_disk_free_bytes{{{AT}}}", unit="bytes"),
        quantiles("Loop lag", "engram_loop_lag_seconds"),
        one(
            "Restarts of actors",
            f"sum by (instance, actor) (increase(engram_actor_restarts_total{{{AT}}}[15m])) > 0",
            "{{actor}}",
        ),
    ),
)

GATEWAY: Final = Board(
    "gateway-and-money",
    "Engram: gateway and money",
    (
        Row(
            "Can it sell",
            (
                number("Reasons against", f"sum(engram_sales_blocked{{{AT}}})"),
                number("Active sessions", f'sum(engram_sessions{{state="active", {AT}}})'),
                number("Refunds due", f'sum(engram_refunds_usd{{state="due", {AT}}})', "currencyUSD"),
                number("Quarantined", f"sum(engram_quarantined{{{AT}}})"),
            ),
        ),
        Row(
            "Money",
            (
                one(
                    "Payments that entered a state",
                    f"sum by (state) (rate(engram_payments_total{{{AT}}}[5m]))",
                    "{{state}}",
                    "ops",
                ),
                one("Oldest open payment", f"engram_payments_oldest_seconds{{{AT}}}", "{{state}}", "s"),
                quantiles("From reservation to an outcome", "engram_payment_seconds", "outcome"),
                quantiles("Calls to the facilitator", "engram_facilitator_seconds", "call"),
                one("Refunds", f"engram_refunds_usd{{{AT}}}", "{{state}}", "currencyUSD"),
                one("Oldest refund", f"engram_refunds_oldest_seconds{{{AT}}}", "{{state}}", "s"),
                one("What keeps it from selling", f"engram_sales_blocked{{{AT}}} > 0", "{{reason}}", "bool_yes_no"),
            ),
        ),
        Row(
            "HTTP",
            (
                one(
                    "Answers",
                    f"sum by (surface, status) (rate(engram_http_requests_total{{{AT}}}[5m]))",
                    "{{surface}} {{status}}",
                    "ops",
                ),
                quantiles("Time to answer", "engram_http_request_seconds", "surface"),
                one(
                    "Refused before the application",
                    f"sum by (surface, code) (rate(engram_http_refused_total{{{AT}}}[5m]))",
                    "{{surface}} {{code}}",
                    "ops",
                ),
                one(
                    "Refused signatures",
                    f"sum by (surface, code) (rate(engram_auth_refused_total{{{AT}}}[5m]))",
                    "{{surface}} {{code}}",
                    "ops",
                ),
                one("Event streams", f"engram_http_event_streams{{{AT}}}", "{{surface}}"),
            ),
        ),
        Row(
            "Ledger",
            (
                quantiles("Group commits", "engram_ledger_commit_seconds"),
                one(
                    "Transactions",
                    f"sum by (outcome) (rate(engram_ledger_writes_total{{{AT}}}[5m]))",
                    "{{outcome}}",
                    "ops",
                ),
                one("Waiting for the writer", f"engram_ledger_queue{{{AT}}}"),
            ),
        ),
        PROCESS,
    ),
)

FLEET: Final = Board(
    "fleet",
    "Engram: fleet",
    (
        Row(
            "Nodes",
            (
                one("Nodes", f"engram_nodes{{{AT}}}", "{{backend}}"),
                one("Places", f"engram_backend_places{{{AT}}}", "{{backend}}"),
                one("Backends that answer", f"engram_backend_up{{{AT}}}", "{{backend}}", "bool_yes_no"),
                one("Orphans", f"engram_nodes_orphaned{{{AT}}}", "{{backend}}"),
                one("Sessions", f"engram_sessions{{{AT}}}", "{{state}}"),
            ),
        ),
        Row(
            "Launches and polls",
            (
                one(
                    "Launches",
                    f"sum by (backend, outcome) (increase(engram_launches_total{{{AT}}}[1h]))",
                    "{{backend}} {{outcome}}",
                ),
                quantiles("From launch to healthy", "engram_launch_seconds", "backend"),
                one("Polls", f"sum by (outcome) (rate(engram_polls_total{{{AT}}}[5m]))", "{{outcome}}", "ops"),
                quantiles("Time of a poll", "engram_poll_seconds"),
            ),
        ),
        Row(
            "Akash",
            (
                one("Balance", f"engram_akash_balance{{{AT}}}", "{{denom}}"),
                one("ACT to spare", f"engram_akash_spare_act{{{AT}}}"),
                one("Deployments", f"engram_akash_deployments{{{AT}}}", "{{whose}}"),
                one("Margin, 7 days", f"engram_akash_margin_ratio{{{AT}}}", unit="percentunit"),
                one("Orphans closed", f"increase(engram_akash_orphans_closed_total{{{AT}}}[1h])"),
            ),
        ),
    ),
)

NODE: Final = Board(
    "memory-node",
    "Engram: memory node",
    (
        Row(
            "Memory",
            (
                one("Vectors", f"engram_miner_vectors{{{AT}}}"),
                one("Ready", f"engram_miner_ready{{{AT}}}", unit="bool_yes_no"),
                one("Stored", f"sum by (outcome) (rate(engram_miner_ingests_total{{{AT}}}[5m]))", "{{outcome}}", "ops"),
                one(
                    "Searches", f"sum by (outcome) (rate(engram_miner_queries_total{{{AT}}}[5m]))", "{{outcome}}", "ops"
                ),
                quantiles("Time to store", "engram_miner_ingest_seconds"),
                quantiles("Time to search", "engram_miner_query_seconds"),
                one(
                    "Challenges",
                    f"sum by (outcome) (rate(engram_miner_challenges_total{{{AT}}}[5m]))",
                    "{{outcome}}",
                    "ops",
                ),
                one("Damaged records", f"increase(engram_miner_damaged_records_total{{{AT}}}[1h])"),
            ),
        ),
        Row(
            "On the chain",
            (
                one("Announcement", f"engram_announcement{{{AT}}} == 1", "{{verdict}}"),
                one(
                    "Announcements",
                    f"sum by (outcome) (increase(engram_announcements_total{{{AT}}}[1h]))",
                    "{{outcome}}",
                ),
            ),
        ),
        PROCESS,
    ),
)

RELAY: Final = Board(
    "relay-and-validator",
    "Engram: relay, validator and receiver",
    (
        Row(
            "Relay",
            (
                number("Failures in a row", f"max(engram_relay_failures_in_a_row{{{AT}}})"),
                number("Dead letters", f'sum(engram_relay_entries{{state="abandoned", {AT}}})'),
                Panel(
                    "Success rate",
                    (
                        Query(
                            f'sum by (instance) (rate(engram_relay_sends_total{{outcome="ok", {AT}}}[15m]))'
                            f" / sum by (instance) (rate(engram_relay_sends_total{{{AT}}}[15m]))"
                        ),
                    ),
                    "percentunit",
                ),
                one("Volume", f"sum by (outcome) (rate(engram_relay_sends_total{{{AT}}}[5m]))", "{{outcome}}", "ops"),
                quantiles("Latency of an attempt", "engram_relay_send_seconds"),
                quantiles("From queueing to acknowledgement", "engram_relay_lag_seconds"),
                one("Entries", f"engram_relay_entries{{{AT}}}", "{{state}}"),
                one("Oldest entry", f"engram_relay_oldest_seconds{{{AT}}}", "{{state}}", "s"),
                one(
                    "Not queued",
                    f"sum by (reason) (increase(engram_relay_not_queued_total{{{AT}}}[1h]))",
                    "{{reason}}",
                ),
            ),
        ),
        Row(
            "Validator",
            (
                one("Where setting weights stands", f"engram_validator_due{{{AT}}} == 1", "{{verdict}}"),
                Panel(
                    "Blocks since the last weights",
                    (
                        Query(f"engram_validator_weights_age_blocks{{{AT}}}", "age"),
                        Query(f"engram_validator_activity_cutoff_blocks{{{AT}}}", "cutoff"),
                    ),
                    "blocks",
                ),
                one("Since the last round", f"engram_validator_round_age_seconds{{{AT}}}", unit="s"),
                quantiles("Time of a round", "engram_validator_round_seconds"),
                one("Weights", f"sum by (state) (increase(engram_validator_weights_total{{{AT}}}[6h]))", "{{state}}"),
                one("Planted records", f"engram_validator_planted{{{AT}}}", "{{state}}"),
                one(
                    "Verdicts on others",
                    f"sum by (verdict) (increase(engram_relay_verdicts_total{{{AT}}}[6h]))",
                    "{{verdict}}",
                ),
            ),
        ),
        Row(
            "Receiver and agents",
            (
                one("Judged", f"sum by (code) (rate(engram_xeris_judged_total{{{AT}}}[5m]))", "{{code}}", "ops"),
                one("Since the newest payload", f"engram_xeris_newest_age_seconds{{{AT}}}", unit="s"),
                one(
                    "Not anchored in time",
                    f"sum by (kind) (increase(engram_xeris_overdue_total{{{AT}}}[6h]))",
                    "{{kind}}",
                ),
                one(
                    "Calls of agents",
                    f"sum by (server, method, outcome) (rate(engram_mcp_requests_total{{{AT}}}[5m]))",
                    "{{server}} {{method}} {{outcome}}",
                    "ops",
                ),
                quantiles("Time of a call", "engram_mcp_request_seconds", "method"),
            ),
        ),
    ),
)

CHAIN: Final = Board(
    "chain-and-proxy",
    "Engram: chain, proxy and worker",
    (
        Row(
            "Chain",
            (
                one("Age of the finalized head", f"engram_chain_head_age_seconds{{{AT}}}", unit="s"),
                one("Age of the metagraph", f"engram_chain_age_seconds{{{AT}}}", "{{netuid}}", "s"),
                one("Failures of endpoints in a row", f"engram_chain_endpoint_failures{{{AT}}}", "{{endpoint}}"),
                one("Serving endpoint", f"engram_chain_endpoint_serves{{{AT}}} == 1", "{{endpoint}}"),
                one(
                    "Changes",
                    f"sum by (netuid, kind) (increase(engram_chain_changes_total{{{AT}}}[1h]))",
                    "{{netuid}} {{kind}}",
                ),
            ),
        ),
        Row(
            "Proxy",
            (
                one(
                    "How requests end",
                    f"sum by (route, end) (rate(engram_proxy_ends_total{{{AT}}}[5m]))",
                    "{{route}} {{end}}",
                    "ops",
                ),
                quantiles("Time of a request", "engram_proxy_request_seconds", "route"),
                one("Servers that take requests", f"engram_proxy_backend_up{{{AT}}}", "{{backend}}"),
                one("Open breakers", f"engram_proxy_breaker_open{{{AT}}}", "{{backend}}", "bool_yes_no"),
                one("In progress", f"engram_proxy_backend_in_flight{{{AT}}}", "{{backend}}"),
                one("Places", f"engram_proxy_places{{{AT}}}", "{{state}}"),
                one(
                    "Callers",
                    f"sum by (result, reason) (rate(engram_proxy_auth_total{{{AT}}}[5m]))",
                    "{{result}} {{reason}}",
                    "ops",
                ),
                one("Bodies in memory", f"engram_proxy_body_memory_bytes{{{AT}}}", unit="bytes"),
            ),
        ),
        Row(
            "Worker",
            (
                one("Connected", f"engram_worker_connected{{{AT}}}", unit="bool_yes_no"),
                one(
                    "Jobs",
                    f"sum by (kind, outcome) (rate(engram_worker_jobs_total{{{AT}}}[5m]))",
                    "{{kind}} {{outcome}}",
                ),
                quantiles("Time of a job", "engram_worker_job_seconds", "kind"),
                one("Unacknowledged results", f"engram_worker_unacknowledged{{{AT}}}"),
            ),
        ),
    ),
)

BOARDS: Final = (GATEWAY, FLEET, NODE, RELAY, CHAIN)
