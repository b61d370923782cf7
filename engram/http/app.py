"""What every surface gives its requests: an Edge in front of its routes, streams, limits.

A surface has no framework unless it asks for one (`quart_app`), which costs a process 13 MB: the table of endpoints
needs none. Expected refusals are raised as ApiError; any other exception of a handler becomes a 500 with a request id
and is logged with its cause.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NotRequired, TypedDict, Unpack

import trio

from config.model import HttpSettings
from engram.clock import Clock, Ids
from engram.http.asgi import AsgiApp, HeaderLines, Receive, Scope, Send, header_lines
from engram.http.cors import Cors
from engram.http.edge import Edge, FastAnswer, rate_limited
from engram.http.errors import TEXTS, ApiError
from engram.http.limits import BodyRoom, ClientAddress, Limiter, burst_of
from engram.http.request import Handler, Stream
from engram.telemetry.metrics import Metrics

_BODIES_BYTES = 134_217_728
"""Bytes of request bodies in memory at once, for a whole surface."""


class App:
    """An ASGI application: an Edge, and behind it the routes of a Router."""

    edge: Edge
    metrics: Metrics
    surface: str
    hotkey_limiter: Limiter
    single_headers: tuple[bytes, ...]
    """Lower-case request headers that must not be repeated, in addition to the standard ones."""
    body_timeout_s: float
    """Seconds from the end of a request's head to the end of its body."""
    max_event_streams: int
    open_event_streams: int
    draining: trio.Event
    """Set when the server stops: event streams then end, running requests finish."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        await self.edge(scope, receive, send)

    def add_view(self, rule: str, method: str, name: str, handler: Handler) -> bool:
        """Serve `rule` with `handler` through the surface's framework; return False where it has none."""
        return False

    def fast(self, path: str, answer: Callable[[], Awaitable[FastAnswer]]) -> None:
        """Answer GET and HEAD of `path` without routes, limits and access log."""
        self.edge.fast(path, lambda scope: answer())

    def limit_hotkey(self, public_key: bytes) -> None:
        """Count a request whose signature held. Raises ApiError 429 when this hotkey calls too often."""
        if wait_s := self.hotkey_limiter.take(public_key):
            raise rate_limited(wait_s)

    async def stream(
        self, stream: Stream, method: str, receive: Receive, send: Send, headers: HeaderLines | None = None
    ) -> None:
        """Send a stream, with `headers` where a framework has completed its own; of a HEAD only the head, without
        running it. Raises ApiError 503."""
        if self.draining.is_set() or self.open_event_streams >= self.max_event_streams:
            await stream.discard()
            raise ApiError(503, "too_many_streams", "no more event streams now", (("Retry-After", "5"),))
        lines = headers if headers is not None else header_lines(stream.headers.items())
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        if method == "HEAD":
            await stream.discard()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self.open_event_streams += 1
        gauge = self.metrics.http_event_streams.labels(self.surface)
        gauge.set(self.open_event_streams)
        try:
            await stream.run(receive, send, self.draining)
        finally:
            self.open_event_streams -= 1
            gauge.set(self.open_event_streams)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Given(TypedDict):
    """What a surface is made with."""

    settings: HttpSettings
    clock: Clock
    ids: Ids
    metrics: Metrics
    max_body_bytes: NotRequired[int | None]
    """Replaces the setting where a surface takes more."""
    single_headers: NotRequired[Iterable[bytes]]
    """Request headers that must not be repeated (a signature scheme's)."""
    free_below: NotRequired[tuple[bytes, ...]]
    """Paths that end with a slash. Paths with empty segments or encoded slashes are refused, except below these."""


def new_app(name: str, **given: Unpack[Given]) -> App:
    """Return a surface called `name` (its metrics' label), without routes.

    Raises ValueError for invalid settings (a trusted proxy that is no network).
    """
    app = App()
    equip(app, _nothing_here, name, **given)
    return app


def equip(app: App, inner: AsgiApp, name: str, **given: Unpack[Given]) -> None:
    """Give a surface what all have, with `inner` behind its Edge. Raises ValueError as `new_app`."""
    settings: HttpSettings = given["settings"]
    clock, metrics = given["clock"], given["metrics"]
    app.surface = name
    app.metrics = metrics
    app.single_headers = tuple(given.get("single_headers", ()))
    app.body_timeout_s = settings.body_timeout_s
    app.max_event_streams = settings.event_streams
    app.open_event_streams = 0
    app.draining = trio.Event()
    per_ip, per_hotkey = settings.requests_per_minute_per_ip, settings.requests_per_minute_per_hotkey
    app.hotkey_limiter = Limiter(per_hotkey, burst_of(per_hotkey), clock.monotonic)
    limit = given.get("max_body_bytes") or settings.max_body_bytes
    app.edge = Edge(
        inner,
        surface=name,
        ids=given["ids"],
        metrics=metrics,
        max_body_bytes=limit,
        body_room=BodyRoom(max(_BODIES_BYTES, 4 * limit)),
        address_limiter=Limiter(per_ip, burst_of(per_ip), clock.monotonic),
        client_address=ClientAddress(settings.trusted_proxies),
        cors=Cors(settings.cors_origins),
        free_below=given.get("free_below", ()),
    )


async def _nothing_here(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise ApiError(404, "not_found", TEXTS[404])
