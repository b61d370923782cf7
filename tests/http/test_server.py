"""Connections: their ends, their deadlines and their bounds, seen from a raw socket."""

import contextlib
import io
import json

import msgspec
import pytest
import trio
import trio.testing
from quart import request
from structlog.testing import capture_logs

from config.model import HttpSettings
from engram.http.asgi import HeaderLines
from engram.http.parser import Event, Parser
from engram.http.quart_app import QuartApp
from engram.http.sockets import Address
from engram.telemetry import logs
from tests.http.harness import SETTINGS, connect, get, make_app, post, serving


def settings(**changes: object) -> HttpSettings:
    return msgspec.structs.replace(SETTINGS, **changes)


async def body() -> bytes:
    data = await request.get_data()
    assert isinstance(data, bytes)
    return data


@pytest.fixture
def app() -> QuartApp:
    return routed(make_app())


def routed(app: QuartApp) -> QuartApp:
    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    @app.post("/echo")
    async def echo() -> bytes:
        return await body()

    @app.get("/slow")
    async def slow() -> dict[str, str]:
        app.config["entered"].set()
        await app.config["released"].wait()
        return {"slow": "done"}

    async def health() -> tuple[int, bytes, HeaderLines]:
        return 200, b'{"status":"ok"}', [(b"content-type", b"application/json")]

    app.fast("/health", health)
    app.config["entered"] = trio.Event()
    app.config["released"] = trio.Event()
    return app


class Log(io.StringIO):
    """Tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = trio.Event()

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Where the lines of requests go."""
    stream = Log()
    monkeypatch.setattr(logs._requests, "held_by", logs._Lossy(stream))
    return stream


async def test_the_line_of_a_request_is_written_soon_though_nothing_else_happens(app: QuartApp, log: Log) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.ask(get("/hello"))
        with trio.fail_after(5):
            await log.written.wait()
    assert json.loads(log.getvalue())["path"] == "/hello"


async def test_the_line_of_a_request_is_written_soon_while_another_holds_up_the_end(app: QuartApp, log: Log) -> None:
    async with serving(app, drain_s=60) as running, connect(running) as slow, connect(running) as client:
        await slow.send(get("/slow"))
        await app.config["entered"].wait()
        await client.ask(get("/hello"))
        running.stop_requested.set()
        with trio.fail_after(5):
            await log.written.wait()
        assert not running.stopped.is_set()


async def test_many_requests_share_one_connection(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        for index in range(20):
            assert (await client.ask(get("/hello"))).json() == {"hello": "world"}
            assert (await client.ask(post(b"x" * index), "POST")).body == b"x" * index
            assert (await client.ask(get("/health"))).json() == {"status": "ok"}


async def test_pipelined_requests_are_answered_in_order(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.send(get("/hello") + post(b"one") + get("/health") + post(b"two"))
        bodies = [(await client.read(method)).body for method in ("GET", "POST", "GET", "POST")]
        assert bodies == [b'{"hello":"world"}\n', b"one", b'{"status":"ok"}', b"two"]


@pytest.mark.parametrize("path", ["/hello", "/health", "/nothing"])
async def test_connection_close_closes_at_once(app: QuartApp, path: str) -> None:
    """hypercorn under quart-trio never closes: its last steps are cancelled with the request."""
    async with serving(app) as running, connect(running) as client:
        answer = await client.ask(get(path, "Connection: close"))
        assert answer.headers["connection"] == "close"
        assert await client.closed_within(2)


async def test_an_http_1_0_connection_closes_at_once(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.send(b"GET /hello HTTP/1.0\r\nHost: test\r\n\r\n")
        assert b"world" in await client.read_until(b"}")
        assert await client.closed_within(2)


@pytest.mark.parametrize("requests", [0, 1])
async def test_an_idle_connection_is_closed_in_time(requests: int) -> None:
    app = routed(make_app())
    async with serving(app, settings(idle_timeout_s=0.3)) as running, connect(running) as client:
        for _ in range(requests):
            await client.ask(get("/hello"))
        started = trio.current_time()
        assert await client.closed_within(2)
        assert trio.current_time() - started >= 0.2


async def test_a_busy_connection_is_not_idle() -> None:
    app = routed(make_app())
    async with serving(app, settings(idle_timeout_s=0.2)) as running, connect(running) as client:
        await client.send(get("/slow"))
        await app.config["entered"].wait()
        await trio.sleep(0.4)
        app.config["released"].set()
        assert (await client.read()).status == 200


async def test_headers_that_drip_do_not_hold_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    app = routed(make_app())
    async with serving(app, settings(idle_timeout_s=0.3)) as running, connect(running) as client:
        with trio.move_on_after(3) as dripping:
            for byte in get("/hello", "X-Long: " + "a" * 500):
                try:
                    await client.send(bytes([byte]))
                except trio.BrokenResourceError:
                    break
                await trio.sleep(0.02)
        assert not dripping.cancelled_caught


async def test_an_idle_connection_does_not_hold_up_the_shutdown(app: QuartApp) -> None:
    async with serving(app, drain_s=5) as running, connect(running) as idle, connect(running) as used:
        await used.ask(get("/hello"))
        await idle.ask(get("/health"))
        running.stop_requested.set()
        with trio.fail_after(2):
            await running.stopped.wait()


async def test_a_connection_that_was_opened_just_before_the_shutdown_is_answered(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as fresh:
        running.stop_requested.set()
        await trio.testing.wait_all_tasks_blocked()
        await fresh.send(get("/hello"))
        answer = await fresh.read()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        with trio.fail_after(3):
            await running.stopped.wait()


async def test_a_running_request_finishes_and_no_new_one_is_taken_while_draining(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as busy, connect(running) as idle:
        await idle.ask(get("/hello"))
        await busy.send(get("/slow"))
        await app.config["entered"].wait()
        running.stop_requested.set()
        assert await idle.closed_within(2)
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", running.port)
        await busy.send(get("/hello"))
        app.config["released"].set()
        answer = await busy.read()
        assert (answer.json(), answer.headers["connection"]) == ({"slow": "done"}, "close")
        assert await busy.closed_within(2)
        with trio.fail_after(3):
            await running.stopped.wait()


async def test_what_does_not_finish_within_the_drain_time_is_cut(app: QuartApp) -> None:
    async with serving(app, drain_s=0.2) as running, connect(running) as busy:
        await busy.send(get("/slow"))
        await app.config["entered"].wait()
        running.stop_requested.set()
        with trio.fail_after(3):
            await running.stopped.wait()
        assert await busy.closed_within(2)


async def test_a_connection_beyond_the_bound_is_told_so_while_all_others_have_requests_under_way(app: QuartApp) -> None:
    async with serving(app, settings(max_connections=2)) as running:
        async with connect(running) as first, connect(running) as second:
            for busy in (first, second):
                app.config["entered"] = trio.Event()
                await busy.send(get("/slow"))
                await app.config["entered"].wait()
            async with connect(running) as third:
                answer = await third.ask(get("/hello"))
                assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "busy", "1")
                assert await third.closed_within(2)
            app.config["released"].set()
            assert [(await busy.read()).status for busy in (first, second)] == [200, 200]
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with connect(running) as fourth:
            assert (await fourth.ask(get("/hello"))).status == 200


@pytest.mark.parametrize(("origins", "may_read"), [(("*",), True), (("https://app.example",), False), ((), False)])
async def test_a_page_may_read_that_there_was_no_room_where_every_page_may_call(
    origins: tuple[str, ...], may_read: bool
) -> None:
    app = routed(make_app(settings(cors_origins=origins)))
    async with serving(app, settings(max_connections=1)) as running, connect(running) as busy:
        await busy.send(get("/slow"))
        await app.config["entered"].wait()
        async with connect(running) as page:
            answer = await page.ask(get("/hello", "Origin: https://app.example"))
            assert answer.code == "busy"
            assert (answer.headers.get("access-control-allow-origin") == "*") is may_read
        app.config["released"].set()
        assert (await busy.read()).status == 200


async def test_under_pressure_the_connection_that_has_idled_longest_makes_room(app: QuartApp) -> None:
    async with (
        serving(app, settings(max_connections=3)) as running,
        connect(running) as older,
        connect(running) as used,
        connect(running) as busy,
    ):
        await used.ask(get("/hello"))
        await busy.send(get("/slow"))
        await app.config["entered"].wait()
        async with connect(running) as fresh:
            assert (await fresh.ask(get("/hello"))).status == 200
            assert await older.closed_within(2)
            assert (await used.ask(get("/hello"))).status == 200
            app.config["released"].set()
            assert (await busy.read()).status == 200


async def test_half_a_head_does_not_save_a_connection_under_pressure(app: QuartApp) -> None:
    async with serving(app, settings(max_connections=1)) as running, connect(running) as dripping:
        await dripping.send(b"GET /hello HTTP/1.1\r\nHost:")
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with connect(running) as fresh:
            assert (await fresh.ask(get("/hello"))).status == 200
        assert await dripping.closed_within(2)


async def test_a_request_that_is_just_arriving_is_not_lost_to_the_pressure(app: QuartApp) -> None:
    async with serving(app, settings(max_connections=2)) as running:
        for _ in range(20):
            async with connect(running) as first, connect(running) as second:
                await first.send(get("/hello"))
                async with connect(running) as third:
                    await third.send(get("/hello"))
                    assert (await first.read()).status == 200
                    assert (await third.read()).status == 200
                assert await second.closed_within(2)


async def test_a_client_that_leaves_does_not_stop_what_it_began(app: QuartApp) -> None:
    finished = trio.Event()

    @app.post("/work")
    async def work() -> str:
        await app.config["released"].wait()
        finished.set()
        return "done"

    async with serving(app) as running:
        async with connect(running) as client:
            await client.send(post(b"{}", "/work"))
            await trio.testing.wait_all_tasks_blocked(0.05)
        app.config["released"].set()
        with trio.fail_after(3):
            await finished.wait()


async def test_a_client_that_sends_its_end_first_still_gets_its_answer(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.send(post(b"half closed"))
        await client.stream.send_eof()
        assert (await client.read("POST")).body == b"half closed"


async def test_a_client_that_reads_nothing_cannot_hold_the_server(
    app: QuartApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.http.listener._SEND_S", 0.2)

    @app.get("/big")
    async def big() -> bytes:
        return bytes(30_000_000)

    async with serving(app) as running, connect(running) as client:
        await client.send(get("/big"))
        await trio.sleep(0.5)
        running.stop_requested.set()
        with trio.fail_after(3):
            await running.stopped.wait()


async def test_a_client_that_reads_nothing_does_not_outlast_the_drain_time(app: QuartApp) -> None:
    @app.get("/big")
    async def big() -> bytes:
        return bytes(30_000_000)

    async with serving(app, drain_s=0.3) as running, connect(running) as client:
        await client.send(get("/big"))
        await client.stream.receive_some(1)
        running.stop_requested.set()
        with trio.fail_after(2):
            await running.stopped.wait()


async def test_a_body_dripping_too_slowly_is_answered_408() -> None:
    app = routed(make_app(settings(body_timeout_s=0.2)))
    async with serving(app) as running, connect(running) as client:
        await client.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
        answer = await client.read("POST")
        assert (answer.status, answer.code) == (408, "body_timeout")
        assert answer.headers["connection"] == "close"
        assert await client.closed_within(2)


async def test_a_body_of_tiny_chunks_gives_other_tasks_their_turns(
    app: QuartApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = [0]
    following = Parser.next

    def counted(parser: Parser) -> Event:
        taken[-1] += 1
        return following(parser)

    class Turns(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            taken.append(0)

    monkeypatch.setattr(Parser, "next", counted)
    body = b"x" * 8_000
    head = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(app) as running, connect(running) as client:
        trio.lowlevel.add_instrument(turns := Turns())
        await client.send(head + b"1\r\nx\r\n" * len(body) + b"0\r\n\r\n")
        answer = await client.read("POST")
        trio.lowlevel.remove_instrument(turns)
    assert (answer.status, answer.body) == (200, body)
    assert sum(taken) > len(body)
    assert max(taken) <= 70


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_beyond_the_bound_is_answered_413_and_the_answer_is_not_lost(framing: str) -> None:
    app = routed(make_app(settings(max_body_bytes=10_000)))
    body = b"x" * 3_000_000
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [body[:60_000]] * 50) + b"0\r\n\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(app) as running, connect(running) as client:
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with contextlib.suppress(trio.BrokenResourceError):
                    await client.send(post(body) if framing == "length" else head + chunked)

            nursery.start_soon(send)
            answer = await client.read("POST")
            nursery.cancel_scope.cancel()
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert await client.closed_within(3)


async def test_bodies_beyond_what_is_held_at_once_are_answered_503_and_small_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engram.http.app._BODIES_BYTES", 0)
    app = routed(make_app(settings(max_body_bytes=200_000)))  # room for two bodies of one address
    half = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 190000\r\n\r\n" + b"x" * 189_999
    async with serving(app) as running, contextlib.AsyncExitStack() as stack:
        holding = []
        for _ in range(3):
            holding.append(await stack.enter_async_context(connect(running)))
            await holding[-1].send(half)
        async with connect(running) as client:
            await client.send(post(b"x" * 190_000))
            answer = await client.read("POST")
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "busy", "2")
        async with connect(running) as client:
            await client.send(post(b"small"))
            assert (await client.read("POST")).status == 200
        for client in holding:
            await client.send(b"x")
            assert (await client.read("POST")).status == 200
        await holding[0].send(post(b"x" * 190_000))
        assert (await holding[0].read("POST")).status == 200


async def test_a_body_that_is_too_long_is_not_asked_for(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        head = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        await client.send(head)
        received = await client.read_until(b"}")
        assert received.startswith(b"HTTP/1.1 413")
        assert b"100 Continue" not in received


async def test_a_body_that_fits_is_asked_for(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await client.send(b"hello")
        assert (await client.read_until(b"hello")).startswith(b"HTTP/1.1 200")


async def test_a_body_that_ends_early_is_no_request(app: QuartApp) -> None:
    called: list[bytes] = []

    @app.post("/count")
    async def count() -> str:
        called.append(await body())
        return "counted"

    async with serving(app) as running:
        async with connect(running) as client:
            await client.send(b"POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert called == []


async def test_an_answer_waits_for_the_whole_body(app: QuartApp) -> None:
    """Answering first hung kept-alive connections of browsers."""
    async with serving(app) as running, connect(running) as client:
        await client.send(b"POST /nothing HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf,")
        with pytest.raises(AssertionError):
            await client.read("POST", timeout_s=0.2)
    async with serving(app) as running, connect(running) as client:
        await client.send(b"POST /nothing HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf,")
        await client.send(b"whole")
        assert (await client.read("POST")).status == 404
        assert (await client.ask(get("/hello"))).status == 200


REFUSED = {
    "both lengths": (b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "two different lengths": (b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
    "chunked on 1.0": (b"POST /echo HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "unknown coding": (b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    "absolute form": (b"GET http://other/hello HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    "connect": (b"CONNECT other:443 HTTP/1.1\r\nHost: t\r\n\r\n", 405),
    "trace": (b"TRACE /hello HTTP/1.1\r\nHost: t\r\n\r\n", 405),
    "h2c upgrade": (
        b"GET /hello HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
        400,
    ),
    "websocket": (b"GET /hello HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "http/1.2": (b"GET /hello HTTP/1.2\r\nHost: t\r\n\r\n", 505),
    "no host": (b"GET /hello HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "host with a label that is too long": (b"GET /hello HTTP/1.1\r\nHost: " + b"x" * 64 + b"\r\n\r\n", 400),
    "host with odd characters": (b"GET /hello HTTP/1.1\r\nHost: a/b@c\r\n\r\n", 400),
    "empty host": (b"GET /hello HTTP/1.1\r\nHost: \r\n\r\n", 400),
    "two payments": (b"GET /hello HTTP/1.1\r\nHost: a\r\nX-Payment: a\r\nX-PAYMENT: b\r\n\r\n", 400),
    "two authorizations": (b"GET /hello HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", 400),
    "too many headers": (b"GET /hello HTTP/1.1\r\nHost: t\r\n" + b"X-A: b\r\n" * 101 + b"\r\n", 431),
    "headers too large": (b"GET /hello HTTP/1.1\r\nHost: t\r\nX-A: " + b"b" * 70_000 + b"\r\n\r\n", 431),
    "space before colon": (b"GET /hello HTTP/1.1\r\nHost : t\r\n\r\n", 400),
    "other expectation": (b"GET /hello HTTP/1.1\r\nHost: t\r\nExpect: magic\r\n\r\n", 417),
    "not http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_two_servers_could_read_differently_is_refused_and_cut(app: QuartApp, case: str) -> None:
    data, status = REFUSED[case]
    async with serving(app) as running, connect(running) as client:
        await client.send(data + get("/hello", "X-Smuggled: 1"))
        received = await client.read_until(b"}")
        assert received.startswith(b"HTTP/1.1 %d " % status)
        assert received.count(b"\r\n\r\n") == 1
        assert b'"code":' in received
        assert await client.closed_within(3)
        async with connect(running) as other:
            assert (await other.ask(get("/hello"))).status == 200


@pytest.mark.parametrize(
    "host", ["a", "a.example:9000", "127.0.0.1:80", "[::1]:9000", "a_b.example.", "xn--bcher-kva.example"]
)
async def test_hosts_of_every_form_are_served(app: QuartApp, host: str) -> None:
    async with serving(app) as running, connect(running) as client:
        assert (await client.ask(get("/hello").replace(b"Host: test", b"Host: " + host.encode()))).status == 200


async def test_refusals_are_counted_by_their_code(app: QuartApp) -> None:
    async with serving(app) as running:
        for data in (
            b"BAD\r\n\r\n",
            get("/hello", "Upgrade: h2c"),
            get("/hello", "Upgrade: h2c").replace(b"GET", b"HEAD"),
        ):
            async with connect(running) as client:
                await client.send(data)
                assert await client.closed_within(3)
    text = app.metrics.render().decode()
    assert 'engram_http_refused_total{code="bad_request",surface="test"} 1.0' in text
    assert 'engram_http_refused_total{code="no_upgrade",surface="test"} 2.0' in text


async def test_a_refusal_has_a_request_id_that_the_log_knows(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        with capture_logs() as events:
            await client.send(get("/hello", "Upgrade: h2c"))
            received = await client.read_until(b"}")
    body = json.loads(received.partition(b"\r\n\r\n")[2])
    (told,) = (event for event in events if event["event"] == "refused")
    assert body["request_id"] == told["request_id"]
    assert b"x-request-id: " + body["request_id"].encode() in received
    assert (told["code"], told["status"], told["client"], told["surface"]) == ("no_upgrade", 400, "127.0.0.1", "test")


async def test_headers_of_a_surfaces_own_scheme_are_taken_once(app: QuartApp) -> None:
    app.single_headers = (b"x-sig",)
    async with serving(app) as running, connect(running) as client:
        answer = await client.ask(get("/hello", "X-Sig: a", "x-sig: b"))
        assert (answer.status, answer.code) == (400, "duplicate_header")


async def test_an_application_that_breaks_takes_only_its_own_connection_with_it(app: QuartApp) -> None:
    @app.get("/broken")
    async def broken() -> tuple[str, int, dict[str, str]]:
        return "x", 200, {"Bad Header": "y"}

    async with serving(app) as running:
        async with connect(running) as client:
            await client.send(get("/broken"))
            assert await client.closed_within(2)
        async with connect(running) as client:
            assert (await client.ask(get("/hello"))).status == 200


async def test_a_whole_answer_leaves_in_one_write(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.send(get("/hello"))
        received = await client.stream.receive_some(65_536)
        assert received.startswith(b"HTTP/1.1 200")
        assert bytes(received).endswith(b'{"hello":"world"}\n')


async def test_head_has_the_length_and_no_body(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        for path in ("/hello", "/health"):
            answer = await client.ask(get(path).replace(b"GET", b"HEAD"), "HEAD")
            assert (answer.status, answer.body) == (200, b"")


async def test_a_hundred_clients_are_served_at_once(app: QuartApp) -> None:
    async with serving(app) as running:

        async def one(index: int) -> None:
            async with connect(running) as client:
                for _ in range(3):
                    assert (await client.ask(post(b"%d" % index), "POST")).body == b"%d" % index

        async with trio.open_nursery() as nursery:
            for index in range(100):
                nursery.start_soon(one, index)


async def test_a_port_in_use_cannot_be_served(app: QuartApp) -> None:
    async with serving(app) as running:
        with pytest.raises(OSError, match="in use"):
            await trio.open_tcp_listeners(running.port, host="127.0.0.1")


def test_addresses_name_their_url() -> None:
    assert Address("127.0.0.1", 80).url == "http://127.0.0.1:80"
    assert Address("::1", 80).url == "http://[::1]:80"
