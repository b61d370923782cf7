"""The client's side of a WebSocket, against our own server: with TLS, refused, cut, and one that takes nothing."""

import shutil
import ssl
from functools import partial
from pathlib import Path

import pytest
import trio

from engram.http.asgi import Receive, Scope, Send
from engram.http.client import HttpClient
from engram.http.errors import BadAnswer, Interrupted, NotSent, TooLarge
from engram.http.head import Bounds
from engram.http.server import Limits
from engram.http.tls import Certificates
from engram.http.websocket_client import read_texts
from tests.http.servers import bare
from tests.http.test_tls import make_certificate

OFFERED = Limits(bounds=Bounds(websocket=True))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back what it gets; on /texts three texts and an end, on /refused nothing, on /silent it reads nothing."""
    await receive()
    if scope["path"] == "/refused":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    if scope["path"] == "/silent":
        await trio.sleep_forever()
    if scope["path"] == "/texts":
        for text in ("one", "zwei ä", "x" * 50):
            await send({"type": "websocket.send", "text": text, "bytes": None})
        await send({"type": "websocket.close", "code": 1000})
        return
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


async def test_messages_go_there_and_back_in_order() -> None:
    http = HttpClient()
    async with bare(echo, OFFERED) as server:
        socket = await http.websocket(f"http://127.0.0.1:{server.port}/")
        assert await socket.send("ä", b"\x00\xff", "x" * 100_000)
        with trio.fail_after(5):
            assert [await socket.receive() for _ in range(3)] == ["ä", b"\x00\xff", "x" * 100_000]
        await socket.close()
        assert (await socket.receive(), await socket.send("late")) == (None, False)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here to make certificates")
async def test_tls_is_spoken_and_a_strangers_certificate_refused(tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    trusting = HttpClient(tls=ssl.create_default_context(cafile=str(pair[0])))
    strict = HttpClient(tls=ssl.create_default_context(cafile=str(make_certificate(tmp_path, "two")[0])))
    async with bare(echo, OFFERED, certificates=Certificates(*pair)) as server:
        url = f"https://127.0.0.1:{server.port}/"
        socket = await trusting.websocket(url)
        assert await socket.send("a", b"b" * 100_000)
        with trio.fail_after(5):
            assert [await socket.receive() for _ in range(2)] == ["a", b"b" * 100_000]
        await socket.close()
        with pytest.raises(NotSent, match="certificate verify failed"):
            await strict.websocket(url)


async def test_a_refusal_a_silence_and_no_server_are_different_errors() -> None:
    http = HttpClient()

    async def mute(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async def plain(stream: trio.SocketStream) -> None:
        await stream.receive_some(4_096)
        await stream.send_all(b"HTTP/1.1 400 Bad\r\ncontent-length: 19\r\n\r\nTransport unknown!\n")

    async with bare(echo, OFFERED) as server, trio.open_nursery() as nursery:
        with pytest.raises(BadAnswer, match="the WebSocket was refused: 403"):
            await http.websocket(f"http://127.0.0.1:{server.port}/refused")
        ports = []
        for handler in (mute, plain):
            (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
            ports.append(listener.socket.getsockname()[1])
        with pytest.raises(Interrupted, match=r"the handshake was not answered within 0.05 s"):
            await http.websocket(f"http://127.0.0.1:{ports[0]}/", answer_s=0.05)
        with pytest.raises(BadAnswer, match="refused: 400 Transport unknown!"):
            await http.websocket(f"http://127.0.0.1:{ports[1]}/")
        nursery.cancel_scope.cancel()
    with pytest.raises(NotSent, match="no connection"):
        await http.websocket(f"http://127.0.0.1:{ports[0]}/")


async def test_a_message_beyond_the_bound_closes() -> None:
    http = HttpClient()
    async with bare(echo, OFFERED) as server:
        socket = await http.websocket(f"http://127.0.0.1:{server.port}/", max_bytes=1_000)
        await socket.send("x" * 999, "ä" * 501)
        assert await socket.receive() == "x" * 999
        with pytest.raises(TooLarge, match="more than 1000 bytes"):
            await socket.receive()
        assert await socket.receive() is None


async def test_a_server_that_takes_nothing_is_given_up_by_all_that_send() -> None:
    http, sent = HttpClient(), []
    async with bare(echo, OFFERED) as server:
        socket = await http.websocket(f"http://127.0.0.1:{server.port}/silent")

        async def send() -> None:
            sent.append(await socket.send("x" * 8_000_000, within_s=0.05))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(send)
        assert sent == [False] * 3
        assert socket.closed == "the server took nothing for 0.05 s"
        assert await socket.receive() is None


@pytest.mark.parametrize(("max_bytes", "texts"), [(1_000, 3), (20, 2), (3, 1), (2, 0)])
async def test_texts_are_read_up_to_the_bound(max_bytes: int, texts: int) -> None:
    async with bare(echo, OFFERED) as server:
        url = f"http://127.0.0.1:{server.port}/texts"
        read = await read_texts(url, headers=[], tls=None, address=None, total_s=5.0, max_bytes=max_bytes)
    assert read == ["one", "zwei ä", "x" * 50][:texts]
