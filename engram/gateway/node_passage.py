"""/sessions/{id}/node/…: passes a buyer's requests to the node of the session, and its answers back.

A browser on the gateway's https page can reach no node: these are other origins and speak plain http. The request is
signed twice by the same key: its headers for the gateway, which passes on what the session's owner asks alone, and its
body for the node, which decides what the signer may do. Bodies are not read here, kept nowhere and never logged.

Whole answers of up to MOST_WHOLE_BYTES are signed by the gateway like its own. Longer ones, and those of unknown length
(exports), are passed on as they come.
"""

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from engram.api import gateway as api
from engram.api.call import Call
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.gateway.services import Services
from engram.gateway.sessions import owned
from engram.hotkeys import authority
from engram.http import client
from engram.http.asgi import Receive, Scope, Send
from engram.http.authority import Read
from engram.http.errors import ApiError, Interrupted, NotSent
from engram.http.request import Answer, Stream
from engram.sessions import SessionState

MOST_WHOLE_BYTES: Final = 1_000_000
CONNECT_S: Final = 3.0
ANSWER_S: Final = 30.0
"""A node embeds texts before it answers."""
IDLE_S: Final = 30.0

STREAMS_PER_HOTKEY: Final = 4
"""Long answers that a hotkey may have open at once: they share `http.event_streams` with the dashboards of all."""

PASSED: Final = frozenset(
    {
        *(("GET", "health"), ("GET", "stats"), ("GET", "commitment"), ("GET", "retrieve"), ("DELETE", "retrieve")),
        *(("POST", name) for name in ("IngestSynapse", "IngestBatch", "QuerySynapse", "list", "LookupBatch")),
        *(("POST", name) for name in ("DeleteBatch", "ChallengeSynapse", "prove-memory", "export-stream")),
        *(("POST", name) for name in ("KeyShareSynapse", "KeyShareRetrieve")),
    }
)
"""Methods and first segments of the paths that are passed on: what a memory's owner needs, and nothing else."""

_RUNNING: Final = (SessionState.ACTIVE, SessionState.DEGRADED)
_ALL: Final = Read(query=authority.FIELDS, checks_body=True)
_NONE: Final = Read()


def passes_authority(scope: Scope) -> Read:
    """Return what a request may say of authority: everything where it is for a node, which judges it."""
    parts = scope["path"].split("/", 4)
    return _ALL if len(parts) == 5 and parts[1] == "sessions" and parts[3] == "node" else _NONE


def bind_node_passage(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the paths below /sessions/{session_id}/node/."""

    open_streams: Counter[bytes] = Counter()

    async def passed(call: Call[NoBody, Caller]) -> Answer | Stream:
        session = await owned(services, call.caller, call.path("session_id"))
        path, method = call.path("path"), call.http.method
        if (method, path.partition("/")[0]) not in PASSED:
            raise ApiError(404, "not_found", f"Nothing is passed on to a node by {method} /{path[:80]}.")
        if session.state not in _RUNNING or session.node_endpoint is None:
            raise ApiError(409, "not_running", f"The session is {session.state}: its node serves while it is active.")
        raw = call.http.raw_path.split(b"/node/", 1)[1].decode("ascii")
        query = call.http.query_string.decode("ascii")
        url = f"{session.node_endpoint.rstrip('/')}/{raw}" + (f"?{query}" if query else "")
        return await _passed(services.node_http, method, url, call, open_streams)

    endpoints.bind(api.READ_NODE, passed)
    endpoints.bind(api.POST_NODE, passed)
    endpoints.bind(api.DELETE_NODE, passed)


async def _passed(
    http: client.HttpClient, method: str, url: str, call: Call[NoBody, Caller], open_streams: Counter[bytes]
) -> Answer | Stream:
    body = call.http.body
    headers = {"Content-Type": "application/json", "X-Request-Id": call.exchange.request_id} if body else {}
    async with contextlib.AsyncExitStack() as stack:
        try:
            answer = await stack.enter_async_context(
                http.stream(
                    method,
                    url,
                    headers=headers,
                    body=body or None,
                    connect_s=CONNECT_S,
                    answer_s=ANSWER_S,
                    idle_s=IDLE_S,
                )
            )
            media = _header(answer, b"content-type") or "application/json"
            if _is_whole(answer):
                return Answer(answer.status, await _read(answer), _kept(answer), media)
        except NotSent:
            raise ApiError(
                502, "node_unreachable", "The node cannot be reached at the moment.", (("Retry-After", "2"),)
            ) from None
        except Interrupted:
            raise ApiError(
                504, "outcome_unknown", "The node did not answer: it is not known whether this was done."
            ) from None
        owner = call.caller.public_key
        if open_streams[owner] >= STREAMS_PER_HOTKEY:
            message = f"{STREAMS_PER_HOTKEY} long answers are open for this key: wait until one ends."
            raise ApiError(429, "too_many_streams", message, (("Retry-After", "5"),))
        open_streams[owner] += 1
        stack.callback(_closed, open_streams, owner)
        return NodeStream(answer, media, stack.pop_all())
    raise AssertionError("unreachable: the stack swallows nothing")


def _closed(open_streams: Counter[bytes], owner: bytes) -> None:
    open_streams[owner] -= 1
    if not open_streams[owner]:
        del open_streams[owner]


def _header(answer: client.Answer, name: bytes) -> str:
    return next((value.decode("latin-1") for each, value in answer.headers if each == name), "")


def _kept(answer: client.Answer) -> tuple[tuple[str, str], ...]:
    retry = _header(answer, b"retry-after")
    return (("Retry-After", retry),) if retry else ()


def _is_whole(answer: client.Answer) -> bool:
    """Whether the answer is passed on whole: an error always is."""
    length = _header(answer, b"content-length")
    return answer.status != 200 or (length.isdecimal() and int(length) <= MOST_WHOLE_BYTES)


async def _read(answer: client.Answer) -> bytes:
    received = bytearray()
    async for part in answer:
        received += part
        if len(received) > MOST_WHOLE_BYTES:
            raise ApiError(502, "node_answer_too_large", "The node's answer is too large to be passed on.")
    return bytes(received)


@final
class NodeStream(Stream):
    """An answer of a node that is passed on while it arrives."""

    def __init__(self, answer: client.Answer, media: str, held: contextlib.AsyncExitStack) -> None:
        self.headers = {"Content-Type": media, "Cache-Control": "no-store"}
        self._answer = answer
        self._held = held

    async def run(self, receive: Receive, send: Send, draining: trio.Event) -> None:
        """Send what comes, until the client leaves.

        A node that breaks off, or a server that drains, cuts the client's connection, so that no part looks whole:
        raises Interrupted.
        """
        reason: str | Interrupted = ""

        async def ends(awaited: Callable[[], Awaitable[object]], scope: trio.CancelScope, why: str) -> None:
            nonlocal reason
            await awaited()
            reason = reason or why
            scope.cancel()

        async with self._held, trio.open_nursery() as nursery:
            nursery.start_soon(ends, lambda: _left(receive), nursery.cancel_scope, "")
            nursery.start_soon(ends, draining.wait, nursery.cancel_scope, "the gateway stops")
            try:
                async for part in self._answer:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except Interrupted as cut:
                reason = cut
            nursery.cancel_scope.cancel()
        if reason:
            raise reason if isinstance(reason, Interrupted) else Interrupted(reason)

    async def discard(self) -> None:
        """Close the connection to the node."""
        await self._held.aclose()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
