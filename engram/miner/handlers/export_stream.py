"""Streams an export as one answer with a JSON document a line, for clients that do not want pages.

It sends the same pages as /export, kind after kind, with one page in memory. The last line, `{"kind": "end", …}`, has
the signed root over everything that the node holds. An answer without it was cut off; continue after its last line
(`kind`, and `id` as `after`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, final

import msgspec
import structlog
import trio

from engram.http.asgi import Receive, Send
from engram.http.sse import EventStream
from engram.memory.errors import MemoryAreaError
from engram.memory.upkeep.export_pages import KINDS, Kind, Page

CONTENT_TYPE = "application/x-ndjson"
AT_ONCE = 2
_TAKEN_WITHIN_S = 60.0
"""The most seconds a client may take for a page: one slower than 17 kB/s is disconnected."""

ReadPage = Callable[[Kind, int], Awaitable[Page]]
LastLine = Callable[[int], Awaitable[object]]

_log = structlog.get_logger("engram.miner")


@final
class ExportStream(EventStream):
    """A streamed export, run as an event stream; `counted` is called with 1 at its start and -1 at its end."""

    def __init__(self, read: ReadPage, end: LastLine, counted: Callable[[int], None], first: Kind, after: int) -> None:
        """`read` returns pages, starting with kind `first` after number `after`; `end` makes the last line."""
        super().__init__(_nothing, 0.0)
        self.headers["Content-Type"] = CONTENT_TYPE
        self._read = read
        self._end = end
        self._counted = counted
        self._first = first
        self._after = after

    async def run(self, receive: Receive, send: Send, draining: trio.Event) -> None:
        """Send the body until it is complete, the client leaves or is too slow, or the server drains."""
        self._counted(1)
        try:
            async with trio.open_nursery() as nursery:

                async def ends(awaited: Callable[[], Awaitable[Any]]) -> None:
                    await awaited()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(ends, lambda: _left(receive))
                nursery.start_soon(ends, draining.wait)
                nursery.start_soon(ends, lambda: self._send_all(send))
        finally:
            self._counted(-1)

    async def _send_all(self, send: Send) -> None:
        try:
            async with aclosing(self._pages()) as pages:
                async for lines in pages:
                    with trio.fail_after(_TAKEN_WITHIN_S):
                        await send({"type": "http.response.body", "body": lines, "more_body": True})
        except (MemoryAreaError, trio.TooSlowError) as error:
            _log.warning("export_cut_off", reason=str(error) or "the client takes too long")

    async def _pages(self) -> AsyncGenerator[bytes]:
        count = 0
        after: int | None = self._after
        for kind in KINDS[KINDS.index(self._first) :]:
            while after is not None:
                page = await self._read(kind, after)
                count += len(page.documents)
                if page.documents:
                    yield _lines(page.documents)
                after = page.next
            after = 0
        yield _lines([await self._end(count)])


def _lines(documents: Sequence[object]) -> bytes:
    return b"".join(msgspec.json.encode(document) + b"\n" for document in documents)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _nothing(_: object) -> None:
    """Produce nothing: this stream sends pages instead of events."""
