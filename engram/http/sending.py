"""One request and its answer on one connection: what is sent, what is read, by when, and what is known if it fails.

    unsent -> sending -> awaiting -> reading -> done        the connection can be used again
       |         |           |          |
    NotSent      +-----------+----------+-> Interrupted     the outcome is unknown; the connection is closed

What does not go into the kernel at once is sent by a task beside the one that reads: an answer may come, and end,
before the request has. A server that stops reading (it answered already) ends the sending, not the answer. The wait
for a head begins when the last byte of the request is sent; until then only the waits for room count.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from math import inf
from typing import Final, TypeAlias, final

import msgspec
import trio

from engram.http.answers import END, AnswerHead, AnswerParser
from engram.http.errors import Interrupted, reason
from engram.http.framing import Headers, Mark, Refused
from engram.http.targets import CHUNKED
from engram.http.transport import Late, Transport

Body: TypeAlias = bytes | AsyncIterable[bytes]

_AT_ONCE_BYTES: Final = 65_536
"""What a peer's kernel takes although the peer reads nothing, so that it is sent without a second task."""


class Patience(msgspec.Struct, frozen=True):
    """How long a request may wait."""

    due: float
    """When everything ends, on trio's clock."""
    total_s: float
    """What `due` was set from."""
    answer_s: float
    """From the request's last byte to the first of its answer, and for room to send."""
    idle_s: float
    """For each further part of the answer."""


@final
class Exchange:
    """A request under way. `begin`, then `upload` beside `head` and `part`; then look at `reusable`."""

    __slots__ = (
        "_answer",
        "_failure",
        "_parser",
        "_patience",
        "_rest",
        "_sending",
        "_sent",
        "_waiting",
        "ended",
        "wire",
    )

    def __init__(self, wire: Transport, patience: Patience, *, bodyless: bool) -> None:
        self.wire = wire
        self._patience = patience
        self._parser = AnswerParser(bodyless=bodyless)
        self._rest: Body | None = None
        self._sent = False
        self._sending = False
        self._failure: Exception | None = None
        self._waiting: trio.CancelScope | None = None
        self._answer: AnswerHead | None = None
        self.ended = False

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request."""
        if self._answer is None or not self._sent or self.wire.broken or not self._answer.keep:
            return False
        if not self.ended and not self._parser.held:
            self.ended = self._answer.length == 0 and self._parser.next() is END
        return self.ended and not self._parser.held

    def close(self) -> None:
        """Close the connection; what is still read of the answer raises ClosedResourceError."""
        self._failure = self._failure or trio.ClosedResourceError("the answer was left before its end")
        self.wire.close()

    @property
    def trailers(self) -> Headers:
        """Behind a chunked answer that has ended."""
        return self._parser.trailers if self.ended else []

    async def begin(self, head: bytes, body: Body) -> bool:
        """Send what goes without waiting for the server; returns whether all went, else `upload` is to be run."""
        if not isinstance(body, bytes):
            self._rest, self._sending = body, True
            await self._send(head)
            return False
        data = head + body if len(body) <= _AT_ONCE_BYTES else head
        await self._send(data)
        if data is head and body:
            self._rest, self._sending = body, True
            return False
        self._sent = True
        return True

    async def upload(self, length: int) -> None:
        """Send the rest of the body, which has `length` bytes, or is CHUNKED.

        What the body's own iterator raises comes out of `head` or `part`, as its own.
        """
        try:
            if isinstance(self._rest, bytes):
                await self._send(self._rest)
            elif self._rest is not None:
                await self._send_parts(self._rest, length)
            self._sent = not self.wire.broken
        except Exception as error:  # noqa: BLE001  # the caller's own iterator may raise anything, and gets it back
            self._failure = error
            self.wire.close()
        self._sending = False
        if self._waiting is not None:
            self._waiting.deadline = min(self._patience.due, trio.current_time() + self._patience.answer_s)

    async def _send_parts(self, body: AsyncIterable[bytes], length: int) -> None:
        async with aclosing(body) if isinstance(body, AsyncGenerator) else nullcontext(body) as parts:
            await self._send_each(parts, length)

    async def _send_each(self, parts: AsyncIterable[bytes], length: int) -> None:
        left = length
        async for part in parts:
            if not part:
                continue
            if length == CHUNKED:
                await self._send(b"%x\r\n" % len(part), part, b"\r\n")
            else:
                left -= len(part)
                if left < 0:
                    break
                await self._send(part)
            if self.wire.broken:
                return
        if length == CHUNKED:
            await self._send(b"0\r\n\r\n")
        elif left:
            raise ValueError(f"the body has {'more' if left < 0 else 'less'} than the {length} bytes it declared")

    async def _send(self, *parts: bytes) -> None:
        with trio.CancelScope(deadline=min(self._patience.due, trio.current_time() + self._patience.answer_s)) as wait:
            await self.wire.write(*parts)
        if wait.cancelled_caught:
            raise self._late("the server takes nothing", self._patience.answer_s)

    async def head(self) -> AnswerHead:
        """Return the answer's head. Raises Interrupted."""
        while True:
            event = self._next()
            if isinstance(event, AnswerHead):
                self._answer = event
                return event
            await self._fill(inf if self._sending else self._patience.answer_s)

    async def part(self) -> bytes | None:
        """Return the next bytes of the answer's body, None at its end. Raises Interrupted."""
        while not self.ended:
            event = self._next()
            if isinstance(event, bytes):
                return event
            if event is END:
                self.ended = True
            else:
                await self._fill(self._patience.idle_s)
        return None

    def _next(self) -> AnswerHead | bytes | Mark:
        try:
            return self._parser.next()
        except Refused as refused:
            raise Interrupted(refused.message) from None

    async def _fill(self, wait_s: float) -> None:
        """Wait for bytes and give them to the parser."""
        if self._failure is not None:
            raise self._failure
        deadline = min(self._patience.due, trio.current_time() + wait_s)
        waiting = self._waiting = trio.CancelScope(deadline=deadline)
        data = b""
        try:
            with waiting:
                data = await self.wire.read()
        except (OSError, Late, trio.ClosedResourceError) as error:
            if self._failure is not None:
                raise self._failure from None
            raise Interrupted(f"the connection broke: {reason(error)}") from error
        finally:
            self._waiting = None
        if waiting.cancelled_caught:
            raise self._late("nothing of the answer", self._patience.answer_s if wait_s == inf else wait_s)
        if data:
            self._parser.feed(data)
            return
        if self.wire.damaged:
            raise Interrupted("the connection broke: its TLS is damaged")
        try:
            self._parser.end()
        except Refused as refused:
            raise Interrupted(refused.message) from None

    def _late(self, what: str, wait_s: float) -> Interrupted:
        if trio.current_time() >= self._patience.due:
            return Interrupted(f"no answer within {self._patience.total_s:g} s")
        return Interrupted(f"{what} for {wait_s:g} s")


@asynccontextmanager
async def uploading(exchange: Exchange, length: int) -> AsyncIterator[None]:
    """Send the rest of a request beside the block, and no longer than it; what the block raises leaves as it is."""
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.upload, length)
        try:
            yield
        except BaseException as error:  # noqa: BLE001  # raised again outside the nursery, which would wrap it
            raised = error
        nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised
