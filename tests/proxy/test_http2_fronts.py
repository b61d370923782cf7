"""HTTP/2 ends at a front: what that makes of requests, honest and hostile, is what the proxy sees; h2c goes nowhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from tests.http.servers import bare, echo
from tests.proxy.fronts import Program, nginx
from tests.proxy.harness import Proxied, calling, proxying, settings_for
from tests.proxy.signing import headers_of
from tests.proxy.test_fronts import PROGRAMS, program, seen_by

pytestmark = [pytest.mark.heavy, pytest.mark.external]

Pairs = list[tuple[str, str]]


class Client:
    """One connection with prior knowledge, which checks nothing that it sends."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        unchecked = H2Configuration(
            client_side=True,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._wire = H2Connection(unchecked)
        self._wire.initiate_connection()

    async def ask(self, pairs: Pairs, body: bytes = b"") -> tuple[int, bytes]:
        """The status and body of the answer; 0 where the front answered by ending the stream or the connection."""
        number = self._wire.get_next_available_stream_id()
        self._wire.send_headers(number, pairs, end_stream=not body)
        if body:
            self._wire.send_data(number, body, end_stream=True)
        status, received = 0, b""
        try:
            with trio.move_on_after(3):
                await self._stream.send_all(self._wire.data_to_send())
                while data := await self._stream.receive_some(65_536):
                    for event in self._wire.receive_data(data):
                        match event:
                            case ResponseReceived(headers=headers):
                                status = int({bytes(key): value for key, value in headers}[b":status"])
                            case DataReceived(data=part, flow_controlled_length=length):
                                received += part
                                self._wire.acknowledge_received_data(length, number)
                            case StreamEnded() | StreamReset() | ConnectionTerminated():
                                return status, received
                            case _:
                                pass
                    await self._stream.send_all(self._wire.data_to_send())
        except (trio.BrokenResourceError, ProtocolError):
            pass
        return status, received


@asynccontextmanager
async def http2(front: Program) -> AsyncIterator[Client]:
    async with await trio.open_tcp_stream("127.0.0.1", front.port) as stream:
        yield Client(stream)


@asynccontextmanager
async def behind(name: str, folder: Path) -> AsyncIterator[tuple[Program, Proxied]]:
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied:
        with program(name)(folder, proxied.port, http2=True) as front:
            yield front, proxied


def request(path: str, headers: dict[str, str], *more: tuple[str, str], method: str = "POST") -> Pairs:
    pairs = [(":method", method), (":scheme", "http"), (":authority", "miner.example"), (":path", path)]
    return [*pairs, *((key.lower(), value) for key, value in headers.items()), *more]


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_signed_request_over_http2_is_believed_and_passed_on_whole(name: str, tmp_path: Path) -> None:
    async with behind(name, tmp_path) as (front, proxied), http2(front) as client:
        for size in (2, 10_000):
            body = b"x" * size
            for digest in (False, True):
                pairs = request("/inference?a=1&a=2", headers_of(body, digest=digest))
                assert await client.ask(pairs, body) == (200, body)
        assert await client.ask(request("/inference", {}), b"{}") != (200, b"{}")
        await proxied.ended(5)
        assert [ended.code for ended in proxied.ends] == ["done"] * 4 + ["unsigned"]


HIDDEN = "x\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
HOSTILE: dict[str, Pairs] = {
    "a request in a value": [("x-a", HIDDEN)],
    "a request in a name": [("x-a: b\r\n\r\nGET /smuggled HTTP/1.1\r\nx", "y")],
    "chunked": [("transfer-encoding", "chunked")],
    "chunked by a bare line feed": [("x-a", "b\ntransfer-encoding: chunked")],
    "a length that is too short": [("content-length", "1")],
    "a length that is too long": [("content-length", "900")],
    "two lengths": [("content-length", "2"), ("content-length", "40")],
    "connection options": [("connection", "close, content-length")],
    "an upgrade": [("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")],
    "an upper-case name": [("Content-Length", "900")],
    "a null": [("x-a", "b\x00c")],
    "another host": [("host", "elsewhere.example")],
    "a trailer's name": [("te", "trailers, chunked")],
}
PATHS = ["/a b HTTP/1.1\r\nx: y", "/%0d%0aGET%20/smuggled", "http://elsewhere.example/", "*", "", "//inference", "/a#b"]


@pytest.mark.parametrize("name", PROGRAMS)
async def test_no_hostile_request_over_http2_becomes_two(name: str, tmp_path: Path) -> None:
    body = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    async with behind(name, tmp_path) as (front, proxied):
        for more in HOSTILE.values():
            async with http2(front) as client:
                await client.ask(request("/inference", headers_of(body), *more), body)
        for path in PATHS:
            async with http2(front) as client:
                await client.ask(request(path, headers_of(body)), body)
        await trio.to_thread.run_sync(front.settle)
        meant = sorted((method, target.partition("?")[0]) for method, target in front.seen(forwarded=True))
        seen = seen_by(proxied)
        assert len(meant) > 3
        assert len(seen) <= len(meant)
        assert not [each for each in seen if "smuggled" in each[1] and "%0d" not in each[1]]
        assert {ended.code for ended in proxied.ends if ended.status >= 500} == set()


UPGRADE = (
    b"GET /inference HTTP/1.1\r\nHost: m\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)


async def test_h2c_is_refused_by_itself_and_behind_a_front_that_passes_upgrades_on(tmp_path: Path) -> None:
    async with proxying(settings_for(9)) as proxied:
        async with calling(proxied) as client:
            assert (await client.ask(UPGRADE)).status == 400
        async with calling(proxied) as client:
            assert (await client.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).status in (400, 405, 505)
        program("nginx")
        with nginx(tmp_path, proxied.port, upgrades=True) as front:
            async with await trio.open_tcp_stream("127.0.0.1", front.port) as stream:
                await stream.send_all(UPGRADE)
                received = await stream.receive_some(65_536)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert {ended.code for ended in proxied.ends} == {"bad_request"}
