"""The operator's listener of a validator: /health, /status, /relay/status, /metrics."""

from collections.abc import Awaitable, Callable

import msgspec
from sqlalchemy import Connection

from actors import ActorsError
from config.model import HttpSettings
from engram.api import validator_ops as api
from engram.api.call import Call, Surface
from engram.api.node_model import Health
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.chain.model import Metagraph
from engram.chain.sync.gauges import count_changes, measure
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock, Ids
from engram.http.app import App, new_app
from engram.http.errors import ApiError
from engram.http.request import Answer
from engram.http.router import Router
from engram.ledger import Ledger
from engram.relay import gauges as relay_gauges
from engram.telemetry.metrics import CONTENT_TYPE, Metrics
from engram.validator import reports


def show(
    metrics: Metrics,
    status: reports.ValidatorStatus,
    metagraph: Metagraph | None,
    hotkey: bytes,
    now: float,
    running_s: float,
) -> None:
    """Set the gauges of a validator, which has run for so many seconds, to the current values."""
    metrics.validator_due.show({} if status.look is None else {status.look.verdict: 1})
    metrics.validator_planted.show(status.planted)
    closed_at = None if status.last_round is None else status.last_round.closed_at
    metrics.validator_round_age.set(running_s if closed_at is None else max(0.0, now - closed_at))
    neuron = None if metagraph is None else metagraph.neuron(hotkey)
    if metagraph is None or neuron is None:
        metrics.validator_weights_age.clear()
        return
    metrics.validator_weights_age.set(max(0, metagraph.block - neuron.last_update_block))
    metrics.validator_cutoff.set(metagraph.parameters.activity_cutoff_blocks)


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
        try:
            return await relay()
        except ActorsError as error:
            raise ApiError(
                503, "unavailable", f"The relay does not answer: {error}.", (("Retry-After", "2"),)
            ) from None

    async def scrape(_: Call[NoBody, None]) -> Answer:
        def read(connection: Connection) -> reports.ValidatorStatus:
            relay_gauges.measure(metrics, connection, clock.now())
            return reports.status(connection, netuid, hotkey)

        show(metrics, await ledger.read(read), subnets.get(netuid), hotkey, clock.now(), subnets.running_s)
        measure(metrics, subnets)
        return Answer(200, metrics.render(), media=CONTENT_TYPE)

    endpoints: Endpoints[None] = Endpoints(Router(app), Surface())
    endpoints.bind(api.HEALTH, health)
    endpoints.bind(api.STATUS, status)
    endpoints.bind(api.METRICS, scrape)
    endpoints.bind(api.RELAY_STATUS, show_relay)
    endpoints.require_all(api.ROUTES)
    return app
