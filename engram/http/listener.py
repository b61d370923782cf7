"""An HTTP surface as a child of the supervision tree: a restart of its server keeps the address."""

import os
from collections.abc import Callable
from typing import Final, Protocol, final

import msgspec
import structlog
import trio

from actors import Context, DrainingJob
from config.model import HttpSettings
from engram.http import descriptors
from engram.http.app import App
from engram.http.asgi import HeaderLines
from engram.http.connection import Patience
from engram.http.edge import Edge
from engram.http.head import SINGLE, Bounds, Refused
from engram.http.server import Limits, Server
from engram.http.sockets import Address, listen, passed
from engram.http.tls import Certificates
from engram.telemetry import logs
from engram.telemetry.seldom import Seldom

SLACK_S: Final = 2.0
"""Time to close after the full drain time, in seconds."""
_HEAD_S: Final = 10.0
_SEND_S = 30.0
_LOGS_EVERY_S: Final = 0.2

_log = structlog.get_logger("engram.http")


class Host(Protocol):
    """What a server needs of the job it runs in; `actors.Context` provides it."""

    @property
    def stop_requested(self) -> trio.Event: ...

    def ready(self, info: object = None) -> None: ...


@final
class Listener:
    """Where a surface listens. `port` 0 picks a free port at the first start and keeps it over restarts."""

    def __init__(
        self,
        host: str,
        port: int,
        settings: HttpSettings,
        drain_s: float,
        certificates: Certificates | None = None,
    ) -> None:
        """Take the address; with `certificates` it serves https."""
        self._host, self._port = host, port
        self._settings, self._drain_s = settings, drain_s
        self._certificates = certificates
        self.bound: Address | None = None
        """None until it serves for the first time."""
        self._trusting: tuple[Edge | Server, ...] = ()

    @property
    def url(self) -> str:
        """Base URL without a slash at its end."""
        address = self.bound or Address(self._host, self._port, secure=self._certificates is not None)
        return address.url

    def trust(self, proxies: tuple[str, ...]) -> None:
        """Trust these networks from now on, and no others, in what serves and in what is started later."""
        self._settings = msgspec.structs.replace(self._settings, trusted_proxies=proxies)
        for each in self._trusting:
            each.trust(proxies)

    def reload_certificates(self) -> None:
        """Load the certificates again, where there are any."""
        if self._certificates is not None:
            self._certificates.reload()

    def job(self, app: Callable[[], App]) -> DrainingJob:
        """Return the server's job. `app` makes its application at each start; the job's ChildSpec needs a `shutdown` of
        SLACK_S more than the time to drain."""

        async def run(context: Context) -> None:
            port = self._port if self.bound is None else self.bound.port
            application = app()
            application.edge.trust(self._settings.trusted_proxies)

            def begun(server: Server) -> None:
                self.bound = server.bound
                self._trusting = application.edge, server

            await serve(
                application,
                self._host,
                port,
                context=context,
                settings=self._settings,
                drain_s=self._drain_s,
                certificates=self._certificates,
                on_server=begun,
            )

        return DrainingJob(run)


async def serve(
    app: App,
    host: str,
    port: int,
    *,
    context: Host,
    settings: HttpSettings,
    drain_s: float = 10.0,
    certificates: Certificates | None = None,
    on_server: Callable[[Server], None] = lambda server: None,
) -> None:
    """Serve until `context.stop_requested`; then end event streams and drain for at most `drain_s` seconds.

    A socket that the service manager holds under the surface's name (LISTEN_FDS) replaces `host` and `port`; otherwise
    `port` 0 picks a free one. `context.ready` receives the Address. Cancellation cuts every connection at once. Raises
    OSError when it cannot listen.
    """
    listeners = passed(os.environ, app.surface) or listen(host, port)
    try:
        address = msgspec.structs.replace(Address.of(listeners[0]), secure=certificates is not None)
        server = Server(app.edge, address, limits_of(app, settings), _SurfaceObserver(app), certificates)
        on_server(server)
        context.ready(server.bound)
        async with trio.open_nursery() as writing:
            writing.start_soon(_write_logs)
            drained = await server.run(listeners, context.stop_requested, drain_s, on_drain=app.draining.set)
            writing.cancel_scope.cancel()
        if not drained:
            _log.warning("drain_timed_out", surface=app.surface, drain_s=drain_s)
    finally:
        logs.write_held()
        for listener in listeners:
            listener.close()


def limits_of(app: App, settings: HttpSettings) -> Limits:
    """Return the limits of a surface's server: from its settings, capped by the process's file descriptors."""
    return Limits(
        bounds=Bounds(
            max_head_bytes=settings.max_header_bytes,
            max_headers=settings.max_headers,
            single=SINGLE.union(app.single_headers),
        ),
        patience=Patience(
            idle_s=settings.idle_timeout_s,
            head_s=min(_HEAD_S, settings.idle_timeout_s),
            body_s=app.body_timeout_s,
            send_s=_SEND_S,
        ),
        max_connections=min(settings.max_connections, descriptors.for_connections(descriptors.allowed())),
        max_per_address=settings.max_connections_per_ip,
        trusted_proxies=settings.trusted_proxies,
    )


def refusal_lines() -> Seldom:
    """Return the bound on the lines of a listener about what it refused: anybody can cause those."""
    return Seldom(100, 10.0, trio.current_time)


async def _write_logs() -> None:
    while True:
        await trio.sleep(_LOGS_EVERY_S)
        logs.write_held()


@final
class _SurfaceObserver:
    """Counts and logs what a surface's server refuses or drops itself."""

    def __init__(self, app: App) -> None:
        self._surface = app.surface
        self._edge = app.edge
        self._refusals = app.metrics.http_refused
        self._lines = refusal_lines()
        self._gauge = app.metrics.http_connections.labels(app.surface)

    def refused(self, refused: Refused, client: str) -> tuple[str, HeaderLines]:
        self.dropped(refused.code)
        request_id = self._edge.request_id()
        if refused.status != 429 and self._lines.wanted():
            _log.info(
                "refused",
                surface=self._surface,
                code=refused.code,
                status=refused.status,
                client=client,
                request_id=request_id,
                **self._lines.facts,
            )
        own = (b"x-request-id", request_id.encode("ascii"))
        return request_id, (own, *self._edge.cors_headers(refused.origin))

    def count_refusal(self, client: str) -> float:
        return self._edge.count_refusal(client)

    def dropped(self, code: str) -> None:
        self._refusals.labels(self._surface, code).inc()

    def count(self, connections: int) -> None:
        self._gauge.set(connections)

    def for_anybody(self) -> HeaderLines:
        return self._edge.cors_headers(b"")
