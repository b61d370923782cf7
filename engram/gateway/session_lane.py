"""GET /sessions/{id}, which phones ask most, without framework and without thread.

The signature, the limits, the words of every refusal and the answer are those of the other endpoints; only the way is
shorter: an ASGI layer behind the Edge, two indexed rows read on the loop (ledger/lane.py), one body encoded and signed.
What it does not know (another method, a query, a path that is no session's) goes on to Quart.
"""

import re
from collections.abc import Iterable
from typing import Final, final

import msgspec

from engram.gateway import records
from engram.gateway.caller import authenticate
from engram.gateway.replies import ledger_refusal
from engram.gateway.services import Services
from engram.gateway.sessions import shown_to
from engram.hotkeys import answers
from engram.http import exchange
from engram.http.app import App
from engram.http.asgi import JSON, AsgiApp, Receive, Scope, Send, error_body, respond
from engram.http.errors import ApiError
from engram.ledger import LaneClosed, LedgerError

ROUTE: Final = "/sessions/<session_id>"
_SESSION: Final = re.compile(r"/sessions/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\Z")
_NO_STORE: Final = (b"cache-control", b"no-store")


@final
class SessionLane:
    """An ASGI application around another one, which gets what is not answered here."""

    def __init__(self, app: AsgiApp, services: Services, surface: App) -> None:
        self._app = app
        self._services = services
        self._surface = surface

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a look at a session; pass everything else on. Raises ApiError where the answer cannot be signed."""
        match = _SESSION.match(scope["path"]) if scope["type"] == "http" else None
        if match is None or scope["method"] != "GET" or scope["query_string"]:
            await self._app(scope, receive, send)
        else:
            await self._show(scope, match[1], send)

    async def _show(self, scope: Scope, session_id: str, send: Send) -> None:
        services, current = self._services, exchange.of(scope)
        current.route = ROUTE
        identified = authenticate(
            services, scope["headers"], "GET", scope["raw_path"], current.body, self._surface.limit_hotkey
        )
        status, lines = 200, [JSON, _NO_STORE]
        try:
            body = msgspec.json.encode(shown_to(services, identified.caller, await self._found(session_id)))
        except (ApiError, LedgerError) as refused:
            error = ledger_refusal(refused) if isinstance(refused, LedgerError) else refused
            status, lines = error.status, [JSON, *_encoded(error.headers)]
            body = error_body(error.message, error.code, current.request_id, error.extra)
        if identified.signed_at is not None:
            lines += _encoded(answers.sign_answer(services.keypair, status, identified.signed_at, body).items())
        await respond(send, status, body, lines)

    async def _found(self, session_id: str) -> records.Found | None:
        try:
            return records.look(self._services.ledger, session_id)
        except LaneClosed:
            return await self._services.ledger.read(lambda connection: records.find(connection, session_id))


def _encoded(lines: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in lines]
