"""Serves an ASGI application on a socket, as a job of a supervision tree.

`http_job` is what `run.py` puts into the tree. Asked to stop, it takes no new connections or requests, ends event
streams, lets running requests finish within the drain time, and only then cuts what is left.
"""

import contextlib
from functools import partial
from typing import Protocol, final

import msgspec
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from actors import Context, DrainingJob
from config.model import HttpSettings
from engram.http import descriptors, logs
from engram.http.app import App
from engram.http.asgi import error_body
from engram.http.connection import Connection, Patience
from engram.http.guards import Guard, Refused
from engram.http.limits import ClientAddress, OpenConnections

_KEEP_ALIVE_REQUESTS = 100_000
_BACKLOG = 1_024
_SEND_S = 30.0
_LOGS_EVERY_S = 0.2
_LEAVING = 64
"""Connections that are told why they are turned away; more at once are just closed."""

_log = structlog.get_logger("engram.http")


class Address(msgspec.Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


class Host(Protocol):
    """What a server wants of the job it runs in (an `actors.Context` has it)."""

    @property
    def stop_requested(self) -> trio.Event: ...

    def ready(self, info: object = None) -> None: ...


def http_job(app: App, host: str, port: int, *, settings: HttpSettings, drain_s: float) -> DrainingJob:
    """The job that serves `app`; its ChildSpec's shutdown time must exceed `drain_s`."""

    async def run(context: Context) -> None:
        await serve(app, host, port, context=context, settings=settings, drain_s=drain_s)

    return DrainingJob(run)


async def serve(
    app: App, host: str, port: int, *, context: Host, settings: HttpSettings, drain_s: float = 10.0
) -> None:
    """Serve until `context.stop_requested`, then drain for at most `drain_s` seconds.

    `port` 0 takes a free one; `context.ready` is told the Address. Cancelled, it cuts everything at once. Raises
    OSError when it cannot listen.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {Address(host, port).url}: {error.strerror}") from error
    server = Server(app, settings)
    try:
        bound = listeners[0].socket.getsockname()
        context.ready(Address(str(bound[0]), int(bound[1])))
        async with trio.open_nursery() as writing:
            writing.start_soon(_write_logs)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(
                        partial(trio.serve_listeners, server.connected, listeners, handler_nursery=connections)
                    )
                    await context.stop_requested.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    await listener.aclose()
                connections.cancel_scope.deadline = trio.current_time() + drain_s
                await server.drain(connections.cancel_scope.deadline)
            writing.cancel_scope.cancel()
        if connections.cancel_scope.cancelled_caught:
            _log.warning("drain_timed_out", surface=app.surface, drain_s=drain_s)
    finally:
        logs.write_held()
        with trio.CancelScope(shield=True):
            for listener in listeners:
                await listener.aclose()


async def _write_logs() -> None:
    while True:
        await trio.sleep(_LOGS_EVERY_S)
        logs.write_held()


@final
class Server:
    """The open connections of one listener."""

    def __init__(self, app: App, settings: HttpSettings) -> None:
        self._app = app
        self._context = WorkerContext(None)
        self._config = _hypercorn_config(settings)
        self._guard = Guard(
            max_headers=settings.max_headers,
            max_body_bytes=app.config["MAX_CONTENT_LENGTH"],
            single_headers=app.single_headers,
        )
        self._patience = Patience(idle_s=settings.idle_timeout_s, send_s=_SEND_S)
        self._max = min(settings.max_connections, descriptors.for_connections(descriptors.allowed()))
        self._addresses = OpenConnections(settings.max_connections_per_ip, ClientAddress(settings.trusted_proxies))
        self._leaving = 0
        self._open: set[Connection] = set()
        self._gauge = app.metrics.http_connections.labels(app.surface)

    async def connected(self, stream: trio.SocketStream) -> None:
        """Serve one connection; the ones beyond the bound are told so and closed."""
        try:
            peer = str(stream.socket.getpeername()[0])
        except OSError:  # it has left already
            await trio.aclose_forcefully(stream)
            return
        if len(self._open) >= self._max or not self._addresses.enter(peer):
            await self._turn_away(stream)
            return
        connection = Connection(
            self._app,
            self._config,
            self._context,
            stream,
            self._guard,
            self._patience,
            self._refused,
            self._app.edge.cors_headers,
        )
        self._open.add(connection)
        self._gauge.inc()
        try:
            await connection.run()
        except Exception:  # noqa: BLE001 -- the seam of a connection: what one client provokes ends only its own
            _log.exception("connection_failed", surface=self._app.surface)
        finally:
            self._open.discard(connection)
            self._addresses.leave(peer)
            self._gauge.dec()

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        self._count_refusal("busy")
        if self._leaving >= _LEAVING:
            await trio.aclose_forcefully(stream)
            return
        self._leaving += 1
        try:
            await _turn_away(stream)
        finally:
            self._leaving -= 1

    def _refused(self, refused: Refused, client: str) -> str:
        """Note a request that no application sees, and give it an id."""
        self._count_refusal(refused.code)
        request_id = self._app.edge.request_id()
        surface = self._app.surface
        _log.info(
            "refused", surface=surface, code=refused.code, status=refused.status, client=client, request_id=request_id
        )
        return request_id

    def _count_refusal(self, code: str) -> None:
        self._app.metrics.http_refused.labels(self._app.surface, code).inc()

    async def drain(self, cut_at: float) -> None:
        """End event streams and idle connections; the others close with their answers, or at `cut_at`."""
        self._app.draining.set()
        await self._context.terminated.set()
        for connection in tuple(self._open):
            connection.drain(cut_at)


_BUSY = error_body("too many connections; try again in a moment", "busy", None)
_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BUSY), _BUSY)
)


async def _turn_away(stream: trio.SocketStream) -> None:
    with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(_TURNED_AWAY)
        await stream.send_eof()
        while await stream.receive_some():
            pass
    await trio.aclose_forcefully(stream)


def _hypercorn_config(settings: HttpSettings) -> Config:
    config = Config()
    config.include_server_header = False
    config.keep_alive_max_requests = _KEEP_ALIVE_REQUESTS
    config.h11_max_incomplete_size = settings.max_header_bytes
    config.accesslog = None
    config.errorlog = None
    return config
