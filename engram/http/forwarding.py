"""Requests of other people, passed on as they came: raw header lines, bodies in parts, and failures by their phase.

    connect -> sending -> waiting -> reading -> done         the connection can be used again
       |          |          |          |
    NotSent       +----------+----------+-> Failed(reason)   the connection is closed

The client of this process's own requests is in `client`; here the caller writes the request's head itself, sends its
body while it reads the answer, and learns what went wrong where: a proxy answers 502 to one failure and 504 to another.
"""

import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from math import inf
from typing import Final, Literal, final

import trio

from engram.http.answers import END, AnswerHead, AnswerParser
from engram.http.dialling import Pools, dial
from engram.http.errors import NoPlace, NotSent, reason
from engram.http.framing import Headers, Refused
from engram.http.targets import Origin, Target
from engram.http.transport import Late, Transport

Reason = Literal["cut", "garbage", "first_byte_late", "idle_late", "total_late"]

_KEEP_ALIVE_S: Final = re.compile(rb"(?:.*[,; \t])?timeout=\"?([0-9]{1,9})\"?(?:[,; \t].*)?", re.IGNORECASE)
_MARGIN_S: Final = 1.0
"""How much sooner than the server says an idle connection is given up."""


@final
class Failed(Exception):
    """The server did not answer as it should; whether it did what was requested is unknown."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def head(method: str, path: bytes, lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the head of a request whose lines have been checked by our parser."""
    parts = [b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), path)]
    parts += [b"%b: %b\r\n" % line for line in lines]
    return b"".join(parts) + b"\r\n"


@final
class Forwarding:
    """One request and its answer on one connection."""

    __slots__ = ("_answer", "_due", "_ended", "_parser", "_sent", "_total_s", "origin", "transport")

    def __init__(self, origin: Origin, transport: Transport, total_s: float, *, bodyless: bool) -> None:
        self.origin = origin
        self.transport = transport
        self._parser = AnswerParser(bodyless=bodyless)
        self._total_s = total_s
        self._due = trio.current_time() + total_s if total_s else inf
        self._answer: AnswerHead | None = None
        self._sent = False
        self._ended = False

    @property
    def due(self) -> float:
        """When the whole answer is due, by trio's clock; infinity where no total time is set."""
        return self._due

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request."""
        if self._answer is None or not self._sent or self.transport.broken or not self._answer.keep:
            return False
        return self._ended and not self._parser.held

    @property
    def taking(self) -> bool:
        """Whether the server still takes bytes."""
        return not self.transport.broken

    @property
    def trailers(self) -> Headers:
        """The trailers of a chunked answer that has ended."""
        return self._parser.trailers if self._ended else []

    async def send(self, *parts: bytes, within_s: float = inf) -> bool:
        """Send bytes of the request; return False when the server did not take them within `within_s`.

        A server that no longer takes any (`taking`) is not an error yet.
        """
        sent = self.transport.write_now(*parts)
        if sent is None:
            return True
        with trio.CancelScope(deadline=trio.current_time() + within_s) as sending:
            await self.transport.write_rest(parts, sent)
        return not sending.cancelled_caught

    async def send_chunk(self, data: bytes, within_s: float) -> bool:
        """Send a part of a chunked body, as `send` does."""
        return await self.send(b"%x\r\n" % len(data), data, b"\r\n", within_s=within_s)

    async def send_end(self, trailers: Headers, within_s: float) -> bool:
        """End a chunked body, as `send` does."""
        end = b"0\r\n" + b"".join(b"%b: %b\r\n" % line for line in trailers) + b"\r\n"
        return await self.send(end, within_s=within_s)

    def sent(self) -> None:
        """Note that the whole request has been sent."""
        self._sent = True

    async def head(self, wait_s: float) -> AnswerHead:
        """Return the answer's head, which may take `wait_s` from now. Raises Failed."""
        due = trio.current_time() + wait_s
        while True:
            try:
                event = self._parser.next()
            except Refused as refused:
                raise Failed("garbage", refused.message) from None
            if isinstance(event, AnswerHead):
                self._answer = event
                if event.length == 0:
                    self._ended = self._parser.next() is END
                return event
            await self._fill(due, "first_byte_late", wait_s)

    async def part(self, wait_s: float) -> bytes | None:
        """Return the next bytes of the answer's body, None at its end. Raises Failed."""
        while not self._ended:
            try:
                event = self._parser.next()
            except Refused as refused:
                raise Failed("garbage", refused.message) from None
            if isinstance(event, bytes):
                return event
            if event is END:
                self._ended = True
            else:
                await self._fill(trio.current_time() + wait_s, "idle_late", wait_s)
        return None

    async def _fill(self, due: float, late: Reason, wait_s: float) -> None:
        data = b""
        with trio.CancelScope(deadline=min(self._due, due)) as waiting:
            try:
                data = await self.transport.read()
            except (OSError, Late, trio.ClosedResourceError) as error:
                raise Failed("cut", f"the connection broke: {reason(error)}") from error
        if waiting.cancelled_caught:
            if trio.current_time() >= self._due:
                raise Failed("total_late", f"not done within {self._total_s:g} s")
            raise Failed(late, f"nothing for {wait_s:g} s")
        if data:
            self._parser.feed(data)
            return
        if self.transport.damaged:
            raise Failed("cut", "the connection broke: its TLS is damaged")
        try:
            self._parser.end(cut=self.transport.cut)
        except Refused as refused:
            raise Failed("cut", refused.message) from None

    @property
    def keep_s(self) -> float:
        """Seconds for which the server says that it keeps the connection, less a margin."""
        answer = self._answer
        if answer is None:
            return 0.0
        for name, value in answer.headers:
            if name == b"keep-alive" and (match := _KEEP_ALIVE_S.fullmatch(value)) is not None:
                return max(0.0, int(match[1]) - _MARGIN_S)
        return inf


@final
class Upstream:
    """Connections to the servers of one group."""

    def __init__(self, connections: int, keep_alive_s: float, tls: ssl.SSLContext | None) -> None:
        """Take `tls` for https; connections are limited, and kept when idle, for each server."""
        self._pools = Pools(connections, keep_alive_s)
        self._tls = tls
        self._served: frozenset[Origin] | None = None
        """The only origins whose connections are kept; None: all."""

    async def acquire(self, target: Target, connect_s: float, total_s: float, *, bodyless: bool) -> Forwarding:
        """Return an open connection, an idle one where there is one; it is given back by `release`.

        Raises NotSent, and NoPlace where none became free within `connect_s`. `total_s` (0: unbounded) begins when the
        connection is there.
        """
        placed = self._pools.enter_now(target.origin)
        transport = self._pools.take(target.origin) if placed else None
        if transport is None:  # most requests find one, and pay for no deadline
            transport = await self._opened(target, connect_s, placed)
        return Forwarding(target.origin, transport, total_s, bodyless=bodyless)

    async def _opened(self, target: Target, connect_s: float, placed: bool) -> Transport:
        """Return a connection that has to be waited for; its place is held then."""
        origin = target.origin
        with trio.CancelScope(deadline=trio.current_time() + connect_s):
            if not placed:
                await self._pools.enter(origin)
                placed = True
            try:
                if (transport := self._pools.take(origin)) is not None:
                    return transport
                return await dial(target, self._tls if target.secure else None)
            except BaseException:
                self._pools.leave(origin)
                raise
        if not placed:
            raise NoPlace(f"all connections to {target.authority} are in use, and none became free in {connect_s:g} s")
        raise NotSent(f"no connection within {connect_s:g} s")

    def release(self, forwarding: Forwarding) -> None:
        """Keep a connection if it can be used again, else close it."""
        served = self._served is None or forwarding.origin in self._served
        keep_s = forwarding.keep_s if forwarding.reusable and served else 0.0
        if keep_s > 0.0:
            self._pools.leave(forwarding.origin, forwarding.transport, keep_s)
        else:
            forwarding.transport.close()
            self._pools.leave(forwarding.origin)

    @asynccontextmanager
    async def connection(
        self, target: Target, connect_s: float, total_s: float, *, bodyless: bool
    ) -> AsyncIterator[Forwarding]:
        """Yield what `acquire` returns, and release it afterwards."""
        forwarding = await self.acquire(target, connect_s, total_s, bodyless=bodyless)
        try:
            yield forwarding
        finally:
            self.release(forwarding)

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return self._pools.idle

    def close(self) -> None:
        """Close every idle connection."""
        self._pools.close()

    def change(
        self, connections: int, keep_alive_s: float, tls: ssl.SSLContext | None, served: frozenset[Origin]
    ) -> None:
        """Apply other bounds, and another `tls` to connections that are yet to be made; of origins that are not
        `served`, keep no connection from now on."""
        self._tls = tls
        self._served = served
        self._pools.change(connections, keep_alive_s)
        self._pools.close_others(served)

    def retire(self) -> None:
        """Close every idle connection, and keep none from now on."""
        self._served = frozenset()
        self._pools.close()
