"""The operator's listener: /status and /metrics, beside /health and /ready. Never reachable from outside."""

from collections.abc import Awaitable, Callable

import msgspec
from quart import Response

from engram.gateway.replies import reply
from engram.http.app import App
from engram.telemetry.metrics import CONTENT_TYPE, Metrics


def add_ops_routes(
    app: App,
    status: Callable[[], Awaitable[msgspec.Struct]],
    metrics: Metrics,
    refresh: Callable[[], Awaitable[None]],
) -> None:
    """Add /status (JSON) and /metrics (Prometheus); `refresh` is awaited before each scrape."""

    @app.get("/status")
    async def show_status() -> Response:
        return reply(await status())

    @app.get("/metrics")
    async def show_metrics() -> Response:
        await refresh()
        response = Response(metrics.render(), content_type=CONTENT_TYPE)
        response.headers["Cache-Control"] = "no-store"
        return response
