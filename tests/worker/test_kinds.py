"""Jobs by HTTP: what a backend gets, what each answer means, and plugins that cannot be loaded."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from engram.http.asgi import Receive, Scope, Send, respond
from engram.http.client import HttpClient
from engram.worker import kinds
from engram.worker.errors import JobFailed, OutcomeUnknown
from engram.worker.kinds import HttpKind, JobKind, backend_client, http_kinds, load_kinds
from engram.worker.model import WorkerJob
from tests.http.servers import bare
from tests.worker.harness import FAST

JOB = WorkerJob("über 1%", "inference", {"prompt": "a cat"})


class Backend:
    """Answers what it is told to; closes without an answer for the status 0."""

    def __init__(self, *answers: tuple[int, str, bytes]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((headers, message["body"]))
        status, media, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not status:
            raise RuntimeError("as asked")
        await respond(send, status, body, [(b"content-type", media.encode())])


@asynccontextmanager
async def calling(backend: Any, *, repeatable: bool = False, **changes: Any) -> AsyncIterator[HttpKind]:
    http = HttpClient()
    async with bare(backend) as server:
        url = f"http://127.0.0.1:{server.port}/inference"
        yield HttpKind(http, url, repeatable=repeatable, **{"most_s": 5.0, "max_bytes": 1_000} | changes)
    await http.aclose()


async def test_a_backend_gets_the_payload_and_the_id() -> None:
    backend = Backend((200, "application/json", b'{"image": "x"}'))
    async with calling(backend) as kind:
        assert await kind.run(JOB) == {"image": "x"}
        assert await kind.run(WorkerJob(None, "inference", {"raw": b"\x00"})) == {"image": "x"}
    (named, body), (nameless, raw) = backend.requests
    assert (named["idempotency-key"], named["content-type"]) == ("%C3%BCber%201%25", "application/json")
    assert msgspec.json.decode(body) == {"prompt": "a cat"}
    assert "idempotency-key" not in nameless
    assert msgspec.json.decode(raw) == {"raw": "AA=="}


@pytest.mark.parametrize(
    ("status", "media", "body", "result"),
    [
        (201, "application/problem+json; charset=utf-8", b"[1]", [1]),
        (200, "application/json", b"", None),
        (200, "text/plain", "ä".encode(), "ä"),
        (200, "image/png", b"\x89PNG", b"\x89PNG"),
        (404, "text/plain", b"no such model", JobFailed("Backend answered 404: no such model")),
        (302, "text/plain", b"", JobFailed("Backend answered 302: ")),
        (500, "text/plain", b"x" * 900, JobFailed("Backend answered 500: " + "x" * 500)),
        (502, "text/plain", b"bad gateway", OutcomeUnknown("Backend's answer was lost: a gateway answered 502 bad")),
        (503, "text/plain", b"busy", JobFailed("Backend answered 503: busy")),
        (504, "text/plain", b"", OutcomeUnknown("Backend's answer was lost: a gateway answered 504")),
        (400, "text/plain", b"x" * 1_001, JobFailed("Backend answered 400: Backend's answer has more than 1000")),
        (504, "text/plain", b"x" * 1_001, OutcomeUnknown("Backend's answer has more than 1000 bytes")),
        (200, "application/json", b"{", OutcomeUnknown("Backend's answer is not the JSON that it says")),
        (200, "application/json", b"[" * 900, OutcomeUnknown("Backend's answer is not the JSON that it says")),
        (200, "text/plain", b"x" * 1_001, OutcomeUnknown("Backend's answer has more than 1000 bytes")),
    ],
)
async def test_what_an_answer_means(status: int, media: str, body: bytes, result: object) -> None:
    async with calling(Backend((status, media, body))) as kind:
        if isinstance(result, JobFailed | OutcomeUnknown):
            with pytest.raises(type(result)) as failed:
                await kind.run(JOB)
            assert str(failed.value).startswith(str(result))
        else:
            assert await kind.run(JOB) == result


async def test_an_answer_in_an_encoding_that_cannot_be_read_leaves_the_outcome_unknown() -> None:
    async def encoded(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await respond(send, 200, b"7", [(b"content-type", b"application/json"), (b"content-encoding", b"br")])

    async with calling(encoded) as kind:
        with pytest.raises(OutcomeUnknown, match="cannot be read"):
            await kind.run(JOB)


async def test_a_repeatable_backend_behind_a_gateway_that_lost_its_answer_is_asked_again() -> None:
    backend = Backend((502, "text/plain", b""), (200, "application/json", b"7"))
    async with calling(backend, repeatable=True) as kind:
        assert await kind.run(JOB) == 7
    assert len(backend.requests) == 2


class Hanging:
    """Takes a job, and closes the connection without an answer; later answers."""

    def __init__(self, losses: int) -> None:
        self.losses, self.taken = losses, 0

    async def serve(self, stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        self.taken += 1
        if self.taken > self.losses:
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n7")
        await stream.aclose()


@pytest.mark.parametrize(
    ("repeatable", "job", "taken"),
    [(False, JOB, 1), (True, WorkerJob(None, "inference", 1), 1), (True, JOB, 3)],
)
async def test_a_lost_answer_is_asked_for_again_only_where_that_is_safe(
    repeatable: bool, job: WorkerJob, taken: int
) -> None:
    hanging, http = Hanging(2), HttpClient()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, hanging.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        kind = HttpKind(http, f"http://127.0.0.1:{port}/", repeatable=repeatable, most_s=5.0, max_bytes=100)
        if taken == 1:
            with pytest.raises(OutcomeUnknown, match="answer was lost"):
                await kind.run(job)
        else:
            assert await kind.run(job) == 7
        nursery.cancel_scope.cancel()
    assert hanging.taken == taken
    await http.aclose()


async def test_a_backend_that_is_not_there_is_tried_again_and_then_the_job_failed(autojump_clock: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    kind = HttpKind(HttpClient(), f"http://127.0.0.1:{port}/", repeatable=False, most_s=5.0, max_bytes=100)
    began = trio.current_time()
    with pytest.raises(JobFailed, match="Backend not reached"):
        await kind.run(JOB)
    assert trio.current_time() - began == pytest.approx(9.2)


async def test_each_job_that_may_run_has_a_connection_to_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_CONNECT_S", 0.5)
    taken, all_taken, results = 0, trio.Event(), list[Any]()

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal taken
        await stream.receive_some(65_536)
        taken += 1
        if taken == 130:
            all_taken.set()
        await all_taken.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n7")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
        settings = msgspec.structs.replace(FAST, inference_url=url, concurrency=130)
        http = backend_client(settings)
        kind = http_kinds(http, settings)["inference"]

        async def run(number: int) -> None:
            results.append(await kind.run(WorkerJob(str(number), "inference", 1)))

        with trio.fail_after(30):
            async with trio.open_nursery() as jobs:
                for number in range(130):
                    jobs.start_soon(run, number)
        nursery.cancel_scope.cancel()
    await http.aclose()
    assert results == [7] * 130


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("embedding", "is not NAME=module:attribute"),
        ("=a:b", "is not NAME=module:attribute"),
        ("a=b:", "is not NAME=module:attribute"),
        ("a=no_such_module_here:Kind", "cannot be loaded"),
        ("a=engram.worker.kinds:Nothing", "cannot be loaded"),
        ("a=engram.worker.kinds:HttpKind", "cannot be loaded"),
        ("a=builtins:dict", "makes a dict, which has no run or repeatable"),
    ],
)
def test_a_kind_that_cannot_be_loaded_is_named(entry: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        load_kinds([entry])


def test_kinds_are_loaded_by_name() -> None:
    loaded = load_kinds(["echo=tests.worker.harness:Echo"])
    assert isinstance(loaded["echo"], JobKind)
    settings = msgspec.structs.replace(FAST, training_url="http://127.0.0.1:1/train", repeatable=("training",))
    made = http_kinds(HttpClient(), settings)
    assert {name: kind.repeatable for name, kind in made.items()} == {"training": True}
