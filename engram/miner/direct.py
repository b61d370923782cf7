"""The endpoints that are asked most, answered in plain ASGI: a framework's routing and contexts cost more than they do.

Limits, body, request id, CORS and log are the Edge's, which this stands behind (engram/http/edge.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

import msgspec

from engram.http import exchange
from engram.http.asgi import JSON, AsgiApp, Receive, Scope, Send, respond
from engram.http.errors import ApiError
from engram.miner.answers import Answer
from engram.miner.handlers.proofs import commitment
from engram.miner.service import Service

Posted = Callable[[Service, bytes], Awaitable[Answer]]

COMMITMENT: Final = "/commitment"
_POST_ONLY = (("Allow", "POST"),)


@final
class Direct:
    """An ASGI application around another one, which gets what is not answered here."""

    def __init__(self, app: AsgiApp, service: Service, posted: Mapping[str, Posted]) -> None:
        """`posted` are the endpoints that take a body and nothing else, by their exact paths."""
        self._app = app
        self._service = service
        self._posted = posted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request. Raises ApiError 405 for another method than POST where only that is taken."""
        path = scope["path"] if scope["type"] == "http" else ""
        if (posted := self._posted.get(path)) is not None:
            current = exchange.of(scope)
            current.route = path
            if scope["method"] != "POST":
                raise ApiError(405, "method_not_allowed", "this path does not take this method", _POST_ONLY)
            await _send(send, await posted(self._service, current.body))
        elif path == COMMITMENT and scope["method"] == "GET" and not scope["query_string"]:
            exchange.of(scope).route = path
            await _send(send, await commitment(self._service))
        else:
            await self._app(scope, receive, send)


async def _send(send: Send, answer: Answer) -> None:
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in answer.headers]
    await respond(send, answer.status, msgspec.json.encode(answer.body), [JSON, *headers])
