"""WebSockets, passed on message by message (RFC 6455): the handshake is verified as a GET without a body, its uuid is
used up, and the open socket counts for its key until it closes.

    client's handshake -> proven -> backend's handshake --101--> open --close of either side--> the same close
                                            |                     +--its server is removed, and drained--> 1001
                                            |                     +--the route's total_s is over--> 1001
                                            |                     +--the backend silent, or takes nothing--> 1011
                                            +--another answer--> that answer
                                            +--none, or garbage--> 502, 504
                                            +--the client leaves--> the backend's connection is closed

The signature covers neither method nor path: only the replay guard keeps a handshake from being sent elsewhere.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, TypeVar, final

import trio

from engram.http.asgi import Receive, Scope, Send
from engram.http.errors import NoPlace, NotSent
from engram.http.targets import Target
from engram.proxy.app import ProxyApp
from engram.proxy.exchange.heads import answer_lines, backend_path, request_lines
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Refusal, answer, unreached
from engram.proxy.exchange.transfer import require_closed
from engram.proxy.exchange.watching import Watch
from engram.proxy.exchange.websocket_backend import ABNORMAL, Handshake, RefusedHandshake, WebSocketBackend
from engram.proxy.plan import Plan
from engram.proxy.routing import Matched
from engram.proxy.state import State

T = TypeVar("T")

_GOING_AWAY: Final = 1001
_OWN_HEADERS: Final = frozenset(
    {b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol", b"host"}
)


@final
class Tunnel:
    """Passes WebSockets on by the plan in force."""

    def __init__(self, app: ProxyApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request: Incoming, plan: Plan) -> None:
        matched = plan.routes.find("GET", request.raw_path)
        assert isinstance(matched, Matched), "the application has found it"
        (await self._app.prove(request, plan, 0, whole=True)).close()
        slot = self._state.admission.enter_key(request)
        place = None
        try:
            await receive()  # websocket.connect
            watch = Watch(receive, request)
            place = await watch.unless_gone(lambda: self._state.admission.place(request))
            await self._pass_on(scope, watch, send, request, plan, matched)
        finally:
            if place is not None:
                place.release()
            slot.release()

    async def _pass_on(
        self, scope: Scope, watch: Watch, send: Send, request: Incoming, plan: Plan, matched: Matched
    ) -> None:
        route, group = matched.route, plan.groups[matched.route.backend]
        require_closed(group)
        request.phase = "connect"
        try:
            server, forwarding = await group.acquire(route.connect_s, 0.0, bodyless=False)
        except (NotSent, NoPlace) as error:
            raise unreached(error, route.connect_s) from error
        try:
            request.backend, request.phase = server.url, "wait"
            due = trio.current_time() + (route.total_s or inf)
            backend = WebSocketBackend(forwarding, route.idle_s)
            handshake = _handshake(scope, request, group.target(server), matched)
            first_byte_s = route.first_byte_s or plan.settings.services.request_timeout_s
            try:
                accepted = await _in_time(
                    lambda: watch.unless_gone(lambda: backend.shake_hands(handshake)), first_byte_s, due
                )
            except Refusal as refusal:
                group.failed(server, refusal.message)
                raise
            group.succeeded(server)
            if isinstance(accepted, RefusedHandshake):
                request.code = "done"
                await answer(request, accepted.status, accepted.body, answer_lines(accepted.lines))
                return
            await send({"type": "websocket.accept", "subprotocol": accepted})
            request.phase, request.status = "answer", 101
            lasting = _Lasting(group.retired(server), route.drain_s, due)
            code = await _both_ways(watch.receive, send, backend, request, lasting)
            if backend.given_up:
                group.failed(server, backend.given_up)
            request.code = "total_late" if lasting.late else "done"
            request.detail = f"closed with {code}"
        finally:
            group.release(server, forwarding)


def _handshake(scope: Scope, request: Incoming, target: Target, matched: Matched) -> Handshake:
    lines = request_lines(request.headers, request.origin, target.authority, None)
    return Handshake(
        target.authority,
        backend_path(target.path, matched.path, request.query).decode("ascii"),
        list(scope["subprotocols"]),
        [line for line in lines if line[0] not in _OWN_HEADERS],
    )


async def _in_time(work: Callable[[], Awaitable[T]], first_byte_s: float, due: float) -> T:
    """Do the work within `first_byte_s` and before `due`. Raises Refusal (first_byte_late, total_late)."""
    with trio.CancelScope(deadline=min(due, trio.current_time() + first_byte_s)):
        return await work()
    if trio.current_time() >= due:
        raise Refusal("total_late", "Upstream timed out", message="no handshake before the route's total_s was over")
    raise Refusal("first_byte_late", "Upstream timed out", message=f"no handshake within {first_byte_s:g} s")


@final
class _Lasting:
    """How long a WebSocket may last: until its server is removed and drained, or the route's `total_s` is over."""

    def __init__(self, retired: trio.Event, drain_s: float, due: float) -> None:
        self._retired = retired
        self._drain_s = drain_s
        self._due = due
        self.late = False
        """Whether `total_s` is over."""

    async def over(self) -> str:
        """Return why the time is over, once it is."""
        with trio.CancelScope(deadline=self._due) as in_time:
            await self._retired.wait()
            await trio.sleep(self._drain_s)
        self.late = in_time.cancelled_caught
        return "the time of this connection is over" if self.late else "the backend was removed"


async def _both_ways(
    receive: Receive, send: Send, backend: WebSocketBackend, request: Incoming, lasting: _Lasting
) -> int:
    """Pass messages until either side closes, or the time is over; return the code."""
    closed: list[int] = []
    async with trio.open_nursery() as nursery:

        async def outward() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                data = message["text"] if message["text"] is not None else message["bytes"]
                request.received_bytes += len(data)
                await backend.send(data)
            closed.append(message.get("code") or ABNORMAL)
            await backend.close(closed[0], message.get("reason") or "")
            nursery.cancel_scope.cancel()

        async def inward() -> None:
            while not isinstance(message := await backend.message(), int):
                request.sent_bytes += len(message)
                key = "text" if isinstance(message, str) else "bytes"
                await send({"type": "websocket.send", key: message})
            closed.append(message)
            shown = message if message not in (1005, 1006, 1015) else 1011
            await send({"type": "websocket.close", "code": shown})
            nursery.cancel_scope.cancel()

        async def ending() -> None:
            why = await lasting.over()
            closed.append(_GOING_AWAY)
            await send({"type": "websocket.close", "code": _GOING_AWAY, "reason": why})
            await backend.close(_GOING_AWAY, why)
            nursery.cancel_scope.cancel()

        nursery.start_soon(outward)
        nursery.start_soon(inward)
        nursery.start_soon(ending)
    return closed[0]
