"""The connection: one at a time, authenticated once each, given up in time, opened again; whatever the server does."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engram.http.asgi import Receive, Scope, Send
from engram.http.head import Bounds
from engram.http.server import Limits
from engram.worker.packets import Frame
from tests.http.servers import bare
from tests.sampling import NIGHTLY
from tests.shared import free_port
from tests.worker.harness import SIDES, Bench, Echo, Side, eventually, orchestrating, peer_orchestrator, working

pytestmark = pytest.mark.rules

OPEN = '0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
RESTARTS = 100 if NIGHTLY else 15


async def test_each_restart_of_the_server_has_one_connection_and_one_authenticate() -> None:
    port = free_port()
    async with working(f"http://127.0.0.1:{port}", ack_s=0.2) as bench:
        for _ in range(RESTARTS):
            async with orchestrating(port=port) as orchestrator:
                session = await orchestrator.connected()
                assert await session.call("job", {"type": "inference", "payload": 1}) == 1
                assert (orchestrator.connections, len(orchestrator.introductions)) == (1, 1)
        assert bench.service.link.status.connections == RESTARTS


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("restarts", [pytest.param(2), pytest.param(100, marks=pytest.mark.nightly)])
async def test_restarts_of_servers_of_others(side: Side, restarts: int) -> None:
    port = free_port()
    async with working(f"http://127.0.0.1:{port}", backoff_max_s=0.2) as bench:
        for _ in range(restarts):
            async with peer_orchestrator(side, port) as server:
                await server.next("authenticate")
                await server.do("job", data={"type": "inference", "payload": 1})
                await server.next("answer")
                assert (len(server.of("connected")), len(server.of("authenticate"))) == (1, 1)
        assert bench.service.link.status.connections == restarts


@pytest.mark.parametrize("side", SIDES)
async def test_a_server_that_is_stopped_is_noticed_within_its_own_deadline(side: Side) -> None:
    async with peer_orchestrator(side, 0, 1_000, 1_000) as server, working(server.url) as bench:
        await server.next("authenticate")
        server.process.send_signal(signal.SIGSTOP)
        began = trio.current_time()
        await eventually(lambda: bench.service.link.status.last_loss != "")
        took_s = trio.current_time() - began
        assert bench.service.link.status.last_loss == "the orchestrator was silent for 2 s"
        # A ping may have come a second before; the last one is for a busy machine.
        assert 0.9 <= took_s <= 1.0 + 1.0 + 1.0
        server.process.send_signal(signal.SIGCONT)
        await server.next("authenticate", 2)
        await server.do("job", data={"type": "inference", "payload": 1})
        assert (await server.next("answer"))["answer"] == 1


async def test_a_hotkey_that_is_refused_waits_longest() -> None:
    async with orchestrating() as orchestrator:
        orchestrator.refuses = "Not registered"
        async with working(orchestrator.url, auth_s=1.0, backoff_max_s=0.3) as bench:
            await eventually(lambda: bench.service.link.status.last_loss != "")
            assert bench.service.link.status.last_loss == "the orchestrator refused the hotkey: Not registered"
            orchestrator.refuses = ""
            await orchestrator.connected()
            await eventually(lambda: bench.service.link.status.phase == "serving")


async def test_an_orchestrator_that_must_answer_and_does_not_is_left() -> None:
    async with orchestrating() as orchestrator:
        orchestrator.answers_auth = False
        orchestrator.desk.post({"id": "a", "type": "inference", "payload": 1})
        async with working(orchestrator.url, auth_s=0.05) as bench:
            await eventually(lambda: "did not answer auth_success within 0.05 s" in bench.service.link.status.last_loss)
            assert orchestrator.desk.results == {}  # nothing was asked of it
            orchestrator.answers_auth = True
            assert await orchestrator.settled("a") == [1]


async def test_nothing_is_sent_before_the_orchestrator_has_answered_auth_success() -> None:
    echo = Echo()
    async with (
        orchestrating(ping_s=0.05) as orchestrator,
        working(orchestrator.url, {"inference": echo}, auth_s=20.0, reconcile_s=60.0) as bench,
    ):
        session = await orchestrator.connected()
        for name in ("ended while away", "ends before auth_success"):
            await orchestrator.post({"id": name, "type": "inference", "payload": {"hold": name}})
        await eventually(lambda: len(echo.runs) == 2)
        orchestrator.admits = trio.Event()
        await session.disconnect()
        echo.let_go("ended while away")
        await orchestrator.until(lambda: len(orchestrator.introductions) == 2)
        await eventually(lambda: bench.service.runner.unacknowledged == 1)
        echo.let_go("ends before auth_success")
        await eventually(lambda: bench.service.runner.unacknowledged == 2)
        with trio.fail_after(5):
            for _ in range(3):  # what the worker has sent by now came before its pong
                await orchestrator.opened[-1].pinged.wait()
        assert (orchestrator.early, orchestrator.desk.results) == ([], {})
        orchestrator.admits.set()
        await orchestrator.settled("ended while away", "ends before auth_success")
        assert (orchestrator.early, orchestrator.connections, len(echo.runs)) == ([], 2, 2)


async def test_a_result_that_the_orchestrator_does_not_take_is_replaced() -> None:
    class Large:
        repeatable = False

        async def run(self, job: Any) -> Any:
            return "x" * 1_100_000

    kinds = {"inference": Large()}
    async with orchestrating() as orchestrator, working(orchestrator.url, kinds, max_result_bytes=2_000_000) as bench:
        session = await orchestrator.connected()
        result = await session.call("job", {"type": "inference"})
        assert result["error"].startswith("Result has 1100")
        assert result["outcome"] == "unknown", "it was done"
        assert result["error"].endswith("the orchestrator takes 1000000")
        await orchestrator.post({"id": "a", "type": "inference", "payload": 1})
        assert (await orchestrator.settled("a"))[0]["error"].endswith("the orchestrator takes 1000000")
        assert bench.service.link.status.connections == 1


Act = Callable[[Receive, Send], Awaitable[None]]


@asynccontextmanager
async def hostile(act: Act) -> AsyncIterator[tuple[Bench, Echo, list[int]]]:
    """A worker at a server that does `act` with each connection."""
    echo, count = Echo(), [0]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        count[0] += 1
        await receive()
        await act(receive, send)

    async with (
        bare(app, Limits(bounds=Bounds(websocket=True))) as server,
        working(
            f"http://127.0.0.1:{server.port}", {"inference": echo}, connect_s=0.2, max_message_bytes=100_000
        ) as bench,
    ):
        yield bench, echo, count


def frames(*sent: Frame, session: bool = True) -> Act:
    """Open a session, send these frames, then wait until the worker leaves."""

    async def act(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        for frame in (OPEN, '40{"sid":"b"}', *sent) if session else sent:
            is_text = isinstance(frame, str)
            await send(
                {"type": "websocket.send", "text": frame if is_text else None, "bytes": None if is_text else frame}
            )
        while (await receive())["type"] != "websocket.disconnect":
            pass

    return act


async def refuse(receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close"})


async def storm(receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})


@pytest.mark.parametrize(
    ("act", "loss"),
    [
        pytest.param(frames("42[not json"), "broke the protocol: not the JSON", id="bad JSON"),
        pytest.param(frames("42" + "[" * 50_000), "broke the protocol: ", id="deep JSON"),
        pytest.param(frames(b"x"), "an attachment that belongs to no packet", id="stray attachment"),
        pytest.param(frames('451-["job"]', '42["job"]'), "where an attachment was due", id="attachment missing"),
        pytest.param(frames("4"), "broke the protocol", id="no type"),
        pytest.param(frames("41"), "ended the session", id="disconnect"),
        pytest.param(frames('44{"message":"full"}'), "refused the session: full", id="refused later"),
        pytest.param(frames('42["auth_failed",{"error":"no"}]'), "refused the hotkey: no", id="auth failed"),
        pytest.param(frames('42["auth_failed"]'), "refused the hotkey: None", id="auth failed without a reason"),
        pytest.param(frames(OPEN, '44"closed"', session=False), "refused the session: closed", id="middleware"),
        pytest.param(frames(session=False), "opened no session within 0.2 s", id="silence"),
        pytest.param(frames(OPEN, session=False), "opened no session within 0.2 s", id="no namespace"),
        pytest.param(
            frames(OPEN.replace("1000000", "1"), session=False), "takes 1 bytes; 32768 are needed", id="no room"
        ),
        pytest.param(frames("hello", session=False), "speaks no Socket.IO", id="another protocol"),
        pytest.param(frames("0{}", session=False), "speaks no Socket.IO", id="open without fields"),
        pytest.param(frames('42["job"]', session=False), "did not open a session", id="event first"),
        pytest.param(refuse, "the WebSocket was refused: 403", id="403"),
        pytest.param(storm, "closed by the server with code 1000", id="reconnect storm"),
    ],
)
async def test_a_hostile_orchestrator_ends_its_connection_and_nothing_else(act: Act, loss: str) -> None:
    async with hostile(act) as (bench, echo, count):
        await eventually(lambda: loss in bench.service.link.status.last_loss)
        await eventually(lambda: count[0] >= 2)  # it tries again
        assert (echo.runs, bench.ended.is_set()) == ([], False)


async def test_noise_that_breaks_nothing_is_ignored_and_counted() -> None:
    noise: list[Frame] = ["2", "6", "3", OPEN, '40{"sid":"c"}', '4312345["x"]', "430[]", '42["who"]', '42/x,["job"]']
    job = '4299["job",{"type":"inference","payload":1,"id":"a"}]'
    async with hostile(frames(*noise, *[job] * 200, '42["last"]')) as (bench, echo, count):
        await eventually(lambda: bench.service.link.status.ignored_events == 2)
        await eventually(lambda: bench.service.runner.in_flight == 0)
        assert (len(echo.runs), count[0], bench.service.link.status.connections) == (1, 1, 1)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(['42["job",{"id":"b","type":"inference","payload":"' + "x" * 200_000 + '"}]'], id="text"),
        pytest.param(['451-["job",{"_placeholder":true,"num":0}]', b"x" * 200_000], id="attachment"),
        pytest.param(['453-["job"]', b"x", b"x" * 200_000, b"x"], id="attachment between others"),
        pytest.param(['452-["job"]', b"x" * 60_000, b"x" * 60_000], id="attachments together"),
        pytest.param(['461-0[{"_placeholder":true,"num":0}]', b"x" * 200_000], id="acknowledgement"),
    ],
)
async def test_a_message_that_is_too_large_is_dropped_and_counted_and_the_next_one_is_read(sent: list[Frame]) -> None:
    job = '42["job",{"type":"inference","payload":1,"id":"a"}]'
    async with hostile(frames(*sent, job)) as (bench, echo, _):
        await eventually(lambda: bool(echo.runs))
        status = bench.service.link.status
        assert ([each.id for each in echo.runs], status.oversized_messages, status.connections) == (["a"], 1, 1)


async def test_an_orchestrator_is_told_that_its_job_has_too_large_attachments() -> None:
    async with (
        orchestrating() as orchestrator,
        working(orchestrator.url, max_message_bytes=100_000),
    ):
        session = await orchestrator.connected()
        told = await session.call("job", {"type": "inference", "payload": b"x" * 200_000})
        assert told == {"error": "Job has more than 100000 bytes"}


async def test_a_flood_of_jobs_is_bounded() -> None:
    sent = [f'42{number}["job",{{"type":"inference","payload":{{"hold":"x"}}}}]' for number in range(2_000)]
    async with hostile(frames(*sent, '42["last"]')) as (bench, echo, _):
        await eventually(lambda: bench.service.link.status.ignored_events == 1)
        await eventually(lambda: (len(echo.runs), bench.service.runner.in_flight) == (4, 20))


async def test_an_endless_ping_interval_is_cut_down() -> None:
    endless = OPEN.replace("25000", "1e15")
    async with hostile(frames(endless, '40{"sid":"b"}', session=False)) as (bench, _, _count):
        await eventually(lambda: bench.service.link.status.phase == "serving")
        session = bench.service.link._session
        assert session is not None
        assert session.connection.silent_s == 120.0


async def test_an_orchestrator_that_takes_nothing_is_given_up() -> None:
    async def act(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        for frame in (
            OPEN,
            '40{"sid":"b"}',
            *(f'42{n}["job",{{"type":"inference","payload":"{"x" * 90_000}"}}]' for n in range(150)),
        ):
            await send({"type": "websocket.send", "text": frame, "bytes": None})
        await trio.sleep_forever()

    echo = Echo()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await act(receive, send)

    async with (
        bare(app, Limits(bounds=Bounds(websocket=True))) as server,
        working(f"http://127.0.0.1:{server.port}", {"inference": echo}, send_s=0.1, waiting=1_000) as bench,
    ):
        await eventually(lambda: "took nothing for 0.1 s" in bench.service.link.status.last_loss, 10)


async def test_what_is_no_server_at_all_is_tried_again() -> None:
    async with working(f"http://127.0.0.1:{free_port()}") as bench:
        await eventually(lambda: bench.service.link.status.failures >= 3)
        assert "no connection to the orchestrator" in bench.service.link.status.last_loss
