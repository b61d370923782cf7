"""The client goes away: the backend sees its connection closed at once, and no slot is left taken."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import msgspec
import pytest
import trio

from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.sinks import ClientSink
from engram.proxy.settings.model import LimitSettings
from tests.descriptors import open_descriptors
from tests.http.origin import listen, read_head
from tests.proxy.backends import Backend, answer, backend
from tests.proxy.harness import AUTH, Proxied, calling, proxying, settings_for
from tests.proxy.signing import head, headers_of, raw, signed
from tests.proxy.soon import within

SOON_S = 0.1
RESET = b"\x01\0\0\0\0\0\0\0"
"""For SO_LINGER: the connection ends by a reset, and not by its end."""
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def both(*steps: bytes | str | None, **sections: Any) -> AsyncIterator[tuple[Backend, Proxied]]:
    async with backend(*steps) as servers, proxying(settings_for(servers.port, **sections)) as proxied:
        yield servers, proxied


async def gone(servers: Backend, proxied: Proxied) -> str:
    """The code of the request whose client has just left; its backend's connection is closed soon."""
    async with within(SOON_S):
        await servers.closed.wait()
    ended = await proxied.end()
    assert ended.status == 499
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
        assert await gone(servers, proxied) == "client_gone"


async def test_while_its_whole_body_is_still_passed_on() -> None:
    async with both("wait") as (servers, proxied):
        async with calling(proxied) as client:
            await client.send(signed("/train", b"x" * 8_000_000))
            await servers.began.wait()
        ended = await proxied.end()
        assert (ended.code, ended.status, ended.received_bytes) == ("client_gone", 499, 8_000_000)
        assert proxied.in_progress == 0
        servers.go_on.set()


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


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_in_the_queue_with_a_body_that_waits_to_be_passed_on(reset: bool) -> None:
    limits = LimitSettings(
        requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent=1, queue=1, queue_s=30.0
    )
    async with both("wait", answer(), limits=limits) as (servers, proxied), calling(proxied) as first:
        await first.send(signed("/inference"))
        await servers.began.wait()
        body = b"x" * 200_000
        async with calling(proxied) as second:
            await second.send(head("POST", "/inference", len(body), headers_of(body, digest=True)) + body[:70_000])
            with trio.fail_after(5):
                while not proxied.state.admission.places.waiting:
                    await trio.lowlevel.checkpoint()
            if reset:
                second.stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
        async with within(SOON_S):
            ended = await proxied.end()
        assert (ended.code, ended.status, ended.received_bytes) == ("client_gone_queue", 499, 0)
        assert proxied.state.admission.places.waiting == 0
        servers.go_on.set()
        assert (await first.read()).status == 200
        assert servers.requests == 1


async def test_by_a_reset_in_an_upload_of_which_the_backend_takes_no_more() -> None:
    """An end that is not a reset waits in the client's system behind what is not taken, and cannot be seen."""

    async def takes_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, takes_nothing)
        async with proxying(settings_for(port, route={"idle_s": 30.0})) as proxied:
            async with calling(proxied) as client:
                body = b"x" * 30_000_000
                await client.send(head("POST", "/train", len(body), headers_of(body, digest=True)))
                with trio.move_on_after(0.5):  # as much as both sides' systems take
                    await client.send(body)
                client.stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
            async with within(SOON_S):
                ended = await proxied.end()
            assert (ended.code, ended.status) == ("client_gone_body", 499)
            assert proxied.in_progress == 0
            assert proxied.state.plan.groups["servers"].words()[0][3] == "", "nothing is held against the server"
        nursery.cancel_scope.cancel()


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
    async with both(*steps, limits=FOUR, route=route, backend=NEVER_BROKEN) as (servers, proxied):
        places = proxied.state.admission.places
        held = [places.take() for _ in range(4)] if name == "gone in the queue" else []
        before = Taken()
        for number in range(count // 4):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(once, proxied, name)
            await proxied.ended(4 * (number + 1))
            assert proxied.in_progress == len(held)
        if name.startswith("gone"):
            assert {ended.code for ended in proxied.ends} == {CODES[name]}
        for _ in held:
            places.give_back()
        assert places.taken == places.waiting == 0
        servers.go_on.set()
        await before.again(servers, proxied)


NEVER_BROKEN = {"breaker_failures": 1_000_000, "failures": 1_000_000}


class Taken:
    """What this process has open and running at one time."""

    def __init__(self) -> None:
        self._tasks, self._sockets = self._now()

    def _now(self) -> tuple[int, int]:
        return trio.lowlevel.current_statistics().tasks_living, open_descriptors("socket:").total()

    async def again(self, servers: Backend, proxied: Proxied) -> None:
        """Wait until it is no more than then, but for idle connections to the backend, at most 4, and what serves and
        closes these."""
        upstream = proxied.state.plan.groups["servers"].upstream
        assert upstream.idle <= 4
        with trio.fail_after(10):
            while True:
                tasks, sockets = self._now()
                idle = upstream.idle
                of_both_sides = self._sockets + 2 * idle
                if servers.open == idle and tasks <= self._tasks + idle + 1 and sockets <= of_both_sides:
                    return
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


@pytest.mark.external
@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
async def test_slots_come_back_whenever_nodes_fetch_leaves() -> None:
    await fetches_come_back(120)


@pytest.mark.nightly
@pytest.mark.external
@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
@pytest.mark.parametrize("part", range(10))
async def test_slots_come_back_over_ten_thousand_of_nodes_fetches(part: int) -> None:
    await fetches_come_back(1_000)


async def fetches_come_back(count: int) -> None:
    """Let node's fetch make requests with all endings, mixed, at a limit of four; then four more are answered."""
    names = [name for name in ENDINGS if name != "gone in the queue"]
    limits = msgspec.structs.replace(FOUR, concurrent_per_key=8)  # one that left is noticed a moment later
    seen = Backend()

    async def by_name(stream: trio.SocketStream) -> None:
        """Behave as the request's own header says."""
        seen.open += 1
        try:
            while asked := await read_head(stream):
                name = asked.partition(b"x-ending: ")[2].partition(b"\r\n")[0].decode()
                for step in ENDINGS[name][0]:
                    if isinstance(step, str):
                        while step == "hang" and await stream.receive_some(65_536):
                            pass
                        return
                    await stream.send_all(step)
        finally:
            seen.open -= 1

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, by_name)
        auth = msgspec.structs.replace(AUTH, allowed_delta_ms=3_600_000)
        settings = settings_for(port, limits=limits, route={"first_byte_s": 0.1}, backend=NEVER_BROKEN, auth=auth)
        async with proxying(settings) as proxied:
            before = Taken()
            asked = []
            for number in range(count):
                name = names[number % len(names)]
                headers = headers_of(b"", digest=True) if name == "gone in the upload" else headers_of(b"{}")
                asked.append(msgspec.json.encode([name, {**headers, "x-ending": name}]))
            command = ["node", str(Path(__file__).parent / "node_leaver.mjs"), f"{proxied.url}/inference"]
            done = await trio.run_process(command, stdin=b"\n".join(asked), capture_stdout=True)
            ways = msgspec.json.decode(done.stdout, type=dict[str, int])
            assert sum(ways.values()) == count
            assert set(ways) <= {"200", "500", "504", "left", "cut"}
            await before.again(seen, proxied)
            assert len(proxied.ends) > 0.7 * count, "some leave before they are there"
            assert {ended.code for ended in proxied.ends} <= {
                "done",
                "upstream_cut",
                "first_byte_late",
                "client_gone",
                "client_gone_queue",
                "client_gone_body",
                "client_gone_answer",
            }
            assert proxied.in_progress == 0
            async with trio.open_nursery() as four:
                for _ in range(4):
                    four.start_soon(answered_at_once, proxied)
        nursery.cancel_scope.cancel()


async def answered_at_once(proxied: Proxied) -> None:
    request = raw("POST", "/inference", b"{}", {**headers_of(b"{}"), "x-ending": "ok"})
    async with calling(proxied) as client:
        assert (await client.ask(request)).status == 200


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
    sink = ClientSink(request)
    await sink.start(200, [], 5)
    await sink.part(b"who")
    await sink.part(b"le")
    assert answered == [(b"", False), (b"who", False), (b"le", True)]
