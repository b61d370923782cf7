"""A client that is watched while something is done for it: one that leaves ends the work."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import trio

from engram.http.asgi import Receive
from engram.proxy.endings import Phase
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Gone

T = TypeVar("T")

GONE_IN: Final[dict[Phase, str]] = {
    "queue": "client_gone_queue",
    "body": "client_gone_body",
    "upload": "client_gone_body",
    "answer": "client_gone_answer",
}
"""Endings by the phase in which a client leaves; client_gone in all others."""


@final
class Watch:
    """A client that sends nothing but its leaving: its body has been read, or its WebSocket is not open yet."""

    def __init__(self, receive: Receive, request: Incoming) -> None:
        self.receive = receive
        self._request = request

    async def unless_gone(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work. Raises Gone if the client leaves before it is done, and what the work raises."""
        done: list[T] = []
        raised: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leaves, nursery.cancel_scope)
            try:
                done.append(await work())
            except Exception as error:  # noqa: BLE001 -- raised again outside the nursery, which would wrap it
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised
        if not done:
            self._request.code = GONE_IN.get(self._request.phase, "client_gone")
            raise Gone
        return done[0]

    async def _leaves(self, scope: trio.CancelScope) -> None:
        await self.receive()
        scope.cancel()
