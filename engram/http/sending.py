"""One request and its answer on one connection: sending, reading, deadlines, and what is known after a failure.

    unsent -> sending -> awaiting -> reading -> done        the connection can be used again
       |         |           |          |
    NotSent      +-----------+----------+-> Interrupted     the outcome is unknown; the connection is closed

What does not fit into the kernel's buffer at once is sent by a second task while the first one reads, because an answer
may arrive, and end, before the request has been sent. A server that stops reading (it has answered already) ends the
sending, not the answer. The wait for a head starts when the last byte of the request has been sent; until then only the
waits for room in the buffer are timed.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from math import inf
from typing import Final, TypeAlias, final

import msgspec
import trio

from engram.http import targets
from engram.http.answers import END, AnswerHead, AnswerParser
from engram.http.errors import Interrupted, reason
from engram.http.framing import Headers, Mark, Refused
from engram.http.targets import CHUNKED
from engram.http.transport import Late, Transport

Body: TypeAlias = bytes | AsyncIterable[bytes]
Trailers: TypeAlias = Callable[[], Headers]
"""Is called when a body of parts has ended."""

_AT_ONCE_BYTES: Final = 65_536
"""Bytes that the kernels buffer even when the peer does not read, so no second task is needed to send them."""


class Patience(msgspec.Struct, frozen=True):
    """The deadlines of a request."""

    due: float
    """The deadline of the whole request, on trio's clock."""
    total_s: float
    """The seconds from which `due` was computed."""
    answer_s: float
    """Seconds from the request's last byte to the first of its answer, and for each wait to send."""
    idle_s: float
    """Seconds to wait for each further part of the answer."""


@final
class Exchange:
    """A request in progress. Call `begin`, then `upload` concurrently with `head` and `part`; then see `reusable`."""

    __slots__ = (
        "_answer",
        "_failure",
        "_parser",
        "_patience",
        "_rest",
        "_sending",
        "_sent",
        "_trailers",
        "_waiting",
        "ended",
        "wire",
    )

    def __init__(
        self, wire: Transport, patience: Patience, *, bodyless: bool, trailers: Trailers | None = None
    ) -> None:
        self.wire = wire
        self._trailers = trailers
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
        """Close the connection; reading more of the answer raises ClosedResourceError."""
        self._failure = self._failure or trio.ClosedResourceError("the answer was left before its end")
        self.wire.close()

    @property
    def trailers(self) -> Headers:
        """The trailers of a chunked answer that has ended."""
        return self._parser.trailers if self.ended else []

    async def begin(self, head: bytes, body: Body) -> bool:
        """Send what fits without waiting for the server; return whether that was everything, else run `upload`."""
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

        An exception of the body's iterator is raised by `head` or `part`, unchanged.
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
            await self._send(b"0\r\n", targets.trailer_lines(self._trailers() if self._trailers else ()), b"\r\n")
        elif left:
            raise ValueError(f"the body has {'more' if left < 0 else 'less'} than the {length} bytes it declared")

    async def _send(self, *parts: bytes) -> None:
        for slices in _sliced(parts):
            due = min(self._patience.due, trio.current_time() + self._patience.answer_s)
            with trio.CancelScope(deadline=due) as wait:
                await self.wire.write(*slices)
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
            self._parser.end(cut=self.wire.cut)
        except Refused as refused:
            raise Interrupted(refused.message) from None

    def _late(self, what: str, wait_s: float) -> Interrupted:
        if trio.current_time() >= self._patience.due:
            return Interrupted(f"no answer within {self._patience.total_s:g} s")
        return Interrupted(f"{what} for {wait_s:g} s")


def _sliced(parts: tuple[bytes, ...]) -> Iterator[tuple[bytes, ...]]:
    """Yield what is written at once, so that a wait ends with each slice that the server takes."""
    if sum(map(len, parts)) <= _AT_ONCE_BYTES:
        yield parts
        return
    for part in parts:
        for at in range(0, len(part), _AT_ONCE_BYTES):
            yield (part[at : at + _AT_ONCE_BYTES],)


@asynccontextmanager
async def uploading(exchange: Exchange, length: int) -> AsyncIterator[None]:
    """Send the rest of a request while the block runs, and no longer; the block's exceptions pass unchanged."""
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
