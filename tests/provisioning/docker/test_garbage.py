"""An engine that answers garbage, by halves or never, at a real Unix socket: each call ends in an error of ours."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio

from config.model import DockerSettings, MinerSettings, ProvisioningSettings, Settings
from engram.hotkeys import Keypair, wallet
from engram.provisioning.docker import backend as docker
from engram.provisioning.docker import endings, engine, holdings, images, removing
from engram.provisioning.docker.factory import docker_backend
from engram.provisioning.errors import ProvisioningError
from engram.provisioning.model import NodeSpec
from engram.provisioning.node_backend import NodeBackend
from tests.provisioning import contract
from tests.provisioning.conftest import MakePorts
from tests.provisioning.test_local import a_spec

PONG = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"


def said(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


ANSWERS = {
    "nothing": b"",
    "no HTTP": b"\x00\x01garbage\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"Id"',
    "half a chunk": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n{"Id"',
    "too much": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
    "empty": said(b""),
    "null": said(b"null"),
    "an object": said(b"{}"),
    "a list": said(b"[]"),
    "a list of nothing": said(b"[null]"),
    "no UTF-8": said(b'{"Id":"\xff\xfe"}'),
    "too deep": said(b'{"State":' + b"[" * 100_000),
    "too deep where nothing is read": said(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "other types": said(b'{"Id":7,"State":"running","Labels":[],"Volumes":{},"NCPU":"many"}'),
    "a number that is none": said(b'{"NCPU":-1,"MemTotal":-5,"MemoryLimit":true}'),
    "not there": said(b'{"message":"no such thing"}', "404 Not Found"),
    "an error that says nothing": said(b"\xff<html>", "500 Internal Server Error"),
    "an error of lists": said(b'{"message":["a"]}', "409 Conflict"),
    "elsewhere": said(b"", "302 Found"),
    "no content": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (engine, "READ_S"),
        (engine, "CHANGE_S"),
        (engine, "STOP_SLACK_S"),
        (holdings, "LOOK_EVERY_S"),
        (endings, "RETRY_S"),
        (endings, "RETRY_MOST_S"),
        (images, "RETRY_S"),
    ):
        monkeypatch.setattr(module, name, 0.05)
    for module, name in ((docker, "LAUNCH_S"), (docker, "STOP_S"), (removing, "REMOVE_S")):
        monkeypatch.setattr(module, name, 0.5)


Serve = Callable[[trio.SocketStream], Awaitable[None]]


async def a_backend(folder: Path, nursery: trio.Nursery, ports: MakePorts, answer: Serve) -> NodeBackend:
    path = folder / "engine.sock"
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listening.bind(str(path))
    listening.listen(64)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            asked = await stream.receive_some(65_536)
            if b"/_ping" in asked:
                await stream.send_all(PONG)
            else:
                await answer(stream)
        except trio.BrokenResourceError:
            pass
        finally:
            await stream.aclose()

    nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])
    settings = Settings(
        provisioning=ProvisioningSettings(backends=("docker",), miner_image="engram-node:latest", destroy_grace_s=1.0),
        docker=DockerSettings(host=f"unix://{path}"),
        miner=MinerSettings(embedder="hash"),
    )
    return docker_backend(ports(settings))


def spec(folder: Path) -> NodeSpec:
    wallet.write_hotkey_file(folder / "key", Keypair.generate())
    return msgspec.structs.replace(a_spec(), hotkey_file=str(folder / "key"))


async def use(backend: NodeBackend, node: NodeSpec) -> None:
    """Make each call: it returns, or raises an error of ours, in time."""
    for call in (
        lambda: backend.launch(node),
        lambda: backend.inspect(node.token),
        lambda: backend.extend(node.token, 1.0),
        lambda: backend.stop(node.token),
        lambda: backend.destroy(node.token),
        backend.list,
        backend.offers,
    ):
        try:
            with trio.fail_after(10.0):
                await call()
        except ProvisioningError:
            pass
    async with contract.watched(backend):
        await trio.sleep(0.2)


@pytest.mark.parametrize("kind", ANSWERS)
async def test_garbage_of_an_engine_ends_in_an_error_of_ours(
    tmp_path: Path, nursery: trio.Nursery, backend_ports: MakePorts, kind: str
) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(ANSWERS[kind])

    await use(await a_backend(tmp_path, nursery, backend_ports, answer), spec(tmp_path))


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
async def test_an_engine_that_never_ends_its_answer_is_not_waited_for(
    tmp_path: Path, nursery: trio.Nursery, backend_ports: MakePorts, part: bytes
) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(part)
        await trio.sleep_forever()

    await use(await a_backend(tmp_path, nursery, backend_ports, answer), spec(tmp_path))


async def test_an_engine_that_floods_is_read_to_a_bound(
    tmp_path: Path, nursery: trio.Nursery, backend_ports: MakePorts
) -> None:
    sent = 0

    async def answer(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
            sent += 0x8000

    backend = await a_backend(tmp_path, nursery, backend_ports, answer)
    with pytest.raises(ProvisioningError, match=r"more than 8000000 bytes|within"):
        await backend.list()
    assert sent < 3 * engine.MOST_BYTES
