"""Carries one request to a backend and its answer to a sink, both at once.

    connect --NotSent, all servers tried--> not_connected
    upload + wait --head--> answer --end--> done
              |             |
              |             +-> upstream_cut, idle_late, total_late      the sink is left without its end
              |             +-> client_gone_answer                       the sink took it too slowly for total_s
              +-> backend_cut, backend_garbage, first_byte_late, total_late, upload_stuck; digest_mismatch and
                  what else ends the body

The wait for the answer's first byte begins when the request's last byte has been sent. An answer may come before that:
it is passed on while the upload goes on, and ends it.
"""

from contextlib import aclosing
from math import inf
from typing import Final, final

import trio

from engram.http.answers import AnswerHead
from engram.http.asgi import broken
from engram.http.errors import NoPlace, NotSent
from engram.http.forwarding import Failed, Forwarding
from engram.http.forwarding import head as head_of
from engram.http.framing import CHUNKED
from engram.proxy.backends.group import Group
from engram.proxy.backends.rules import Server
from engram.proxy.exchange.bodies import Body, MemoryBody
from engram.proxy.exchange.heads import answer_lines, backend_path, request_lines, trailer_lines
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Gone, Refusal, unreached
from engram.proxy.exchange.sinks import Sink
from engram.proxy.routing import Matched
from engram.proxy.settings.model import RouteSettings

_BEFORE: Final = {
    "cut": ("backend_cut", "Error connecting to backend service"),
    "garbage": ("backend_garbage", "Error connecting to backend service"),
    "first_byte_late": ("first_byte_late", "Upstream timed out"),
    "idle_late": ("first_byte_late", "Upstream timed out"),
    "total_late": ("total_late", "Upstream timed out"),
}
_WITHIN: Final = {"idle_late": "idle_late", "total_late": "total_late"}


@final
class AnswerCut(Exception):
    """The backend's answer broke off after its head had been passed on; `code` is the ending."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def require_closed(group: Group) -> None:
    """Refuse a request that the group's breaker does not let through. Raises Refusal (breaker_open)."""
    if wait_s := group.wait_s():
        raise Refusal("breaker_open", "The backend fails too often now", retry_after_s=wait_s)


@final
class Transfer:
    """One request to one group. Run `run` once; `uploading` tells whether the body is still being sent."""

    def __init__(self, request: Incoming, matched: Matched, body: Body, group: Group, *, first_byte_s: float) -> None:
        self._request = request
        self._matched = matched
        self._body = body
        self._group = group
        self._first_byte_s = first_byte_s
        self._waiting: trio.CancelScope | None = None
        self._error: Exception | None = None
        self.uploading = False
        self.uploaded = trio.Event()
        """Set when the whole body has been read."""
        self._drained_bytes: int | None = None  # of the answer since the client left; None while it is there

    @property
    def _route(self) -> RouteSettings:
        return self._matched.route

    def leave(self, scope: trio.CancelScope) -> None:
        """End what runs in `scope`, for the client has left, or let the backend finish within bounds, as the route
        says."""
        if self._route.on_client_gone == "abort" or self._request.phase in ("queue", "connect", "upload"):
            scope.cancel()
            return
        self._drained_bytes = 0
        scope.deadline = min(scope.deadline, trio.current_time() + self._route.drain_s)

    async def run(self, sink: Sink) -> None:
        """Pass the request on and the answer back. Raises Refusal (nothing was passed to the sink), AnswerCut, Gone."""
        request, route, group = self._request, self._route, self._group
        require_closed(group)
        request.phase = "connect"
        try:
            server, forwarding = await group.acquire(route.connect_s, route.total_s, bodyless=request.method == "HEAD")
        except (NotSent, NoPlace) as error:
            raise unreached(error, route.connect_s) from error
        try:
            request.backend = server.url
            await self._exchange(server, forwarding, sink)
        finally:
            group.release(server, forwarding)

    async def _exchange(self, server: Server, forwarding: Forwarding, sink: Sink) -> None:
        raw_head = self._head(server)
        body = self._body
        if isinstance(body, MemoryBody):
            self._request.phase = "wait"
            self._require_taken(server, await forwarding.send(raw_head + body.content, within_s=self._route.idle_s))
            forwarding.sent()
            await self._answer(server, forwarding, sink)
            return
        raised: Exception | None = None
        async with trio.open_nursery() as nursery:
            self.uploading, self._request.phase = True, "upload"
            try:
                self._require_taken(server, await forwarding.send(raw_head, within_s=self._route.idle_s))
                nursery.start_soon(self._upload, server, forwarding, nursery.cancel_scope)
                await self._answer(server, forwarding, sink)
            except Exception as error:  # noqa: BLE001 -- raised again outside the nursery, which would wrap it
                raised = error
            nursery.cancel_scope.cancel()
        if self._error is not None:
            raise self._error
        if raised is not None:
            raise raised

    def _head(self, server: Server) -> bytes:
        request, target = self._request, self._group.target(server)
        path = backend_path(target.path, self._matched.path, request.query)
        lines = request_lines(request.headers, request.origin, target.authority, self._body.length)
        return head_of(request.method, path, lines)

    async def _upload(self, server: Server, forwarding: Forwarding, scope: trio.CancelScope) -> None:
        body, idle_s = self._body, self._route.idle_s
        chunked = body.length == CHUNKED
        try:
            async with aclosing(body.parts()) as parts:
                async for part in parts:
                    if not forwarding.taking:  # its answer, or the lack of one, says why
                        break
                    if chunked:
                        self._require_taken(server, await forwarding.send_chunk(part, idle_s))
                    else:
                        self._require_taken(server, await forwarding.send(part, within_s=idle_s))
            if chunked and forwarding.taking:
                self._require_taken(server, await forwarding.send_end(trailer_lines(body.trailers), idle_s))
        except (Refusal, Gone, OSError) as error:
            self._error = error
            forwarding.transport.close()
            scope.cancel()
            return
        if forwarding.taking:
            forwarding.sent()
        self.uploading = False
        self.uploaded.set()
        if self._request.phase == "upload":
            self._request.phase = "wait"
        if self._waiting is not None:
            self._waiting.deadline = trio.current_time() + self._first_byte_s

    async def _answer(self, server: Server, forwarding: Forwarding, sink: Sink) -> None:
        try:
            answer = await self._first(forwarding)
        except Failed as failed:
            if self._error is None:
                self._group.failed(server, str(failed))
            code, detail = _BEFORE[failed.reason]
            raise Refusal(code, detail, message=str(failed)) from failed
        self._group.succeeded(server)
        length = answer.length if answer.length >= 0 else None
        await sink.start(answer.status, answer_lines(answer.headers), length)
        try:
            while (part := await forwarding.part(self._route.idle_s)) is not None:
                if self._drained_bytes is None:
                    await self._hand_on(sink, part, forwarding.due)
                elif (drained := self._drained_bytes + len(part)) > self._route.drain_bytes:
                    raise Gone
                else:
                    self._drained_bytes = drained
        except Failed as failed:
            if self._error is None:
                self._group.failed(server, str(failed))
            raise AnswerCut(_WITHIN.get(failed.reason, "upstream_cut"), str(failed)) from failed
        await sink.end(trailer_lines(forwarding.trailers))

    async def _hand_on(self, sink: Sink, part: bytes, due: float) -> None:
        """Give the sink a part. Raises Gone where the whole time is over before it is taken: that is the client's.

        Raises Failed where it was taken just then: the answer goes on for longer than it may.
        """
        if due == inf:
            await sink.part(part)
            return
        with trio.CancelScope(deadline=due) as in_time:
            await sink.part(part)
        if in_time.cancelled_caught and not broken(self._request.send):
            raise Failed("total_late", f"the whole answer did not come within {self._route.total_s:g} s")
        if in_time.cancelled_caught:
            self._request.code, self._request.answered = "client_gone_answer", False
            self._request.detail = f"it had not taken the answer when the route's {self._route.total_s:g} s were over"
            raise Gone

    async def _first(self, forwarding: Forwarding) -> AnswerHead:
        if not self.uploading:
            return await forwarding.head(self._first_byte_s)
        with trio.CancelScope() as self._waiting:  # its deadline is set when the whole body has been sent
            return await forwarding.head(inf)
        raise Failed("first_byte_late", f"nothing for {self._first_byte_s:g} s")

    def _require_taken(self, server: Server, taken: bool) -> None:
        """Refuse a request whose server takes no more: it gets no longer for that than for a part of its answer."""
        if not taken:
            message = "the backend takes no more of the body"
            self._group.failed(server, message)
            raise Refusal("upload_stuck", "Upstream timed out", message=message)
