"""The operator's listener: /status, /relay/status, /metrics, next to /health and /ready. Never reached from outside."""

from collections.abc import Awaitable, Callable

import msgspec

from actors import ActorsError
from engram.api import gateway_ops as api
from engram.api.call import Call
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.http.errors import ApiError
from engram.http.request import Answer
from engram.telemetry.metrics import CONTENT_TYPE, Metrics


def bind_ops(
    endpoints: Endpoints[Caller],
    status: Callable[[], Awaitable[msgspec.Struct]],
    metrics: Metrics,
    refresh: Callable[[], Awaitable[None]],
    relay: Callable[[], Awaitable[msgspec.Struct]],
) -> None:
    """Bind /status and /relay/status (JSON), and /metrics (Prometheus); `refresh` is awaited before each scrape."""

    async def show_relay(_: Call[NoBody, Caller]) -> object:
        try:
            return await relay()
        except ActorsError as error:
            raise ApiError(
                503, "unavailable", f"The relay does not answer: {error}.", (("Retry-After", "2"),)
            ) from None

    async def show_status(_: Call[NoBody, Caller]) -> object:
        return await status()

    async def show_metrics(_: Call[NoBody, Caller]) -> Answer:
        await refresh()
        return Answer(200, metrics.render(), media=CONTENT_TYPE)

    endpoints.bind(api.STATUS, show_status)
    endpoints.bind(api.METRICS, show_metrics)
    endpoints.bind(api.RELAY_STATUS, show_relay)
