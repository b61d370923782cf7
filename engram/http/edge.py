"""The layer between connections and applications: what every surface does with every request.

In this order: a request id, the client's address, its rate limit, CORS preflights, fast paths, and then the body, whole
and bounded, before the application runs; a route can read it in parts instead. A path that routers could read
differently is 404. A preflight counts toward the rate but is never refused for it, because its page could not read the
refusal; the request that follows can be. No answer is sent before a whole body has been read: answers that overtook it
hung browsers' kept-alive connections (51 of 300 on this stack).
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import TypeAlias, final

import structlog

from engram.clock import Ids
from engram.http import exchange
from engram.http.asgi import JSON, AsgiApp, HeaderLines, Receive, Scope, Send, error_body, header_lines, respond
from engram.http.cors import Cors
from engram.http.cycle import STREAM
from engram.http.errors import ApiError
from engram.http.limits import BodyRoom, ClientAddress, Limiter, bucket_of, too_often
from engram.http.parts import CLOSE, BodyParts, incomplete, too_large
from engram.telemetry import logs
from engram.telemetry.loop_metrics import CounterChild, HistogramChild
from engram.telemetry.metrics import Metrics

FastAnswer: TypeAlias = tuple[int, bytes, HeaderLines]
FastPath: TypeAlias = Callable[[Scope], Awaitable[FastAnswer]]
"""Answers without a framework: status, body and headers. For /health and /ready, which load balancers poll."""

_ID_BYTES = 8
_IDS_AT_ONCE = 64
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}\Z")
_TWO_READINGS = re.compile(rb"//|%2[Ff]|%00")
"""Empty segments, which some routers merge, encoded slashes, which some take for separators, NUL, where some end."""
_UNCOUNTED_BYTES = 65_536
"""Bytes of each body that are not counted; the maximum number of connections holds 128 MiB of these."""

_log = structlog.get_logger("engram.http")


@final
class Edge:
    """ASGI middleware in front of an application."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        surface: str,
        ids: Ids,
        metrics: Metrics,
        max_body_bytes: int,
        body_room: BodyRoom,
        address_limiter: Limiter,
        client_address: ClientAddress,
        cors: Cors,
        free_below: tuple[bytes, ...] = (),
    ) -> None:
        """Take the application; below the paths `free_below` names may contain slashes."""
        self._app = app
        self._surface = surface
        self._ids = ids
        self._requests, self._seconds = metrics.http_requests, metrics.http_seconds
        self._noted: dict[tuple[str, str, int], tuple[CounterChild, HistogramChild]] = {}
        self._unused_ids = ""
        self._max_body_bytes = max_body_bytes
        self._body_room = body_room
        self._address_limiter = address_limiter
        self._client_address = client_address
        self._cors = cors
        self._free_below = free_below
        self._fast: dict[str, FastPath] = {}
        self._fixed: dict[str, FastAnswer] = {}
        self._checks: list[Callable[[Scope], None]] = []
        self._in_parts: Callable[[Scope], bool] | None = None

    def trust(self, proxies: tuple[str, ...]) -> None:
        """Believe the X-Forwarded-For of these networks from now on, and of no others. Raises ValueError."""
        self._client_address.trust(proxies)

    def fast(self, path: str, answer: FastPath) -> None:
        """Answer GET and HEAD of `path` with `answer`, before rate limits and the framework."""
        self._fast[path] = answer

    def fixed(self, path: str, answer: FastAnswer) -> None:
        """Answer GET and HEAD of `path` always the same, before rate limits and the framework."""
        self._fixed[path] = answer

    def check(self, check: Callable[[Scope], None]) -> None:
        """Run `check`, which refuses by raising ApiError, on each request once its body has been read."""
        self._checks.append(check)

    def leave_bodies(self, in_parts: Callable[[Scope], bool]) -> None:
        """Do not read the bodies of requests for which `in_parts` holds: their handlers do, as they come."""
        self._in_parts = in_parts

    def put_behind(self, layer: Callable[[AsgiApp], AsgiApp]) -> None:
        """Insert a layer between this and the application behind it."""
        self._app = layer(self._app)

    def cors_headers(self, origin: bytes) -> HeaderLines:
        """Return the headers that every answer to a request of this origin carries."""
        return self._cors.headers(origin)

    def count_refusal(self, peer: str) -> float:
        """Count a request that its connection refuses against the rate of its address, unless that is a trusted
        proxy's; return 0.0, or the seconds to wait."""
        return 0.0 if self._client_address.trusts(peer) else self._address_limiter.take(bucket_of(peer))

    def request_id(self) -> str:
        """Return a new id for a request that came without one."""
        if not self._unused_ids:
            self._unused_ids = self._ids.token(_IDS_AT_ONCE * _ID_BYTES)
        chosen, self._unused_ids = self._unused_ids[: 2 * _ID_BYTES], self._unused_ids[2 * _ID_BYTES :]
        return chosen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        current = self._open(scope)
        answering = exchange.Answering(send, current, self._cors.headers(current.origin))
        try:
            await self._answer(scope, current, receive, answering)
        except ApiError as error:
            await _send_error(error, current, answering)
        except Exception as error:  # noqa: BLE001 -- the seam of a surface: what it throws is a 500 with a request id
            if (refused := _refusal_within(error)) is None:
                _log.exception("request_failed", method=scope["method"], path=scope["path"])
                refused = ApiError(500, "internal", "internal error; quote the request id")
            await _send_error(refused, current, answering)
        finally:
            if current.held_bytes:
                self._body_room.leave(bucket_of(current.client), current.held_bytes)
            self._note(scope, current, perf_counter() - started)

    def _open(self, scope: Scope) -> exchange.Exchange:
        headers = scope["headers"]
        found = dict(headers)
        request_id = found.get(b"x-request-id", b"")
        forwarded: Sequence[str] = ()
        if b"x-forwarded-for" in found:
            forwarded = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        peer = scope.get("client") or ("", 0)
        current = exchange.Exchange(
            request_id.decode("ascii") if _REQUEST_ID.match(request_id) else self.request_id(),
            self._client_address.of(str(peer[0]), forwarded),
        )
        current.origin = found.get(b"origin", b"")
        if (length := found.get(b"content-length")) is not None:
            current.length = int(length)
        elif scope["method"] not in _BODYLESS or b"transfer-encoding" in found:
            current.length = None
        exchange.open_in(scope, current)
        return current

    async def _answer(
        self, scope: Scope, current: exchange.Exchange, receive: Receive, send: exchange.Answering
    ) -> None:
        method, path = scope["method"], scope["path"]
        probing = method in _BODYLESS and (path in self._fixed or path in self._fast)
        wait_s = 0.0 if probing else self._address_limiter.take(bucket_of(current.client))
        if self._in_parts is not None and self._in_parts(scope):
            self._open_parts(scope, receive, current)
        elif current.length != 0:
            current.body = await self._read_body(receive, current)
        if probing:
            current.route = path
            status, body, headers = self._fixed.get(path) or await self._fast[path](scope)
            await send.respond(status, headers, body)
            return
        if method == "OPTIONS" and (allowed := self._cors.preflight(current.origin)) is not None:
            current.route = "preflight"
            await send.respond(204, allowed, b"")
            return
        if wait_s:
            raise rate_limited(wait_s)
        self._require_one_reading(scope["raw_path"])
        if current.body or current.parts is not None:
            refuse_encoded(scope["headers"])
        for check in self._checks:
            check(scope)
        await self._app(scope, receive, send)

    def _open_parts(self, scope: Scope, receive: Receive, current: exchange.Exchange) -> None:
        """Leave the body to the handler, with a deadline for each part. Raises ApiError 413."""
        if (current.length or 0) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        scope["extensions"][STREAM]()
        current.parts = BodyParts(receive, self._max_body_bytes, ended=current.length == 0)

    def _require_one_reading(self, raw_path: bytes) -> None:
        """Raise ApiError 404 for a path that two routers would read differently."""
        if _TWO_READINGS.search(raw_path.partition(b"?")[0]) and not raw_path.startswith(self._free_below):
            text = "no path here has an empty segment (//), an encoded slash (%2F) or NUL (%00)"
            raise ApiError(404, "not_found", text)

    async def _read_body(self, receive: Receive, current: exchange.Exchange) -> bytes:
        """Return the whole body. Raises ApiError 413, 503, and what ended a body before its end (400, 408)."""
        limit = self._max_body_bytes
        if (current.length or 0) > limit:
            raise too_large(limit)
        message = await receive()
        received: bytes | bytearray = message.get("body", b"")
        while True:
            if message["type"] == "http.disconnect":
                raise incomplete(message.get("refused"))
            if len(received) > limit:
                raise too_large(limit)
            if not self._has_room(current, len(received)):
                raise ApiError(503, "busy", "too many large bodies at once; try again in a moment", _LATER)
            if not message.get("more_body", False):
                return bytes(received)
            message = await receive()
            if isinstance(received, bytes):
                received = bytearray(received)
            received += message.get("body", b"")

    def _has_room(self, current: exchange.Exchange, received: int) -> bool:
        """Count received bytes beyond what every connection may hold; return whether there is room for them."""
        more = received - _UNCOUNTED_BYTES - current.held_bytes
        if more <= 0:
            return True
        if not self._body_room.enter(bucket_of(current.client), more):
            return False
        current.held_bytes += more
        return True

    def _note(self, scope: Scope, current: exchange.Exchange, took_s: float) -> None:
        method, route, status = scope["method"], current.route, current.status
        if method not in _METHODS:
            method = "other"
        if (noted := self._noted.get((method, route, status))) is None:
            counter = self._requests.labels(self._surface, method, route, str(status))
            noted = self._noted[method, route, status] = counter, self._seconds.labels(self._surface, route)
        noted[0].inc()
        noted[1].observe(took_s)
        if route in self._fixed or route in self._fast:
            return
        logs.request(
            self._surface,
            method=scope["method"],
            path=scope["path"],
            status=status,
            took_ms=int(took_s * 10_000 + 0.5) / 10,
            client=current.client,
            request_id=current.request_id,
        )


_BODYLESS = frozenset({"GET", "HEAD"})
"""Methods whose requests have no body unless they declare one."""
_LATER = (*CLOSE, ("Retry-After", "2"))
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def rate_limited(wait_s: float) -> ApiError:
    """Return the 429 for a caller that must wait `wait_s` seconds."""
    refused = too_often(wait_s)
    return ApiError(refused.status, refused.code, refused.message, (("Retry-After", str(refused.retry_s)),))


def refuse_encoded(headers: HeaderLines) -> None:
    """Raise ApiError 415 for a body that is compressed: nothing here unpacks it, and its bytes would mean something
    else. Source: RFC 9110, sections 8.4 and 15.5.16.
    """
    values = [value for name, value in headers if name == b"content-encoding"]
    codings = [coding.strip().lower() for value in values for coding in value.split(b",")]
    named = [coding for coding in codings if coding not in (b"", b"identity")]
    if named:
        shown = named[0].decode("latin-1")[:40]
        raise ApiError(
            415,
            "unsupported_encoding",
            f"a body with Content-Encoding {shown!r} is not taken: send it as it is",
            (("Accept-Encoding", "identity"),),
        )


def _refusal_within(error: Exception) -> ApiError | None:
    """Return the refusal that alone ended a nursery, None for any other exception."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, ApiError) else None


async def _send_error(error: ApiError, current: exchange.Exchange, send: exchange.Answering) -> None:
    if current.status:
        return  # The head has been sent, so the failure can only be shown by cutting the connection.
    body = error_body(error.message, error.code, current.request_id, error.extra)
    await respond(send, error.status, body, [JSON, *header_lines(error.headers)])
