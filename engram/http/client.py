"""The outbound HTTP client: the only place from which requests leave this process.

Our own HTTP/1.1 on trio: `targets` (URLs and request heads), `dialling` (connections and their pools), `sending` (one
request and its answer), `answers` (the parser), `responses` (what callers get). It follows no redirects, keeps no
cookies, uses no proxies, retries nothing, upgrades nothing, and decodes only the encodings that it asked for.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf
from typing import TypeAlias, final

import msgspec
import trio

from engram.http import targets
from engram.http.authorities import machine_tls
from engram.http.dialling import Pools, dial
from engram.http.errors import BadAnswer, HttpError, Interrupted, NotSent, TooLarge
from engram.http.responses import Answer, Response, whole
from engram.http.sending import Body, Exchange, Patience, Trailers, uploading
from engram.http.targets import CHUNKED, Target
from engram.http.transport import Transport
from engram.http.unix import dial_unix
from engram.http.websocket_client import WebSocketClient, open_websocket

__all__ = ["Answer", "BadAnswer", "HttpClient", "HttpError", "Interrupted", "NotSent", "Response", "TooLarge"]

Resolve: TypeAlias = Callable[[str, int], Awaitable[str]]
"""(host, port) -> what is connected to, an address or the host itself. Raises NotSent where that must not be."""


@final
class HttpClient:
    """Sends requests with deadlines; its errors say whether a failed request may have been processed."""

    def __init__(
        self,
        *,
        connections_per_origin: int = 100,
        keep_alive_s: float = 4.0,
        tls: ssl.SSLContext | None = None,
        unix_socket: str = "",
        resolve: Resolve | None = None,
    ) -> None:
        """Take how long idle connections are kept: less than the 5 s after which common servers close them.

        `tls` is the context to use (`ssl.create_default_context(cafile=…)` trusts one certificate alone); without it
        the machine's authorities are trusted. `unix_socket` is the path that every connection of this client goes to,
        whatever host its URLs name. `resolve` decides for each new connection which address is connected to, for
        clients whose hosts are named by strangers.
        """
        self._resolve = resolve
        self._unix_socket = unix_socket
        self._pools = Pools(connections_per_origin, keep_alive_s)
        self._tls = tls
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

        `json` is encoded by msgspec and wins over `content`. `connect_s` covers waiting for a connection and making it,
        `read_s` each wait for more of the answer, `total_s` everything. `fresh` uses a new connection and closes it,
        for callers of thousands of origins, each seldom. `address` (a literal IP address) is connected to instead of
        resolving the host's name, on a new connection, for callers that have vetted the address.

        Raises NotSent (nothing left this machine; safe to try again), Interrupted (outcome unknown), TooLarge (more
        than `max_bytes`, before or after decompression), BadAnswer (an encoding we did not ask for).
        """
        target = targets.target(url)
        body = msgspec.json.encode(json) if json is not None else content
        keep = not fresh and address is None
        length = None if body is None else len(body)
        head = targets.head(method, target, headers, length=length, is_json=json is not None, keep=keep)
        patience = Patience(trio.current_time() + total_s, total_s, read_s, read_s)
        exchange = await self._open(target, patience, connect_s, method, keep=keep, address=address)
        try:
            if await exchange.begin(head, body or b""):
                return await whole(exchange, max_bytes)
            async with uploading(exchange, length or 0):
                return await whole(exchange, max_bytes)
        finally:
            self._close(target, exchange, keep=keep)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        length: int | None = None,
        trailers: Trailers | None = None,
        connect_s: float = 3.0,
        answer_s: float = 10.0,
        idle_s: float = 10.0,
        total_s: float = inf,
        fresh: bool = False,
        address: str | None = None,
    ) -> AsyncIterator[Answer]:
        """Send one request and read its answer as it arrives, both at once and with back-pressure.

        A body of parts is sent chunked, or as `length` bytes where that is given; `trailers` is called when a chunked
        one has ended, and returns what is sent after it. The block is entered with the
        answer's head, which may come before the body has been sent; leaving it ends both: the rest of the body is not
        sent, and a connection whose answer was not read to its end is closed. `answer_s` runs from the last byte sent
        to the answer's head and bounds each wait for room to send, `idle_s` each wait for more of the answer, `total_s`
        everything inside the block that waits for the server.

        Raises NotSent and Interrupted as `request` does, and what the body's iterator raises.
        """
        target = targets.target(url)
        keep = not fresh and address is None
        if trailers is not None and (isinstance(body, bytes | None) or length is not None):
            raise NotSent("only a body that is sent chunked has trailers")
        if isinstance(body, bytes):
            length = len(body)
        elif body is not None and length is None:
            length = CHUNKED
        head = targets.head(method, target, headers, length=length, keep=keep)
        patience = Patience(trio.current_time() + total_s, total_s, answer_s, idle_s)
        exchange = await self._open(target, patience, connect_s, method, keep=keep, address=address, trailers=trailers)
        try:
            if await exchange.begin(head, b"" if body is None else body):
                yield Answer(await exchange.head(), exchange)
            else:
                async with uploading(exchange, length or 0):
                    yield Answer(await exchange.head(), exchange)
        finally:
            self._close(target, exchange, keep=keep)

    async def websocket(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connect_s: float = 3.0,
        answer_s: float = 10.0,
        max_bytes: int = 1_000_000,
        drops_large: bool = False,
    ) -> WebSocketClient:
        """Open a WebSocket at a http(s) URL, on a connection of its own; close it after use.

        `answer_s` runs from the connection to the handshake's answer; a message may have `max_bytes`; a larger
        one closes the connection, or is dropped alone. Raises NotSent, Interrupted and BadAnswer (refused, or no
        WebSocket).
        """
        secure = targets.target(url).secure
        return await open_websocket(
            url,
            headers=(headers or {}).items(),
            tls=(self._tls or await self._system_tls()) if secure else None,
            connect_s=connect_s,
            answer_s=answer_s,
            max_bytes=max_bytes,
            drops_large=drops_large,
        )

    @property
    def idle_connections(self) -> int:
        """The number of idle connections."""
        return self._pools.idle

    async def aclose(self) -> None:
        """Close every idle connection. The client can be used again."""
        self._pools.close()

    async def _open(
        self,
        target: Target,
        patience: Patience,
        connect_s: float,
        method: str,
        *,
        keep: bool,
        address: str | None,
        trailers: Trailers | None = None,
    ) -> Exchange:
        """Return an exchange on an open connection; pass every one that is returned to `_close`.

        Raises NotSent.
        """
        with trio.CancelScope(deadline=min(patience.due, trio.current_time() + connect_s)):
            tls = None if not target.secure else self._tls or await self._system_tls()
            connection = await self._connection(target, tls) if keep else await self._dial(target, tls, address)
            return Exchange(connection, patience, bodyless=method == "HEAD", trailers=trailers)
        raise NotSent(f"no connection within {min(connect_s, patience.total_s):g} s")

    async def _connection(self, target: Target, tls: ssl.SSLContext | None) -> Transport:
        await self._pools.enter(target.origin)
        try:
            return self._pools.take(target.origin) or await self._dial(target, tls)
        except BaseException:
            self._pools.leave(target.origin)
            raise

    async def _dial(self, target: Target, tls: ssl.SSLContext | None, address: str | None = None) -> Transport:
        if self._unix_socket:
            return await dial_unix(self._unix_socket)
        if address is None and self._resolve is not None:
            address = await self._resolve(target.host, target.port)
        return await dial(target, tls, address)

    def _close(self, target: Target, exchange: Exchange, *, keep: bool) -> None:
        reusable = keep and exchange.reusable
        if not reusable:
            exchange.close()
        if keep:
            self._pools.leave(target.origin, exchange.wire if reusable else None)

    async def _system_tls(self) -> ssl.SSLContext:
        """Return the machine's trusted authorities; reading them takes 20 ms, so it is done once and off the loop."""
        async with self._tls_lock:
            if self._tls is None:
                self._tls = await trio.to_thread.run_sync(machine_tls)
            return self._tls
