"""Every raw request over a real socket: what the application sees, what the client reads, and in which order."""

import h11
import pytest
import trio

from tests.http.raw_requests import CASES, Case
from tests.http.servers import bare, echo


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
    async with bare(echo) as running:
        said = await conversation(running.port, case.raw)
    whole = case.bodies[:-1] if case.within_body else case.bodies
    expected = [(200, body) for body in whole]
    got = answers(said)
    assert got[: len(expected)] == expected
    assert [status for status, _ in got[len(expected) :]] == ([] if case.status is None else [case.status])
