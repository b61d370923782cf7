"""The bare server under an ASGI application of a test's own."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from engram.http.asgi import AsgiApp, HeaderLines, Receive, Scope, Send, respond
from engram.http.head import Refused
from engram.http.server import Limits, Server
from engram.http.sockets import Address, listen
from engram.http.tls import Certificates


class Noted:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.drops: list[str] = []
        self.connections = 0

    def refused(self, refused: Refused, client: str) -> tuple[str, HeaderLines]:
        self.refusals.append(refused.code)
        return "0" * 16, ()

    def count_refusal(self, client: str) -> float:
        return 0.0

    def dropped(self, code: str) -> None:
        self.drops.append(code)

    def count(self, connections: int) -> None:
        self.connections = connections

    def for_anybody(self) -> HeaderLines:
        return ()


class Bare:
    """A running server: where it listens, what it noted, and how to stop it."""

    def __init__(self, server: Server, noted: Noted) -> None:
        self.server, self.noted = server, noted
        self.port = server.bound.port
        self.stop = trio.Event()
        self.stopped = trio.Event()
        self.drained: bool | None = None


@asynccontextmanager
async def bare(
    app: AsgiApp,
    limits: Limits | None = None,
    *,
    certificates: Certificates | None = None,
    drain_s: float = 5.0,
    port: int = 0,
) -> AsyncIterator[Bare]:
    listeners = listen("127.0.0.1", port)
    noted = Noted()
    running = Bare(Server(app, Address.of(listeners[0]), limits or Limits(), noted, certificates), noted)

    async def run() -> None:
        running.drained = await running.server.run(listeners, running.stop, drain_s)
        running.stopped.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield running
            nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body, or not at all when it did not come whole."""
    if scope["type"] != "http":  # what other servers ask at their start
        raise NotImplementedError
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    await respond(send, 200, body)


async def _serve_echo(port: int) -> None:
    from tests.http.seen import app

    async with bare(app, port=port):
        await trio.sleep_forever()


if __name__ == "__main__":  # a process of its own, beside other people's servers
    trio.run(_serve_echo, int(sys.argv[1]))
