"""A listener that is told of other proxies while it serves."""

import msgspec
import trio

from actors import ChildSpec, SupervisorSpec, open_system
from engram.http import exchange
from engram.http.app import App
from engram.http.asgi import Scope
from engram.http.listener import Listener
from tests.http.harness import SETTINGS, Raw, get, make_app


def says_who_asks() -> App:
    app = make_app()

    async def answer(scope: Scope) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]:
        return 200, exchange.of(scope).client.encode(), ()

    app.edge.fast("/who", answer)
    return app


async def client_seen(listener: Listener) -> str:
    assert listener.bound is not None
    async with await trio.open_tcp_stream(listener.bound.host, listener.bound.port) as stream:
        client = Raw(stream)
        await client.send(get("/who", "X-Forwarded-For: 192.0.2.7"))
        return (await client.read()).body.decode()


async def test_proxies_are_trusted_and_distrusted_without_a_restart() -> None:
    listener = Listener("127.0.0.1", 0, SETTINGS, 2.0)
    tree = SupervisorSpec("root", [ChildSpec("http", lambda: listener.job(says_who_asks), shutdown=3.0)])
    async with open_system(tree):
        assert await client_seen(listener) == "127.0.0.1"
        listener.trust(("127.0.0.0/8",))
        assert await client_seen(listener) == "192.0.2.7"
        listener.trust(())
        assert await client_seen(listener) == "127.0.0.1"


async def test_a_server_that_is_restarted_trusts_what_was_said_last() -> None:
    listener = Listener("127.0.0.1", 0, msgspec.structs.replace(SETTINGS, trusted_proxies=()), 2.0)
    tree = SupervisorSpec("root", [ChildSpec("http", lambda: listener.job(says_who_asks), shutdown=3.0)])
    async with open_system(tree):
        listener.trust(("127.0.0.0/8",))
    async with open_system(tree):
        assert await client_seen(listener) == "192.0.2.7"
