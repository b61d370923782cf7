import msgspec
import pytest
import trio

from engram.http.app import App
from engram.http.asgi import Receive, Send
from engram.http.request import Request, Stream
from engram.http.router import Router
from engram.http.sse import EventSink, event_stream, render
from tests.http.harness import SETTINGS, Raw, connect, get, make_app, make_plain_app, serving


@pytest.fixture
def ended() -> trio.Event:
    return trio.Event()


@pytest.fixture(params=["quart", "hot", "plain"])
def app(ended: trio.Event, request: pytest.FixtureRequest) -> App:
    made = make_plain_app() if request.param == "plain" else make_app()
    return with_streams(made, ended, hot=request.param == "hot")


def with_streams(app: App, ended: trio.Event, heartbeat_s: float = 15.0, *, hot: bool = False) -> App:
    router = Router(app)

    async def three(_: Request) -> Stream:
        async def produce(sink: EventSink) -> None:
            for number in range(3):
                await sink.send({"n": number}, event="count", event_id=str(number))

        return event_stream(produce)

    async def endless(_: Request) -> Stream:
        async def produce(sink: EventSink) -> None:
            try:
                await sink.send("first")
                await trio.sleep_forever()
            finally:
                ended.set()

        return event_stream(produce, heartbeat_s=heartbeat_s)

    router.add("GET", "/three", three, hot=hot)
    router.add("GET", "/endless", endless, hot=hot)
    return app


async def dechunked(client: Raw, marker: bytes) -> bytes:
    return await client.read_until(marker)


async def test_events_are_sent_in_order_and_the_stream_ends_with_its_producer(app: App) -> None:
    async with serving(app) as running, connect(running) as client:
        answer = await client.ask(get("/three"))
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache, no-store", "no")
        blocks = answer.body.decode().strip().split("\n\n")
        assert blocks[0].startswith("retry: ")
        assert blocks[1:] == [f'id: {n}\nevent: count\ndata: {{"n":{n}}}' for n in range(3)]
        assert (await client.ask(get("/three"))).status == 200


async def test_an_event_is_sent_when_it_happens(app: App) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.send(get("/endless"))
        await client.read_until(b"data: first\n\n", timeout_s=2)


async def test_a_producer_ends_when_its_client_leaves(app: App, ended: trio.Event) -> None:
    async with serving(app) as running:
        async with connect(running) as client:
            await client.send(get("/endless"))
            await client.read_until(b"first")
            assert app.open_event_streams == 1
        with trio.fail_after(3):
            await ended.wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert app.open_event_streams == 0


async def test_a_head_of_a_stream_is_answered_without_running_it(app: App) -> None:
    class Held(Stream):
        """Is let go of, or runs."""

        def __init__(self) -> None:
            self.headers = {"Content-Type": "text/plain"}
            self.ends: list[str] = []

        async def run(self, receive: Receive, send: Send, draining: trio.Event) -> None:
            self.ends.append("ran")

        async def discard(self) -> None:
            self.ends.append("discarded")

    held = Held()

    async def holding(_: Request) -> Stream:
        return held

    Router(app).add("GET", "/held", holding)
    async with serving(app) as running, connect(running) as client:
        whole = await client.ask(get("/three"))
        head = await client.ask(get("/three").replace(b"GET", b"HEAD"), "HEAD")
        assert (head.status, head.headers["content-type"], head.body) == (200, whole.headers["content-type"], b"")
        for path in ("/endless", "/held"):
            assert (await client.ask(get(path).replace(b"GET", b"HEAD"), "HEAD")).status == 200
        assert (await client.ask(get("/nothing"))).status == 404, "the connection goes on"
        assert app.open_event_streams == 0
    assert held.ends == ["discarded"]


async def test_streams_end_cleanly_when_the_server_drains(app: App, ended: trio.Event) -> None:
    async with serving(app, drain_s=5) as running, connect(running) as client:
        await client.send(get("/endless"))
        await client.read_until(b"first")
        running.stop_requested.set()
        assert (await client.read_until(b"0\r\n\r\n", timeout_s=3)).endswith(b"0\r\n\r\n")
        assert await client.closed_within(2)
        with trio.fail_after(2):
            await running.stopped.wait()
        assert ended.is_set()


async def test_an_idle_stream_is_kept_alive_by_comments(ended: trio.Event) -> None:
    app = with_streams(make_app(), ended, heartbeat_s=0.05)
    async with serving(app) as running, connect(running) as client:
        await client.send(get("/endless"))
        await client.read_until(b"first")
        await client.read_until(b": \n\n")
        await client.read_until(b": \n\n")


async def test_streams_beyond_the_bound_are_refused(ended: trio.Event) -> None:
    bounded = msgspec.structs.replace(SETTINGS, event_streams=1)
    app = with_streams(make_app(bounded), ended)
    async with serving(app) as running, connect(running) as first, connect(running) as second:
        await first.send(get("/endless"))
        await first.read_until(b"first")
        refused = await second.ask(get("/endless"))
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "too_many_streams", "5")
        assert b"engram_http_event_streams" in app.metrics.render()
    async with serving(app) as running, connect(running) as again:
        assert (await again.ask(get("/three"))).status == 200


async def test_a_producer_that_fails_ends_its_stream_and_nothing_else(app: App) -> None:
    async def fails(_: Request) -> Stream:
        async def produce(sink: EventSink) -> None:
            await sink.send("before")
            raise KeyError("lost")

        return event_stream(produce)

    Router(app).add("GET", "/fails", fails, hot=True)
    async with serving(app) as running:
        async with connect(running) as client:
            await client.send(get("/fails"))
            await client.read_until(b"before")
            assert await client.closed_within(2)
        async with connect(running) as client:
            assert (await client.ask(get("/three"))).status == 200


def test_text_with_line_breaks_is_one_event() -> None:
    assert render("a\nb\r\nc") == b"data: a\ndata: b\ndata: c\n\n"
    assert render("") == b"data: \n\n"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_an_id_or_name_cannot_forge_an_event(text: str) -> None:
    with pytest.raises(ValueError):
        render("x", event_id=text)
    with pytest.raises(ValueError):
        render("x", event=text)
