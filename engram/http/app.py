"""Quart applications as every surface makes them.

Handlers are Quart's; `exchange` has what they need of the request in addition. Expected refusals are raised as
ApiError; any other exception of a handler becomes a 500 with a request id and is logged with its cause.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast, final

import structlog
import trio
from quart import Response
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest, TrioResponse
from werkzeug.exceptions import BadRequest, HTTPException

from config.model import HttpSettings
from engram.clock import Clock, Ids
from engram.http import exchange
from engram.http.asgi import HeaderLines, Receive, Send, error_body, header_lines, respond
from engram.http.cors import Cors
from engram.http.edge import Edge, FastAnswer, rate_limited
from engram.http.errors import ApiError
from engram.http.limits import BodyRoom, ClientAddress, Limiter, burst_of
from engram.http.request import Stream
from engram.telemetry.metrics import Metrics

_BODIES_BYTES = 134_217_728
"""Bytes of request bodies in memory at once, for a whole surface."""

_log = structlog.get_logger("engram.http")

_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
}

_TEXTS = {
    404: "there is nothing at this path",
    405: "this path does not take this method",
}


@final
class App(QuartTrio):
    """A Quart application behind an Edge."""

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

    def fast(self, path: str, answer: Callable[[], Awaitable[FastAnswer]]) -> None:
        """Answer GET and HEAD of `path` without Quart, limits and access log."""
        self.edge.fast(path, lambda scope: answer())

    def limit_hotkey(self, public_key: bytes) -> None:
        """Count a request whose signature held. Raises ApiError 429 when this hotkey calls too often."""
        if wait_s := self.hotkey_limiter.take(public_key):
            raise rate_limited(wait_s)

    async def make_response(self, result: Any) -> Any:
        """As Quart's; a handler may return a Stream too."""
        return _StreamResponse(result) if isinstance(result, Stream) else await super().make_response(result)

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


def new_app(
    name: str,
    *,
    settings: HttpSettings,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
    max_body_bytes: int | None = None,
    single_headers: Iterable[bytes] = (),
    free_below: tuple[bytes, ...] = (),
) -> App:
    """Return a surface called `name` (its metrics' label), without routes.

    `max_body_bytes` replaces the setting where a surface takes more; `single_headers` are request headers that must
    not be repeated (a signature scheme's). Paths with empty segments or encoded slashes are refused, except
    below those of `free_below`, which end with a slash. Raises ValueError for invalid settings (a trusted proxy that is
    no network).
    """
    app = App(name, static_folder=None)
    app.surface = name
    app.metrics = metrics
    app.single_headers = tuple(single_headers)
    app.body_timeout_s = settings.body_timeout_s
    app.max_event_streams = settings.event_streams
    app.open_event_streams = 0
    app.draining = trio.Event()
    per_ip, per_hotkey = settings.requests_per_minute_per_ip, settings.requests_per_minute_per_hotkey
    app.hotkey_limiter = Limiter(per_hotkey, burst_of(per_hotkey), clock.monotonic)
    limit = max_body_bytes or settings.max_body_bytes
    app.config["MAX_CONTENT_LENGTH"] = limit
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # otherwise Quart redirects to whatever host the request names
    app.json.sort_keys = False  # type: ignore[attr-defined]  # DefaultJSONProvider's
    app.asgi_http_class = _HttpConnection
    app.request_class = _Request
    app.edge = Edge(
        app.asgi_app,
        surface=name,
        ids=ids,
        metrics=metrics,
        max_body_bytes=limit,
        body_room=BodyRoom(max(_BODIES_BYTES, 4 * limit)),
        address_limiter=Limiter(per_ip, burst_of(per_ip), clock.monotonic),
        client_address=ClientAddress(settings.trusted_proxies),
        cors=Cors(settings.cors_origins),
        free_below=free_below,
    )
    app.asgi_app = app.edge  # type: ignore[assignment,method-assign]  # Quart's own way to put a layer in front
    app.register_error_handler(ApiError, _on_api_error)
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(Exception, _on_exception)
    return app


@final
class _Request(TrioRequest):
    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """As Quart's, except that a body that is not UTF-8 or nested too deeply is a 400 and not a 500."""
        try:
            return await super().get_json(force, silent, cache)
        except (UnicodeDecodeError, RecursionError):
            if silent:
                return None
            raise BadRequest("the body is not JSON") from None


@final
class _HttpConnection(TrioASGIHTTPConnection):
    """Runs Quart on a request whose body has been read already.

    quart-trio runs two tasks for a request, one of which waits for the client to disconnect and then cancels the other.
    Here a handler is never cancelled: it finishes whether or not the client is still there. Only streams watch for the
    client.
    """

    app: App

    async def __call__(self, receive: Any, send: Any) -> None:
        current = exchange.of(cast(Any, self.scope))
        request = self._create_request_from_scope(send)
        request.body.append(current.body)
        request.body.set_complete()
        response = await self.app.handle_request(request)
        if request.url_rule is not None:
            current.route = request.url_rule.rule
        if isinstance(response, _StreamResponse):
            await self.app.stream(response.stream, self.scope["method"], receive, send, header_lines(response.headers))
        elif isinstance(response, Response) and isinstance(response.response, DataBody):
            response.headers.pop("Content-Length", None)
            await respond(send, response.status_code, bytes(response.response.data), header_lines(response.headers))
        else:
            await self._send_response(send, response)


@final
class _StreamResponse(TrioResponse):
    """Carries a Stream through Quart."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(b"", 200, headers=stream.headers)
        self.headers.pop("Content-Length", None)
        self.stream = stream


async def _on_api_error(error: ApiError) -> Response:
    body = error_body(error.message, error.code, exchange.request_id(), error.extra)
    response = Response(body, error.status, content_type="application/json")
    for name, value in error.headers:
        response.headers.add(name, value)
    return response


async def _on_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:
        return cast(Response, error.get_response())
    code = _CODES.get(status, "refused" if status < 500 else "internal")
    refusal = ApiError(status, code, _TEXTS.get(status) or error.description or error.name)
    response = await _on_api_error(refusal)
    if (allowed := getattr(error, "valid_methods", None)) is not None:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


async def _on_exception(error: Exception) -> Response:
    _log.error("request_failed", exc_info=error)
    return await _on_api_error(ApiError(500, "internal", "internal error; quote the request id"))
