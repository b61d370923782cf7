"""The outbound HTTP client: the only place from which requests leave this process.

It is httpx2's transport layer (httpcore2) under our own deadlines. httpx 0.28 is not used: under trio it keeps a dead
connection in its pool for every request cancelled while it connects, until the pool is full for good. One pool for
each origin, so that a server that hangs starves nobody else. No redirects, no cookies, no proxies, no retries.

Costs on one core: 0.34 to 0.40 ms a request on a kept-alive connection, 0.39 to 0.48 ms on a fresh one to a literal
address.
"""

import re
import ssl
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, TypeVar, final

import httpcore2
import httpx2
import msgspec
import trio

from engram import wire
from engram.http import oneshot
from engram.http.errors import BadAnswer, HttpError, Interrupted, NotSent, TooLarge

__all__ = ["BadAnswer", "HttpClient", "HttpError", "Interrupted", "NotSent", "Response", "TooLarge"]

T = TypeVar("T")

_ORIGINS = 256
"""Pools kept; beyond it the one unused for longest is closed."""
_SENDING = "http11.send_request_headers.started"
_USER_AGENT = b"engram"
_ON_THE_WIRE = re.compile(rb"[!-~]+")


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    """Lower-case names; repeated lines are joined by `, `."""
    content: bytes

    def json(self) -> Any:
        """The content as JSON. Raises BadAnswer when it is none."""
        return self.decode(object)

    def decode(self, type_: type[T]) -> T:
        """The content as JSON of this msgspec type. Raises BadAnswer when it does not fit."""
        try:
            return wire.decode(self.content, type_)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadAnswer(f"the answer ({self.status}) is not the JSON it should be: {error}") from None


@final
class HttpClient:
    """Sends requests with deadlines and tells precisely what is known when one fails."""

    def __init__(self, *, connections_per_origin: int = 100, keep_alive_s: float = 4.0) -> None:
        """`keep_alive_s` stays below the 5 s at which common servers close idle connections."""
        self._connections = connections_per_origin
        self._keep_alive_s = keep_alive_s
        self._pools: OrderedDict[oneshot.Origin, httpcore2.AsyncConnectionPool] = OrderedDict()
        self._in_use: dict[oneshot.Origin, int] = {}
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = trio.Lock()

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        connect_s: float = 3.0,
        read_s: float = 10.0,
        total_s: float = 15.0,
        max_bytes: int = 1_000_000,
        fresh: bool = False,
        address: str | None = None,
    ) -> Response:
        """Send one request and return the whole answer, whatever its status.

        `json` is encoded by msgspec and wins over `content`. `connect_s` covers waiting for a connection and making
        it, `read_s` each wait for more of the answer, `total_s` everything. `fresh` uses a connection of its own and
        closes it: for callers of thousands of origins, each seldom. `address` (a literal IP address, on a connection of
        its own) is connected to in place of what the host's name means now: for callers that judged the address.

        Raises NotSent (nothing left this machine; safe to try again), Interrupted (outcome unknown), TooLarge (more
        than `max_bytes`, before or after decompression), BadAnswer (an encoding we did not ask for).
        """
        target = msgspec.structs.replace(_target(url), address=address)
        body = msgspec.json.encode(json) if json is not None else content
        lines = _header_lines(target, headers, is_json=json is not None, body=body)
        progress = oneshot.Progress()
        try:
            with trio.fail_after(total_s):
                tls = await self._tls_context() if target.scheme == b"https" else None
                if fresh or address is not None:
                    status, raw_headers, raw = await oneshot.exchange(
                        method, target, lines, body or b"", progress, tls, connect_s, read_s, max_bytes
                    )
                else:
                    status, raw_headers, raw = await self._pooled(
                        method, target, lines, body, progress, tls, connect_s, read_s, max_bytes
                    )
        except trio.TooSlowError:
            raise progress.failure(f"no answer within {total_s:g} s") from None
        except httpcore2.LocalProtocolError as error:
            raise NotSent(f"the request cannot be written on the wire: {error}") from None
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise progress.failure(f"{type(error).__name__}: {error}") from error
        answer_headers = _joined(raw_headers)
        return Response(status, answer_headers, _decoded(raw, answer_headers, max_bytes, status))

    async def aclose(self) -> None:
        """Close every idle connection. The client can be used again."""
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.aclose()

    async def _pooled(
        self,
        method: str,
        target: oneshot.Target,
        lines: list[tuple[bytes, bytes]],
        body: bytes | None,
        progress: oneshot.Progress,
        tls: ssl.SSLContext | None,
        connect_s: float,
        read_s: float,
        max_bytes: int,
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        async def trace(name: str, _: object) -> None:
            if name == _SENDING:
                progress.sending = True

        request = httpcore2.Request(
            method,
            httpcore2.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path),
            headers=lines,
            content=body,
            extensions={
                "timeout": {"pool": connect_s, "connect": connect_s, "read": read_s, "write": read_s},
                "trace": trace,
            },
        )
        origin = target.origin
        pool = await self._pool(origin, tls)
        self._in_use[origin] = self._in_use.get(origin, 0) + 1
        try:
            response = await pool.handle_async_request(request)
            try:
                received = bytearray()
                async with aclosing(response.aiter_stream()) as chunks:
                    async for chunk in chunks:
                        received += chunk
                        if len(received) > max_bytes:
                            raise TooLarge(f"the answer has more than {max_bytes} bytes", response.status)
            finally:
                await response.aclose()
        finally:
            self._in_use[origin] -= 1
            if not self._in_use[origin]:
                del self._in_use[origin]
        return response.status, response.headers, bytes(received)

    async def _pool(self, origin: oneshot.Origin, tls: ssl.SSLContext | None) -> httpcore2.AsyncConnectionPool:
        if (pool := self._pools.get(origin)) is not None:
            self._pools.move_to_end(origin)
            return pool
        pool = self._pools[origin] = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=self._connections,
            keepalive_expiry=self._keep_alive_s,
        )
        if len(self._pools) > _ORIGINS:
            oldest = next((each for each in self._pools if each not in self._in_use and each != origin), None)
            if oldest is not None:
                await self._pools.pop(oldest).aclose()
        return pool

    async def _tls_context(self) -> ssl.SSLContext:
        """The machine's trusted authorities; reading them takes 20 ms, so it is done once and off the loop."""
        async with self._tls_lock:
            if self._tls is None:
                self._tls = await trio.to_thread.run_sync(httpx2.create_ssl_context)
            return self._tls


def _target(url: str) -> oneshot.Target:
    try:
        parsed = httpcore2.URL(url)
        scheme, host = parsed.scheme, parsed.host
        port = parsed.port or {b"http": 80, b"https": 443}[scheme]
    except (KeyError, ValueError, UnicodeError, TypeError):
        raise NotSent(f"not an http or https URL: {url[:200]!r}") from None
    if not host or not 0 < port < 65_536:
        raise NotSent(f"not an http or https URL: {url[:200]!r}")
    if _ON_THE_WIRE.fullmatch(host) is None or _ON_THE_WIRE.fullmatch(parsed.target) is None:
        raise NotSent(f"the URL has characters that must be percent-encoded: {url[:200]!r}")
    return oneshot.Target(scheme, host, port, parsed.target, explicit_port=parsed.port is not None)


def _header_lines(
    target: oneshot.Target, headers: Mapping[str, str] | None, *, is_json: bool, body: bytes | None
) -> list[tuple[bytes, bytes]]:
    lines = {
        b"host": target.authority,
        b"user-agent": _USER_AGENT,
        b"accept": b"*/*",
        b"accept-encoding": b"identity",
    }
    if is_json:
        lines[b"content-type"] = b"application/json"
    try:
        lines |= {name.lower().encode("ascii"): value.encode("latin-1") for name, value in (headers or {}).items()}
    except UnicodeError:
        raise NotSent("a header cannot be written on the wire") from None
    lines.pop(b"transfer-encoding", None)
    lines.pop(b"content-length", None)
    if body is not None:
        lines[b"content-length"] = b"%d" % len(body)
    return list(lines.items())


def _joined(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _decoded(raw: bytes, headers: dict[str, str], max_bytes: int, status: int) -> bytes:
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding in ("identity", "") or not raw:
        return raw
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadAnswer(f"the answer is encoded as {encoding!r}, which nobody asked for")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        content = inflater.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise BadAnswer(f"the answer is not the {encoding} it says: {error}") from None
    if len(content) > max_bytes:
        raise TooLarge(f"the answer has more than {max_bytes} bytes", status)
    return content
