"""The loop on standard input and output."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
import trio.testing

from engram.mcp import stdio
from engram.mcp.dispatcher import MAX_MESSAGE_BYTES
from tests.mcp.toys import Toys, call, request


class Client:
    def __init__(self, out: "trio.StapledStream[Any, Any]", back: trio.abc.ReceiveStream) -> None:
        self.out = out
        self._lines = stdio.Lines(back)

    async def send(self, *lines: bytes) -> None:
        await self.out.send_all(b"".join(line + b"\n" for line in lines))

    async def next(self) -> Any:
        with trio.fail_after(5):
            line = await self._lines.__anext__()
        assert line is not None
        return msgspec.json.decode(line)


@asynccontextmanager
async def served() -> AsyncIterator[Client]:
    here, there = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stdio.serve, stdio.serves(Toys().dispatcher), there, there)
        yield Client(here, here)
        await here.send_eof()


async def test_requests_are_answered_by_lines_also_in_pieces() -> None:
    async with served() as client:
        for byte in request("ping", id=1):
            await client.out.send_all(bytes([byte]))
        await client.send(b"", b"   ")
        assert (await client.next())["id"] == 1
        await client.send(b"nonsense", b"[]")
        assert [(await client.next())["error"]["code"] for _ in range(2)] == [-32700, -32600]


async def test_a_slow_call_holds_up_no_other_and_can_be_cancelled() -> None:
    async with served() as client:
        await client.send(call("sleep", id="slow"), call("echo", id=2))
        assert (await client.next())["id"] == 2
        cancelled = msgspec.json.encode(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "slow"}}
        )
        await client.send(cancelled, cancelled.replace(b"slow", b"none"), request("ping", id=3))
        assert (await client.next())["id"] == 3


def cancelled(request_id: Any) -> bytes:
    about = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
    return msgspec.json.encode(about)


async def test_calls_are_cancelled_also_when_as_many_are_in_progress_as_may_be() -> None:
    async with served() as client:
        await client.send(*(call("sleep", id=number) for number in range(stdio.AT_ONCE)), request("ping", id="more"))
        refused = await client.next()
        assert (refused["id"], refused["error"]["code"]) == ("more", -32000)
        await client.send(*(cancelled(number) for number in range(stdio.AT_ONCE)))
        await trio.testing.wait_all_tasks_blocked()
        await client.send(request("ping", id="again"))
        assert (await client.next())["id"] == "again"


async def test_a_second_request_of_an_id_in_progress_is_refused_and_the_first_can_still_be_cancelled() -> None:
    async with served() as client:
        await client.send(call("sleep", id=1), call("echo", id=1))
        assert (await client.next())["error"]["code"] == -32600
        await client.send(cancelled(1))
        await trio.testing.wait_all_tasks_blocked()
        await client.send(call("echo", id=1))
        assert "result" in await client.next()


async def test_a_line_that_is_too_long_is_refused_and_the_next_is_read() -> None:
    async with served() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, b"x" * (3 * MAX_MESSAGE_BYTES), request("ping", id=4))
        assert (await client.next())["error"]["code"] == -32600
        assert (await client.next())["id"] == 4


async def test_the_end_of_the_input_ends_the_server_after_what_it_was_given() -> None:
    async with served() as client:
        await client.send(request("ping", id=5))
        await client.out.send_all(request("ping", id=6))
        await client.out.send_eof()
        assert sorted([(await client.next())["id"], (await client.next())["id"]]) == [5, 6]


async def test_a_client_that_reads_no_more_ends_nothing() -> None:
    here, there = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stdio.serve, stdio.serves(Toys().dispatcher), there, there)
        await here.send_all(request("ping") + b"\n")
        await here.aclose()
