"""The server as a child of a supervision tree."""

import pytest
import trio

from actors import ChildSpec, StartFailed, SupervisorSpec, open_system
from engram.http.listener import Listener
from engram.http.quart_app import QuartApp
from engram.http.sockets import Address
from tests.http.harness import SETTINGS, Raw, get, make_app


def slow_app() -> QuartApp:
    app = make_app()
    app.config["entered"], app.config["released"] = trio.Event(), trio.Event()

    @app.get("/slow")
    async def slow() -> str:
        app.config["entered"].set()
        await app.config["released"].wait()
        return "done"

    return app


def tree(app: QuartApp, port: int = 0) -> SupervisorSpec:
    listener = Listener("127.0.0.1", port, SETTINGS, 2.0)
    return SupervisorSpec("root", [ChildSpec("http", lambda: listener.job(lambda: app), shutdown=3.0)])


async def test_its_address_is_shown_in_the_tree_and_it_drains_when_the_tree_stops() -> None:
    app = slow_app()
    async with open_system(tree(app)) as system:
        (address,) = [node.info for node in system.tree() if isinstance(node.info, Address)]
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            client = Raw(stream)
            await client.send(get("/slow"))
            await app.config["entered"].wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(system.stop)
                await app.draining.wait()
                app.config["released"].set()
                assert (await client.read()).body == b"done"


async def test_a_port_that_is_taken_fails_the_start() -> None:
    async with open_system(tree(slow_app())) as system:
        (address,) = [node.info for node in system.tree() if isinstance(node.info, Address)]
        with pytest.raises(StartFailed):
            async with open_system(tree(slow_app(), address.port)):
                await trio.sleep_forever()
