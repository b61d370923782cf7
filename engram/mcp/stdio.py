"""The stdio transport: one message a line in, one a line out. Requests of one client run side by side.

A line longer than MAX_MESSAGE_BYTES is refused without being kept. So is a request while AT_ONCE are in progress: what
ends one of them must always be read. `notifications/cancelled` ends the call that it names, which is then not answered.
The end of the input ends the server, after the calls in progress.
"""

import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, final

import msgspec
import trio

from engram.mcp import rules
from engram.mcp.dispatcher import CALLS_AT_ONCE, MAX_MESSAGE_BYTES, Dispatcher
from engram.mcp.model import BUSY, INVALID_REQUEST, LOCAL, McpError, Message, RequestId

AT_ONCE: Final = CALLS_AT_ONCE
"""Requests in progress; more are refused until one is answered. As many notifications may be, more are dropped."""
_PART: Final = 65_536

Respond = Callable[[bytes, Message | None], Awaitable[bytes | None]]
"""Takes a line, and the message in it (None where it holds none); returns the line to answer with."""


def serves(dispatcher: Dispatcher) -> Respond:
    """Return what answers the lines of a client on this machine."""

    async def respond(line: bytes, message: Message | None) -> bytes | None:
        if message is None:
            return (await dispatcher.answer(line, LOCAL)).body
        return (await dispatcher.respond(message, LOCAL)).body

    return respond


async def serve(respond: Respond, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
    """Answer the lines of `source` on `sink` until it ends."""
    await _Conversation(respond, sink).run(source)


@final
class _Conversation:
    def __init__(self, respond: Respond, sink: trio.abc.SendStream) -> None:
        self._respond = respond
        self._sink = sink
        self._writing = trio.Lock()
        self._requests, self._notifications = trio.Semaphore(AT_ONCE), trio.Semaphore(AT_ONCE)
        self._running: dict[RequestId, trio.CancelScope] = {}

    async def run(self, source: trio.abc.ReceiveStream) -> None:
        async with trio.open_nursery() as nursery:
            async for line in Lines(source):
                if line is None:
                    text = f"a message has at most {MAX_MESSAGE_BYTES} bytes"
                    await self._write(refused_line(McpError(INVALID_REQUEST, text)))
                    continue
                try:
                    message = rules.read(line)
                except McpError:
                    message = None
                if message is not None and message.method == "notifications/cancelled":
                    self._cancel(message)
                    continue
                request_id = None if message is None or isinstance(message.id, msgspec.UnsetType) else message.id
                is_notification = message is not None and request_id is None
                room = self._notifications if is_notification else self._requests
                if request_id is not None and request_id in self._running:
                    await self._write(refused_line(_TWICE, request_id))
                elif _acquired(room):
                    scope = trio.CancelScope()
                    if request_id is not None:
                        self._running[request_id] = scope
                    nursery.start_soon(self._answer, line, message, request_id, room, scope)
                    await trio.lowlevel.checkpoint()  # they begin in the order in which they came
                elif not is_notification:
                    await self._write(refused_line(_FULL, request_id))

    async def _answer(
        self,
        line: bytes,
        message: Message | None,
        request_id: RequestId | None,
        room: trio.Semaphore,
        scope: trio.CancelScope,
    ) -> None:
        with scope:
            try:
                answer = await self._respond(line, message)
                if answer is not None:
                    await self._write(answer)
            finally:
                room.release()
                if request_id is not None:
                    self._running.pop(request_id, None)

    async def _write(self, answer: bytes) -> None:
        async with self._writing:
            with trio.CancelScope(shield=True):  # half a line would spoil all that follow
                try:
                    await self._sink.send_all(answer + b"\n")
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

    def _cancel(self, message: Message) -> None:
        params = {} if isinstance(message.params, msgspec.UnsetType) else message.params
        named = params.get("requestId")
        scope = self._running.get(named) if isinstance(named, (int, str)) else None
        if scope is not None:
            scope.cancel()


@final
class Lines:
    """The lines of a stream without their ends, empty ones left out; None for one that is too long."""

    def __init__(self, source: trio.abc.ReceiveStream) -> None:
        self._source = source
        self._held = bytearray()
        self._too_long = False
        self._ready: deque[bytes | None] = deque()
        self._ended = False

    def __aiter__(self) -> "Lines":
        return self

    async def __anext__(self) -> bytes | None:
        """Return the next line. Raises StopAsyncIteration at the end of the stream."""
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            await self._read()
        return self._ready.popleft()

    async def _read(self) -> None:
        try:
            part = bytes(await self._source.receive_some(_PART))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            part = b""
        *ended, rest = part.split(b"\n")
        for piece in ended:
            self._held += piece
            self._end_line()
        self._held += rest
        if len(self._held) > MAX_MESSAGE_BYTES:
            self._held, self._too_long = bytearray(), True
        if not part:
            self._end_line()
            self._ended = True

    def _end_line(self) -> None:
        if self._too_long or len(self._held) > MAX_MESSAGE_BYTES:
            self._ready.append(None)
        elif self._held.strip():
            self._ready.append(bytes(self._held))
        self._held, self._too_long = bytearray(), False


def refused_line(error: McpError, request_id: RequestId | None = None) -> bytes:
    """Return the response to a request; without an id to what holds none."""
    shown = {"code": error.code, "message": error.message}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": shown})


def _acquired(room: trio.Semaphore) -> bool:
    try:
        room.acquire_nowait()
    except trio.WouldBlock:
        return False
    return True


_FULL: Final = McpError(BUSY, f"{AT_ONCE} requests are in progress: try again in a moment")
_TWICE: Final = McpError(INVALID_REQUEST, "a request of this id is in progress: each has an id of its own")


def standard_streams() -> tuple[trio.abc.ReceiveStream, trio.abc.SendStream]:
    """Return this process's standard input and output; what else it prints must go to standard error."""
    return trio.lowlevel.FdStream(os.dup(0)), trio.lowlevel.FdStream(os.dup(1))
