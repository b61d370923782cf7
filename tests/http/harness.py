"""A real server on a real socket, and a raw client that says exactly what a test wants said."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11
import msgspec
import trio

from config.model import HttpSettings
from engram.clock import ManualClock, SeededIds
from engram.http.app import App, new_app
from engram.http.listener import serve
from engram.http.quart_app import QuartApp, new_quart_app
from engram.http.sockets import Address
from engram.telemetry.metrics import Metrics

SETTINGS = HttpSettings(requests_per_minute_per_ip=0, requests_per_minute_per_hotkey=0)


def make_app(settings: HttpSettings = SETTINGS, clock: ManualClock | None = None, name: str = "test") -> QuartApp:
    """An application in which the tests of this folder put routes."""
    return new_quart_app(name, settings=settings, clock=clock or ManualClock(), ids=SeededIds(), metrics=Metrics())


def make_plain_app(settings: HttpSettings = SETTINGS) -> App:
    """The same without a framework."""
    return new_app("test", settings=settings, clock=ManualClock(), ids=SeededIds(), metrics=Metrics())


class Running:
    """A server under test, in the place of a supervised job's context."""

    def __init__(self) -> None:
        self.stop_requested = trio.Event()
        self.stopped = trio.Event()
        self.address = Address("", 0)
        self._ready = trio.Event()

    def ready(self, info: object = None) -> None:
        assert isinstance(info, Address)
        self.address = info
        self._ready.set()

    async def wait_ready(self) -> None:
        await self._ready.wait()

    @property
    def port(self) -> int:
        return self.address.port


@asynccontextmanager
async def serving(app: App, settings: HttpSettings = SETTINGS, drain_s: float = 5.0) -> AsyncIterator[Running]:
    running = Running()

    async def run() -> None:
        await serve(app, "127.0.0.1", 0, context=running, settings=settings, drain_s=drain_s)
        running.stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(5):
            await running.wait_ready()
        yield running
        nursery.cancel_scope.cancel()


class Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body, type=dict[str, object])

    @property
    def code(self) -> object:
        return self.json()["code"]


class Raw:
    """A client connection. Bytes go out as given; answers are read by h11."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._parser = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read(self, method: str = "GET", timeout_s: float = 5.0) -> Answer:
        """The next answer. Raises AssertionError when none comes."""
        parser = self._parser
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        status, headers, body = 0, dict[str, str](), bytearray()
        with trio.move_on_after(timeout_s):
            while True:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    parser.receive_data(bytes(await self.stream.receive_some(65_536)))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    headers = {name.decode().lower(): value.decode() for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    if parser.our_state is h11.DONE and parser.their_state is h11.DONE:
                        parser.start_next_cycle()
                    return Answer(status, headers, bytes(body))
                elif isinstance(event, h11.ConnectionClosed):
                    raise AssertionError("the connection was closed without an answer")
        raise AssertionError(f"no answer within {timeout_s} s")

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        await self.send(data)
        return await self.read(method)

    async def read_until(self, marker: bytes, timeout_s: float = 5.0) -> bytes:
        received = bytearray()
        with trio.fail_after(timeout_s):
            while marker not in received:
                chunk = await self.stream.receive_some(65_536)
                assert chunk, f"closed after {bytes(received)!r}"
                received += chunk
        return bytes(received)

    async def closed_within(self, seconds: float) -> bool:
        """Whether the server ends the connection in time; what it still sends is dropped."""
        with trio.move_on_after(seconds):
            try:
                while await self.stream.receive_some(65_536):
                    pass
            except trio.BrokenResourceError:
                return True
            return True
        return False


@asynccontextmanager
async def connect(running: Running) -> AsyncIterator[Raw]:
    async with await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
        yield Raw(stream)


def get(path: str = "/hello", *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode("latin-1")


def post(body: bytes, path: str = "/echo", *headers: str) -> bytes:
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers, "", ""])
    return head.encode("latin-1") + body
