"""The operator's listener of a receiver: /health, /status, /metrics."""

from typing import Any

import msgspec
from sqlalchemy import Connection

from config.model import HttpSettings
from engram.api import xeris_ops as api
from engram.api.call import Call, Surface
from engram.api.node_model import Health
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.chain.sync.gauges import count_changes, measure
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock, Ids
from engram.http.app import App, new_app
from engram.http.request import Answer
from engram.http.router import Router
from engram.ledger import Ledger
from engram.telemetry.metrics import CONTENT_TYPE, Metrics
from engram.xeris import anchoring, records


def ops_app(
    ledger: Ledger, subnets: Subnets, hotkey: str, *, settings: HttpSettings, clock: Clock, ids: Ids, metrics: Metrics
) -> App:
    """Return the operator's application of the receiver with this key (ss58)."""
    own = msgspec.structs.replace(settings, cors_origins=(), requests_per_minute_per_ip=0)
    app = new_app("ops", settings=own, clock=clock, ids=ids, metrics=metrics)
    count_changes(metrics, subnets)

    def kept(connection: Connection) -> dict[str, Any]:
        return {
            "hotkey": hotkey,
            "accepted": records.count(connection),
            "newest_at": records.newest_at(connection),
            "overdue": anchoring.count_overdue(connection),
        }

    async def health(_: Call[NoBody, None]) -> Health:
        return Health(status="ok")

    async def status(_: Call[NoBody, None]) -> object:
        return {"xeris": await ledger.read(kept), "chain": subnets.status()}

    async def scrape(_: Call[NoBody, None]) -> Answer:
        await measure_kept(ledger, metrics, clock.now(), subnets.running_s)
        measure(metrics, subnets)
        return Answer(200, metrics.render(), media=CONTENT_TYPE)

    endpoints: Endpoints[None] = Endpoints(Router(app), Surface())
    endpoints.bind(api.HEALTH, health)
    endpoints.bind(api.STATUS, status)
    endpoints.bind(api.METRICS, scrape)
    endpoints.require_all(api.ROUTES)
    return app


async def measure_kept(ledger: Ledger, metrics: Metrics, now: float, running_s: float) -> None:
    """Set the gauges of what is kept: what is overdue and has no anchor, and the newest payload's age.

    Before the first payload that is how long the receiver has run. Raises LedgerError.
    """
    newest_at, overdue = await ledger.read(lambda c: (records.newest_at(c), anchoring.count_overdue(c)))
    metrics.xeris_unanchored.show(overdue)
    metrics.xeris_newest_age.set(running_s if newest_at is None else max(0.0, now - newest_at))
