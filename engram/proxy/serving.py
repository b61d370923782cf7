"""The proxy's public listener as a job of the tree."""

import os
from collections.abc import Callable
from math import inf
from typing import Final, final

import structlog
import trio

from actors import Context, DrainingJob
from engram.http import descriptors
from engram.http.asgi import AsgiApp, HeaderLines
from engram.http.connection import Patience
from engram.http.framing import Refused
from engram.http.head import SINGLE, Bounds
from engram.http.limits import bucket_of
from engram.http.listener import refusal_lines
from engram.http.server import Limits, Server
from engram.http.sockets import Address, listen, passed
from engram.http.tls import Certificates
from engram.proxy.limits.rates import FULL
from engram.proxy.noting import note_refused
from engram.proxy.settings.model import ProxySettings
from engram.proxy.state import State
from engram.telemetry import logs

SURFACE: Final = "proxy"
_LOGS_EVERY_S: Final = 0.2
_JUDGED_LATER: Final = frozenset({b"authorization", b"payment-signature", b"x-payment"})
"""Headers that the schemes themselves demand once, with an answer of their own."""

_log = structlog.get_logger("engram.proxy")


@final
class Surface:
    """Where the proxy listens; a restart of its job keeps the port."""

    def __init__(self, settings: ProxySettings, state: State, app: AsgiApp, certificates: Certificates | None) -> None:
        self._settings = settings
        self._state = state
        self._app = app
        self._certificates = certificates
        self.bound: Address | None = None

    @property
    def url(self) -> str:
        """Base URL without a slash at its end; once it serves."""
        assert self.bound is not None
        return self.bound.url

    def job(self) -> DrainingJob:
        """Return the job that serves until it is asked to stop, then drains."""
        return DrainingJob(self._run)

    async def _run(self, context: Context) -> None:
        server_settings = self._settings.server
        port = server_settings.port if self.bound is None else self.bound.port
        listeners = passed(os.environ, SURFACE) or listen(server_settings.host, port)
        try:
            bound = Address.of(listeners[0])
            self.bound = Address(bound.host, bound.port, secure=self._certificates is not None)
            observer = _Observer(self._state)
            server = Server(self._app, self.bound, limits_of(self._settings), observer, self._certificates)
            self._state.follow(lambda plan: server.trust(plan.settings.server.trusted_proxies))
            async with trio.open_nursery() as beside:
                beside.start_soon(_write_logs)
                await beside.start(self._state.watches.run)
                context.ready(self.bound)
                drained = await server.run(listeners, context.stop_requested, server_settings.drain_s)
                beside.cancel_scope.cancel()
            if not drained:
                _log.warning("drain_timed_out", surface=SURFACE, drain_s=server_settings.drain_s)
        finally:
            logs.write_held()
            for listener in listeners:
                listener.close()


def limits_of(settings: ProxySettings) -> Limits:
    """Return the limits of the listener that are set at its start."""
    server = settings.server
    single = SINGLE - _JUDGED_LATER
    return Limits(
        bounds=Bounds(
            max_head_bytes=server.max_header_bytes,
            max_headers=server.max_headers,
            single=single,
            websocket=True,  # what the routes take is judged by the plan in force
        ),
        patience=Patience(
            idle_s=server.idle_timeout_s,
            head_s=server.header_timeout_s,
            body_s=server.body_timeout_s,
            send_s=server.send_timeout_s,
        ),
        max_connections=min(server.max_connections, descriptors.for_connections(descriptors.allowed())),
        max_per_address=server.max_connections_per_address,
    )


async def _write_logs() -> None:
    while True:
        await trio.sleep(_LOGS_EVERY_S)
        logs.write_held()


@final
class _Observer:
    """Counts and notes what the server refuses or drops itself."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lines = refusal_lines()
        self._count: Callable[[float], None] = state.metrics.http_connections.labels(SURFACE).set

    def refused(self, refused: Refused, client: str) -> tuple[str, HeaderLines]:
        request_id = self._state.ids.token(8)
        self._state.metrics.http_refused.labels(SURFACE, refused.code).inc()
        note_refused(self._state, refused, client, request_id)
        if refused.status != 429 and self._lines.wanted():
            known = {"code": refused.code, "status": refused.status, "client": client, "request_id": request_id}
            _log.info("refused", **known, **self._lines.facts)
        return request_id, ((b"x-request-id", request_id.encode("ascii")), *self.for_origin(refused.origin))

    def for_origin(self, origin: bytes) -> HeaderLines:
        """Return the CORS headers of an answer."""
        return self._state.plan.cors_headers(origin)

    def count_refusal(self, client: str) -> float:
        if self._state.plan.client_address.trusts(client):
            return 0.0
        wait_s = self._state.admission.address_rates.take(bucket_of(client), trio.current_time())
        return inf if wait_s == FULL else wait_s

    def dropped(self, code: str) -> None:
        self._state.metrics.http_refused.labels(SURFACE, code).inc()

    def count(self, connections: int) -> None:
        self._count(connections)

    def for_anybody(self) -> HeaderLines:
        return ()
