"""One client connection: a single task reads and answers request after request.

    idle --a byte--> head --whole--> answering --last body sent, request read--> idle | lingering | closed

- idle: the end of input, `idle_s`, a drain or an eviction close it; what arrived in the same instant is served first.
- head: `head_s` after its first byte it is answered 408; a refused one is answered in its turn, then lingering.
- answering: the application runs in this task (cycle.py). Nothing is read unless it asks. When a request ends, at most
  `discard_bytes` of a body that was left unread are read away; a larger rest ends the connection.
- lingering: our side is closed, and input is read for `linger_s`, so that no TCP reset overtakes the answer. Under
  pressure it is the first to be closed.

Back-pressure, and the order of answers and refusals, follow from the single task: there is no queue, no lock, no second
task and no cancel scope on the path of a request. A connection notes its deadlines (`read_due`, `write_due`); the
server's sweeper wakes those that are late. The application is never cancelled because of its client.
"""

import contextlib
from math import inf
from typing import TYPE_CHECKING, Final, final

import msgspec
import trio

from engram.http.cycle import REST_S, Cycle
from engram.http.head import Head, Refused
from engram.http.limits import too_often
from engram.http.parser import NEED, Parser
from engram.http.transport import LATE, ClientAddress, Late, Transport
from engram.http.websocket import WebSocket

if TYPE_CHECKING:
    from engram.http.server import Server


_FRESH_S: Final = 1.0
"""A connection younger than this when a drain begins may still send its first request; a head that has begun has as
long for its rest."""
_SHAKE_S: Final = 2.0
"""While the server drains, the time of a TLS handshake."""


_STUCK_S: Final = 1.5
"""A client that takes nothing of its answer for longer makes room for others, where all connections are taken."""


class Patience(msgspec.Struct, frozen=True):
    """How long a connection waits, in seconds, and how much of an unread body it discards."""

    idle_s: float = 30.0
    """Between requests, and from connecting to the first byte."""
    head_s: float = 10.0
    """From the first byte of a request to the end of its head."""
    body_s: float = 20.0
    """From the head to the end of the body; of a streamed body, for each part."""
    send_s: float = 30.0
    """Seconds for the client to accept written bytes."""
    linger_s: float = 1.0
    linger_bytes: int = 4_194_304
    discard_bytes: int = 65_536
    """Bytes of a body left unread by the application that are discarded to keep the connection open."""


@final
class Connection:
    """Serves one accepted socket until it is closed. Only its own task and the server's sweeper touch it."""

    __slots__ = (
        "_answering",
        "_fresh_until",
        "_head_begun",
        "_opened",
        "_patience",
        "_waiting_since",
        "body_since",
        "client",
        "parser",
        "server",
        "transport",
        "websocket",
    )

    def __init__(self, server: "Server", transport: Transport, client: ClientAddress) -> None:
        self.server = server
        self.transport = transport
        self.client = client
        self.parser = Parser(server.bounds)
        self._head_begun = False  # a part of the next request's head has come
        self._waiting_since = next(server.turns)
        self.websocket = False
        self._answering = False
        self._opened = False
        self.body_since: int | None = None
        """The server's turn since which a body is awaited by a request that has no answer yet, or has it whole; or a
        WebSocket's next bytes."""
        self._patience = server.patience
        self._fresh_until = server.now + _FRESH_S

    @property
    def idle_since(self) -> int | None:
        """The turn since which it has been idle; None while it has a whole request or a part was just read."""
        if self._answering:
            return self.transport.stuck_since if self._stuck else self.body_since
        if self.parser.held and not self._head_begun:
            return None
        return self._waiting_since

    @property
    def blocked_since(self) -> int | None:
        """The turn since which its client has taken nothing of its answer; None while it waits for no client."""
        return None if self.transport.stuck_at == inf else self.transport.stuck_since

    @property
    def arriving(self) -> bool:
        """Whether a request, or more of a body, has arrived that was not read yet."""
        if self.transport.stuck_at != inf:
            return False  # what it has sent meanwhile is not read
        return (self._answering or not self._head_begun) and self.transport.has_bytes()

    @property
    def _stuck(self) -> bool:
        """Whether the client has taken nothing of its answer for a while."""
        return self.transport.stuck_at < self.server.now - _STUCK_S

    def drain(self) -> None:
        """Stop waiting for a request, and end a WebSocket; what has begun (a handshake of TLS, a head, a body) has a
        short time for its rest, and a request that is being answered is left alone."""
        if not self._opened:
            self.transport.read_due = min(self.transport.read_due, self.server.now + _SHAKE_S)
        elif self.websocket or not self._answering:
            self.transport.call_back()
        elif self.transport.read_due != inf:
            self.transport.read_due = min(self.transport.read_due, self.server.now + REST_S)

    async def run(self) -> None:
        """Serve until the client disconnects, a deadline passes or the server drains. Raises no socket errors."""
        server, transport = self.server, self.transport
        try:
            if not await transport.open(server.now + (_SHAKE_S if server.draining else self._patience.head_s)):
                return
            self._opened = True
            if server.draining and transport.secure:
                self._fresh_until = server.now + _FRESH_S
            while (head := await self._next_head()) is not None:
                self._answering = True
                cycle = Cycle(self, head)
                if head.upgrade:
                    self.websocket = True
                    await WebSocket(self, head, cycle.scope()).run()
                    await self._linger()
                    return
                await cycle.run()
                if not cycle.keep or transport.broken:
                    await self._linger()
                    return
                self._head_begun = self._answering = False
                transport.called_back = False  # it was about this request
                if self.parser.held:
                    await trio.lowlevel.checkpoint()  # another request is here already: others first
        except Refused as refused:
            await self.refuse(refused)
        except (OSError, Late, trio.ClosedResourceError, trio.BrokenResourceError):
            pass
        finally:
            transport.close()

    async def _next_head(self) -> Head | None:
        parser, server, transport = self.parser, self.server, self.transport
        self._waiting_since = next(server.turns)
        transport.read_due = server.now + self._patience.idle_s
        while (event := parser.next()) is NEED:
            if server.draining:
                if not (data := transport.read_now() or await self._last_bytes()):
                    return None
                parser.feed(data)
                continue
            if not self._head_begun and parser.held:
                self._head_begun = True
                transport.read_due = server.now + self._patience.head_s
            try:
                data = await transport.read()
            except Late:
                data = transport.read_now()  # what came in the same instant is served
                if not self._head_begun or server.draining:
                    transport.read_due = server.now + self._patience.head_s
                elif data:
                    transport.read_due = LATE
                else:
                    raise Refused(408, "head_timeout", "the headers did not arrive in time") from None
            if not data and not (data := await self._last_bytes()):
                return None
            self._fresh_until = 0.0
            parser.feed(data)
        transport.read_due = inf
        transport.called_back = False  # a drain that met this request on its way does not end the wait for its body
        assert isinstance(event, Head)
        return event

    async def _last_bytes(self) -> bytes:
        """Wait, in a drain, for the first bytes of a connection that was opened just before it, and for the rest of a
        head that has begun: their clients could not know.

        Returns none when that takes too long, or the client has gone.
        """
        if not self.server.draining:
            return b""
        if self.parser.held and not (self._head_begun and self._fresh_until):
            self._head_begun, self._fresh_until = True, self.server.now + _FRESH_S
        if self.server.now >= self._fresh_until:
            return b""
        self.transport.read_due, self.transport.called_back = self._fresh_until, False
        try:
            return await self.transport.read()
        except Late:
            return self.transport.read_now()

    async def refuse(self, refused: Refused) -> None:
        """Answer a request that did not reach the application, and close."""
        if not self._answering and (wait_s := self.server.count_refusal(self.client[0])):
            bodyless, origin = refused.bodyless, refused.origin
            refused = too_often(wait_s)
            refused.bodyless, refused.origin = bodyless, origin
        self._answering = True
        await self.transport.write(self.server.refusal(refused, self.client[0]))
        await self._linger()

    async def _linger(self) -> None:
        transport = self.transport
        if transport.broken:
            return
        self.server.end(self)
        with contextlib.suppress(OSError, Late, trio.ClosedResourceError, trio.BrokenResourceError):
            transport.read_due, transport.called_back = self.server.now + self._patience.linger_s, False
            await transport.end()
            seen = 0
            while seen < self._patience.linger_bytes and (data := await transport.read()):
                seen += len(data)
