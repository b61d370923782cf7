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
from engram.http.targets import Target
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

    __slots__ = ("_answer", "_due", "_ended", "_parser", "_sent", "_total_s", "reused", "transport")

    def __init__(self, transport: Transport, total_s: float, *, bodyless: bool, reused: bool) -> None:
        self.transport = transport
        self.reused = reused
        """Whether the connection carried other requests before."""
        self._parser = AnswerParser(bodyless=bodyless)
        self._total_s = total_s
        self._due = trio.current_time() + total_s if total_s else inf
        self._answer: AnswerHead | None = None
        self._sent = False
        self._ended = False

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

    async def send(self, *parts: bytes) -> None:
        """Send bytes of the request; a server that no longer takes them (`taking`) is not an error yet."""
        await self.transport.write(*parts)

    async def send_chunk(self, data: bytes) -> None:
        """Send a part of a chunked body."""
        await self.send(b"%x\r\n" % len(data), data, b"\r\n")

    async def send_end(self, trailers: Headers) -> None:
        """End a chunked body."""
        await self.send(b"0\r\n" + b"".join(b"%b: %b\r\n" % line for line in trailers) + b"\r\n")

    def sent(self) -> None:
        """Note that the whole request has been sent."""
        self._sent = True

    async def head(self, wait_s: float) -> AnswerHead:
        """Return the answer's head; each wait for a part of it may take `wait_s`. Raises Failed."""
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
            await self._fill(wait_s, "first_byte_late")

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
                await self._fill(wait_s, "idle_late")
        return None

    async def _fill(self, wait_s: float, late: Reason) -> None:
        deadline = min(self._due, trio.current_time() + wait_s)
        data = b""
        with trio.CancelScope(deadline=deadline) as waiting:
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
            self._parser.end()
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
        self._retired = False

    @asynccontextmanager
    async def connection(
        self, target: Target, connect_s: float, total_s: float, *, bodyless: bool, fresh: bool = False
    ) -> AsyncIterator[Forwarding]:
        """Yield an open connection; afterwards it is kept if it can be used again, else closed.

        Raises NotSent, and NoPlace where none became free within `connect_s`. `total_s` (0: unbounded) begins when the
        connection is there.
        """
        origin = target.origin
        transport: Transport | None = None
        reused = has_place = False
        with trio.CancelScope(deadline=trio.current_time() + connect_s) as connecting:
            await self._pools.enter(origin)
            has_place = True
            try:
                transport = None if fresh else self._pools.take(origin)
                reused = transport is not None
                if transport is None:
                    transport = await dial(target, self._tls if target.secure else None)
            except BaseException:
                self._pools.leave(origin)
                raise
        if not has_place:
            raise NoPlace(f"all connections to {target.authority} are in use, and none became free in {connect_s:g} s")
        if connecting.cancelled_caught or transport is None:
            raise NotSent(f"no connection within {connect_s:g} s")
        forwarding = Forwarding(transport, total_s, bodyless=bodyless, reused=reused)
        try:
            yield forwarding
        finally:
            keep_s = forwarding.keep_s if forwarding.reusable and not self._retired else 0.0
            if keep_s > 0.0:
                self._pools.leave(origin, transport, keep_s)
            else:
                transport.close()
                self._pools.leave(origin)

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return self._pools.idle

    def close(self) -> None:
        """Close every idle connection."""
        self._pools.close()

    def retire(self) -> None:
        """Close every idle connection, and keep none from now on."""
        self._retired = True
        self._pools.close()
