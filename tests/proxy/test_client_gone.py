"""The client goes away: the backend sees its connection closed at once, and no slot is left taken."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.sinks import ClientSink
from engram.proxy.settings.model import LimitSettings
from tests.proxy.backends import Backend, answer, backend
from tests.proxy.harness import Proxied, calling, proxying, settings_for
from tests.proxy.signing import head, headers_of, signed

SOON_S = 0.1
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def both(*steps: bytes | str | None, **sections: Any) -> AsyncIterator[tuple[Backend, Proxied]]:
    async with backend(*steps) as servers, proxying(settings_for(servers.port, **sections)) as proxied:
        yield servers, proxied


async def gone(servers: Backend, proxied: Proxied) -> str:
    """The code of the request whose client has just left; its backend's connection is closed soon."""
    with trio.fail_after(SOON_S):
        await servers.closed.wait()
    ended = await proxied.end()
    assert ended.status in (499, 200)
    assert proxied.in_progress == 0
    return ended.code


async def test_before_the_backends_head() -> None:
    async with both("hang") as (servers, proxied):
        async with calling(proxied) as client:
            await client.send(signed("/inference"))
            await servers.began.wait()
        assert await gone(servers, proxied) == "client_gone"


async def test_in_the_middle_of_a_stream() -> None:
    async with both(HEAD + b"4\r\npart\r\n", "hang") as (servers, proxied):
        async with calling(proxied) as client:
            await client.send(signed("/inference"))
            await client.read_until(b"part")
        assert await gone(servers, proxied) == "client_gone_answer"


async def test_in_the_middle_of_an_upload() -> None:
    async with both("hang") as (servers, proxied):
        async with calling(proxied) as client:
            body = b"x" * 1_000_000
            await client.send(head("POST", "/train", len(body), headers_of(body, digest=True)) + body[:300_000])
            await servers.began.wait()
        assert await gone(servers, proxied) == "client_gone_body"


async def test_waiting_for_a_whole_answer_after_an_upload() -> None:
    async with both("hang") as (servers, proxied):
        async with calling(proxied) as client:
            body = b"x" * 300_000
            await client.send(head("POST", "/train", len(body), headers_of(body, digest=True)) + body)
            await servers.began.wait()
            with trio.fail_after(5):
                while proxied.state.spool.held:  # nothing of it is kept
                    await trio.lowlevel.checkpoint()
        assert (await gone(servers, proxied)).startswith("client_gone")


async def test_in_the_queue() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent=1)
    async with both("wait", answer(), limits=limits) as (servers, proxied), calling(proxied) as first:
        await first.send(signed("/inference"))
        await servers.began.wait()
        async with calling(proxied) as second:
            await second.send(signed("/inference"))
            while not proxied.state.admission.places.waiting:
                await trio.lowlevel.checkpoint()
        ended = await proxied.end()
        assert (ended.code, ended.status) == ("client_gone_queue", 499)
        assert proxied.state.admission.places.waiting == 0
        servers.go_on.set()
        assert (await first.read()).status == 200
        assert servers.requests == 1


async def test_a_route_that_drains_lets_the_backend_finish() -> None:
    async with both(HEAD + b"4\r\npart\r\n", "wait", b"3\r\nend\r\n0\r\n\r\n", route={"on_client_gone": "drain"}) as (
        servers,
        proxied,
    ):
        async with calling(proxied) as client:
            await client.send(signed("/inference"))
            await client.read_until(b"part")
        with trio.move_on_after(SOON_S) as looked:
            await servers.closed.wait()
        assert looked.cancelled_caught, "the backend is still connected"
        servers.go_on.set()
        assert (await proxied.end()).code == "client_gone_answer"
        assert proxied.in_progress == 0


@pytest.mark.parametrize("bound", [{"drain_s": 0.1}, {"drain_bytes": 10}], ids=["time", "bytes"])
async def test_draining_is_bounded(bound: dict[str, float]) -> None:
    steps = (HEAD + b"4\r\npart\r\n", "wait", "trickle")
    async with both(*steps, route={"on_client_gone": "drain", **bound}) as (servers, proxied):
        async with calling(proxied) as client:
            await client.send(signed("/inference"))
            await client.read_until(b"part")
        servers.go_on.set()
        with trio.fail_after(5):
            await servers.closed.wait()
        assert (await proxied.end()).code == "client_gone_answer"
        assert proxied.in_progress == 0


FOUR = LimitSettings(
    requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent_per_key=4, concurrent=4, queue=4
)
ENDINGS: dict[str, tuple[tuple[bytes | str, ...], dict[str, Any]]] = {
    "ok": ((answer(),), {}),
    "500": ((answer(b"no", "500 No"),), {}),
    "cut": ((HEAD + b"4\r\npart\r\n", "close"), {}),
    "timeout": (("hang",), {"first_byte_s": 0.02}),
    "gone in the queue": ((answer(),), {}),
    "gone in the upload": (("hang",), {}),
    "gone before the head": (("hang",), {}),
    "gone in the answer": ((HEAD + b"4\r\npart\r\n", "hang"), {}),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_slots_come_back_whatever_the_ending(name: str) -> None:
    await slots_come_back(name, 60)


async def slots_come_back(name: str, count: int) -> None:
    steps, route = ENDINGS[name]
    never = {"breaker_failures": 1_000_000}
    async with both(*steps, limits=FOUR, route=route, backend=never) as (servers, proxied):
        places = proxied.state.admission.places
        held = [places.take() for _ in range(4)] if name == "gone in the queue" else []
        before = trio.lowlevel.current_statistics().tasks_living
        for number in range(count // 4):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(once, proxied, name)
            await proxied.ended(4 * (number + 1))
            assert proxied.in_progress == len(held)
        if name.startswith("gone"):
            assert {ended.code for ended in proxied.ends} <= {CODES[name], "client_gone_body"}
        for _ in held:
            places.give_back()
        assert places.taken == places.waiting == 0
        servers.go_on.set()
        idle = proxied.state.plan.groups["servers"].upstream.idle
        assert idle <= 4
        with trio.fail_after(
            10
        ):  # a connection of the backend's, and the task that closes idle ones, may stay a moment
            while trio.lowlevel.current_statistics().tasks_living > before + idle + 1:
                await trio.lowlevel.checkpoint()


CODES = {
    "gone in the queue": "client_gone_queue",
    "gone in the upload": "client_gone_body",
    "gone before the head": "client_gone",
    "gone in the answer": "client_gone_answer",
}


async def once(proxied: Proxied, name: str) -> None:
    """Send a request; leave where the ending says so, else read the answer."""
    async with calling(proxied) as client:
        if name == "gone in the upload":
            body = b"x" * 100_000
            await client.send(head("POST", "/inference", len(body), headers_of(body, digest=True)) + body[:70_000])
            return
        await client.send(signed("/inference"))
        if name == "gone in the queue":
            while not proxied.state.admission.places.waiting:
                await trio.lowlevel.checkpoint()
        if name in ("gone in the queue", "gone before the head"):
            return
        received = b""
        with trio.fail_after(5):
            while not (name == "gone in the answer" and b"part" in received):
                chunk = await client.stream.receive_some(65_536)
                received += chunk
                if not chunk or b"content-length" in received or b"504" in received:
                    return


@pytest.mark.nightly
@pytest.mark.parametrize("name", ENDINGS)
async def test_slots_come_back_over_ten_thousand_requests(name: str) -> None:
    await slots_come_back(name, 10_000 // len(ENDINGS))


async def test_an_answer_is_whole_with_the_last_byte_of_its_length() -> None:
    """A client that has all of it may leave before its end is noted."""
    answered: list[tuple[bytes, bool]] = []

    async def send(message: Any) -> None:
        answered.append((message.get("body", b""), request.answered))

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    scope = {"type": "http", "scheme": "http", "headers": [], "raw_path": b"/", "query_string": b""}
    request = Incoming(scope, receive, send, "ab", "192.0.2.1", "192.0.2.1", 0.0)
    sink = ClientSink(request, ())
    await sink.start(200, [], 5)
    await sink.part(b"who")
    await sink.part(b"le")
    assert answered == [(b"", False), (b"who", False), (b"le", True)]
