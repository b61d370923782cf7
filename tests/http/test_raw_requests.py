"""Every raw request over a real socket: what the application sees, what the client reads, and in which order."""

import h11
import pytest
import trio

from engram.http.asgi import HeaderLines, Receive, Scope, Send, respond
from engram.http.parser import Refused
from engram.http.server import Limits, Server
from engram.http.sockets import Address, listen
from tests.http.raw_requests import CASES, Case


class Quiet:
    """An observer that nobody asks."""

    def refused(self, refused: Refused, client: str) -> tuple[str, HeaderLines]:
        return "0" * 16, ()

    def dropped(self, code: str) -> None: ...

    def count(self, connections: int) -> None: ...


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body, or not at all when it did not come whole."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    await respond(send, 200, body)


async def conversation(port: int, raw: bytes) -> bytes:
    """All that the server says to these bytes and an end."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    said = bytearray()
    async with stream, trio.open_nursery() as nursery:

        async def speak() -> None:
            try:
                await stream.send_all(raw)
                await stream.send_eof()
            except trio.BrokenResourceError:
                return

        nursery.start_soon(speak)
        with trio.fail_after(10):
            while part := await stream.receive_some(65_536):
                said += part
    return bytes(said)


def answers(said: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer, as h11 reads them."""
    found = []
    parser = h11.Connection(h11.CLIENT)
    parser.receive_data(said)
    parser.receive_data(b"")
    while True:
        if parser.our_state is h11.IDLE:
            parser.send(h11.Request(method="GET", target="/", headers=[("host", "t")]))
            parser.send(h11.EndOfMessage())
        event = parser.next_event()
        if isinstance(event, h11.Response):
            status, body = event.status_code, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((status, body))
            if (
                parser.our_state is h11.MUST_CLOSE
                or parser.their_state is h11.MUST_CLOSE
                or not parser.trailing_data[0]
            ):
                assert not parser.trailing_data[0], "an answer behind the last one"
                return found
            parser.start_next_cycle()
        else:
            return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_is_answered_in_its_turn_and_what_is_refused_ends_the_connection(case: Case) -> None:
    listeners = listen("127.0.0.1", 0)
    server = Server(echo, Address.of(listeners[0]), Limits(), Quiet())
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, listeners, stop, 5.0)
        said = await conversation(server.bound.port, case.raw)
        stop.set()
    whole = case.bodies[:-1] if case.within_body else case.bodies
    expected = [(200, body) for body in whole]
    got = answers(said)
    assert got[: len(expected)] == expected
    assert [status for status, _ in got[len(expected) :]] == ([] if case.status is None else [case.status])
