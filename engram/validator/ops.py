"""The operator's listener of a validator: /health, /status, /relay/status, /metrics."""

from collections.abc import Awaitable, Callable

import msgspec

from config.model import HttpSettings
from engram.api import validator_ops as api
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
from engram.relay import records as relay_records
from engram.telemetry.metrics import CONTENT_TYPE, Metrics
from engram.validator import reports
from engram.validator.due import Due


def ops_app(
    ledger: Ledger,
    subnets: Subnets,
    netuid: int,
    hotkey: bytes,
    *,
    relay: Callable[[], Awaitable[msgspec.Struct]],
    settings: HttpSettings,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
) -> App:
    """Return the operator's application; `relay` asks the emitter how the relay stands."""
    own = msgspec.structs.replace(settings, cors_origins=(), requests_per_minute_per_ip=0)
    app = new_app("ops", settings=own, clock=clock, ids=ids, metrics=metrics)
    count_changes(metrics, subnets)

    async def health(_: Call[NoBody, None]) -> Health:
        return Health(status="ok")

    async def status(_: Call[NoBody, None]) -> object:
        found = await ledger.read(lambda c: reports.status(c, netuid, hotkey))
        return {"validator": found, "chain": subnets.status()}

    async def show_relay(_: Call[NoBody, None]) -> object:
        return await relay()

    async def scrape(_: Call[NoBody, None]) -> Answer:
        found = await ledger.read(lambda c: reports.status(c, netuid, hotkey))
        verdict = None if found.look is None else found.look.verdict
        for word in Due:
            metrics.validator_due.labels(word).set(verdict == word)
        for state, count in found.planted.items():
            metrics.validator_planted.labels(state).set(count)
        for entry_state, entries in (await ledger.read(relay_records.count_by_state)).items():
            metrics.relay_entries.labels(entry_state).set(entries)
        measure(metrics, subnets)
        return Answer(200, metrics.render(), media=CONTENT_TYPE)

    endpoints: Endpoints[None] = Endpoints(Router(app), Surface())
    endpoints.bind(api.HEALTH, health)
    endpoints.bind(api.STATUS, status)
    endpoints.bind(api.METRICS, scrape)
    endpoints.bind(api.RELAY_STATUS, show_relay)
    endpoints.require_all(api.ROUTES)
    return app
