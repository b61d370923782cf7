"""The outbound client at a Unix socket."""

import contextlib
import socket
from pathlib import Path

import pytest
import trio

from engram.http.client import HttpClient, NotSent
from tests.http.origin import answer, read_head


async def serve(listener: trio.SocketListener, heads: list[bytes]) -> None:
    async def conversation(stream: trio.SocketStream) -> None:
        async with stream:
            while head := await read_head(stream):
                heads.append(head)
                await stream.send_all(answer(b"{}"))

    await trio.serve_listeners(conversation, [listener])


def listening(path: Path, backlog: int = 10) -> trio.SocketListener:
    sock = trio.socket.from_stdlib_socket(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    sock._sock.bind(str(path))  # type: ignore[attr-defined]  # binding is no waiting
    sock.listen(backlog)
    return trio.SocketListener(sock)


async def test_every_request_goes_to_the_socket_whatever_host_its_url_names(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    heads: list[bytes] = []
    nursery.start_soon(serve, listening(tmp_path / "s"), heads)
    client = HttpClient(unix_socket=str(tmp_path / "s"))
    for fresh in (False, False, True):
        answered = await client.request("GET", "http://engine/_ping", fresh=fresh)
        assert (answered.status, answered.json()) == (200, {})
    assert [head.split(b"\r\n")[0] for head in heads] == [b"GET /_ping HTTP/1.1"] * 3
    assert client.idle_connections == 1
    await client.aclose()


async def test_a_socket_that_is_missing_or_deaf_is_told_as_not_sent(tmp_path: Path) -> None:
    client = HttpClient(unix_socket=str(tmp_path / "none"))
    with pytest.raises(NotSent, match="none: No such file or directory"):
        await client.request("GET", "http://engine/")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(tmp_path / "deaf"))
        with pytest.raises(NotSent, match="deaf: Connection refused"):
            await HttpClient(unix_socket=str(tmp_path / "deaf")).request("GET", "http://engine/")


async def test_a_full_backlog_is_waited_for_and_not_for_ever(tmp_path: Path, nursery: trio.Nursery) -> None:
    path, heads = tmp_path / "s", list[bytes]()
    listener = listening(path, backlog=0)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2)]
    try:
        for each in waiting:
            each.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                each.connect(str(path))
        client = HttpClient(unix_socket=str(path))
        with pytest.raises(NotSent, match=r"no connection within 0\.1 s"):
            await client.request("GET", "http://engine/", fresh=True, connect_s=0.1)
        nursery.start_soon(serve, listener, heads)
        assert (await client.request("GET", "http://engine/", fresh=True)).status == 200
    finally:
        for each in waiting:
            each.close()
