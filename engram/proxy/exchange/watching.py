"""Clients that are watched while something is done for them: one that leaves ends the work.

A request that is answered at once is never watched, because a task for each would cost a tenth of what passing it on
costs: `Watches` begins after a moment, well within the time in which a client's leaving must be noticed.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import structlog
import trio

from engram.http.asgi import Receive
from engram.proxy.endings import Phase
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Gone

T = TypeVar("T")
_MOMENT_S: Final = 0.02
"""Clients are watched once their request has taken this long, or up to twice as long."""

GONE_IN: Final[dict[Phase, str]] = {
    "queue": "client_gone_queue",
    "body": "client_gone_body",
    "answer": "client_gone_answer",
}
"""Endings by the phase in which a watched client leaves; client_gone in all others, also while a body that the client
has sent to its end is still being passed on."""


_log = structlog.get_logger("engram.proxy")


@final
class Watched:
    """A request whose client may leave; `gone` is called when it does."""

    __slots__ = ("ended", "gone", "request", "scope", "since_s", "started")

    def __init__(self, request: Incoming, gone: Callable[[], None]) -> None:
        self.request = request
        self.gone = gone
        self.since_s = trio.current_time()
        self.started = False
        self.scope = trio.CancelScope()
        self.ended = trio.Event()


@final
class Watches:
    """Watches the clients of requests whose bodies have been read, each in a task of its own."""

    def __init__(self) -> None:
        self._young: dict[Watched, None] = {}
        self._nursery: trio.Nursery | None = None
        self._some = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await self._some.wait()
                await trio.sleep(_MOMENT_S)
                before_s = trio.current_time() - _MOMENT_S
                while self._young and (watched := next(iter(self._young))).since_s <= before_s:
                    del self._young[watched]
                    watched.started = True
                    self._nursery.start_soon(self._watch, watched)
                if not self._young:
                    self._some = trio.Event()

    def begin(self, request: Incoming, gone: Callable[[], None]) -> Watched:
        """Begin to watch; `end` follows in any case."""
        watched = Watched(request, gone)
        self._young[watched] = None
        self._some.set()
        return watched

    async def end(self, watched: Watched) -> None:
        """End it: when this returns, its connection is read by no one."""
        if not watched.started:
            del self._young[watched]
            return
        watched.scope.cancel()
        with trio.CancelScope(shield=True):
            await watched.ended.wait()

    async def _watch(self, watched: Watched) -> None:
        try:
            with watched.scope:
                while (await watched.request.receive())["type"] != "http.disconnect":
                    pass
                if not watched.request.answered:
                    watched.gone()
        except Exception:  # noqa: BLE001 -- one client's fault ends its own request
            _log.exception("watch_failed", request_id=watched.request.request_id)
            watched.gone()
        finally:
            watched.ended.set()


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
