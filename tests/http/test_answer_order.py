"""Whatever a client sends behind a request, that request's answer comes first; a refusal waits for its turn."""

import random
import re
from collections.abc import Sequence

import pytest
import trio

from engram.http.quart_app import QuartApp
from tests.http.harness import Raw, Running, connect, get, make_app, post, serving
from tests.http.test_server import routed, settings
from tests.sampling import NIGHTLY, SEED

GARBAGE = b"\x16\x03\x01 no request\r\n\r\n"
LAST = "Connection: close"


@pytest.fixture
def app() -> QuartApp:
    app = routed(make_app())

    @app.post("/later")
    async def later() -> bytes:
        app.config["entered"].set()
        await app.config["released"].wait()
        return b"answered"

    return app


async def everything(client: Raw) -> bytes:
    """What the server sends until it closes; fails where it does not close, or cuts by a reset."""
    received = bytearray()
    with trio.fail_after(5):
        while chunk := await client.stream.receive_some(65_536):
            received += chunk
    return bytes(received)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


BEHIND = {
    "a blank line": b"\r\n",
    "two blank lines": b"\r\n\r\n",
    "a line feed": b"\n",
    "garbage": GARBAGE,
    "a request": get("/hello"),
    "more than is read": b"x" * 300_000,
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("together", [True, False])
async def test_what_follows_the_last_request_is_neither_answered_nor_ahead_of_its_answer(
    app: QuartApp, behind: str, together: bool
) -> None:
    """The money of a paid request moved, and its client read 400."""
    async with serving(app) as running, connect(running) as client, trio.open_nursery() as nursery:
        request = post(b"{}", "/later", LAST)
        if together:
            nursery.start_soon(client.send, request + BEHIND[behind])
            await app.config["entered"].wait()
        else:
            await client.send(request)
            await app.config["entered"].wait()
            nursery.start_soon(client.send, BEHIND[behind])
        await trio.testing.wait_all_tasks_blocked(0.02)
        app.config["released"].set()
        received = await everything(client)
    assert statuses(received) == [200]
    assert received.endswith(b"\r\n\r\nanswered")


async def test_a_refusal_of_a_pipelined_request_waits_for_the_answers_before_it(app: QuartApp) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.send(post(b"{}", "/later") + get("/hello") + GARBAGE)
        await app.config["entered"].wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        app.config["released"].set()
        received = await everything(client)
    assert statuses(received) == [200, 200, 400]
    assert received.index(b"answered") < received.index(b"hello") < received.index(b"bad_request")


@pytest.mark.parametrize("lines", [1, 2, 50])
async def test_blank_lines_ahead_of_a_request_are_ignored(app: QuartApp, lines: int) -> None:
    """As old clients send one behind a body; RFC 9112, section 2.2."""
    blank = b"\r\n" * lines
    async with serving(app) as running, connect(running) as client:
        await client.send(blank + post(b"one") + blank)
        assert (await client.read("POST")).body == b"one"
        for byte in blank:
            await client.send(bytes([byte]))
        assert (await client.ask(get("/hello"))).status == 200
        assert (await client.ask(blank + get("/health", LAST) + blank)).status == 200
        assert await client.closed_within(3)


async def test_blank_lines_do_not_keep_an_idle_connection(app: QuartApp) -> None:
    async with serving(app, settings(idle_timeout_s=0.3)) as running, connect(running) as client:
        closed = trio.Event()

        async def drip() -> None:
            while not closed.is_set():
                try:
                    await client.send(b"\r\n")
                except trio.BrokenResourceError:
                    return
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert await client.closed_within(2)
            closed.set()


@pytest.mark.parametrize("ahead", [b"\n", b"\r", b" \r\n", b"\t", b"\0", b"\r\r\n"], ids=ascii)
async def test_other_space_ahead_of_a_request_is_refused(app: QuartApp, ahead: bytes) -> None:
    async with serving(app) as running, connect(running) as client:
        await client.send(ahead + get("/hello"))
        assert statuses(await everything(client)) == [400]


class Stream:
    """Requests as they would be pipelined, and what must be answered, in order."""

    def __init__(self, rng: random.Random) -> None:
        self.sent, self.expected = bytearray(), list[tuple[int, bytes]]()
        for number in range(rng.randint(1, 6)):
            if rng.random() < 0.4:
                self.sent += b"\r\n" * rng.randint(1, 3)
            mark = b"%d" % number
            close = (LAST,) if rng.random() < 0.15 else ()
            kind = rng.choice(["get", "post", "chunked", "missing", "refused", "garbage"])
            if kind == "get":
                self._add(get("/hello", *close), 200, b"world")
            elif kind == "post":
                self._add(post(b"body " + mark, "/echo", *close), 200, b"body " + mark)
            elif kind == "chunked":
                lines = ["POST /echo HTTP/1.1", "Host: t", "Transfer-Encoding: chunked", *close, "", ""]
                self._add("\r\n".join(lines).encode() + b"3\r\nabc\r\n0\r\n\r\n", 200, b"abc")
            elif kind == "missing":
                self._add(post(b"x" * rng.randint(0, 500), f"/nothing{number}", *close), 404, b'"code"')
            elif kind == "refused":
                self._add(get("/hello", "X-Payment: a", "X-Payment: b"), 400, b"duplicate_header")
                close = (LAST,)
            else:
                self._add(GARBAGE, 400, b"bad_request")
                close = (LAST,)
            if close:
                self.sent += rng.choice([b"", b"\r\n", GARBAGE, get("/hello"), post(b"never read")])
                return
        self._add(get("/hello", LAST), 200, b"world")

    def _add(self, request: bytes, status: int, part: bytes) -> None:
        self.sent += request
        self.expected.append((status, part))

    def pieces(self, rng: random.Random) -> Sequence[bytes]:
        cuts = sorted(rng.randrange(len(self.sent) + 1) for _ in range(rng.choice([0, 1, 3, 20])))
        return [bytes(self.sent[a:z]) for a, z in zip([0, *cuts], [*cuts, len(self.sent)], strict=True) if z > a]


def answers(received: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer, by their Content-Length; what is left over is an answer of status 0."""
    found = []
    while head := re.match(rb"HTTP/1\.1 (\d{3}) .*?\r\n\r\n", received, re.DOTALL):
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head[0])
        assert length is not None, head[0]
        end = head.end() + int(length[1])
        found.append((int(head[1]), received[head.end() : end]))
        received = received[end:]
    return found if not received else [*found, (0, received)]


async def converse(running: Running, pieces: Sequence[bytes], rng: random.Random) -> bytes:
    async with connect(running) as client, trio.open_nursery() as nursery:

        async def send() -> None:
            for piece in pieces:
                try:
                    await client.send(piece)
                except trio.BrokenResourceError:
                    return  # it had its last answer
                if rng.random() < 0.3:
                    await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(send)
        return await everything(client)


@pytest.mark.parametrize("block", range(200 if NIGHTLY else 4))
async def test_pipelined_requests_cut_anywhere_are_answered_in_order(app: QuartApp, block: int) -> None:
    rng = random.Random(f"{SEED} answer order {block}")
    async with serving(app) as running:
        for _ in range(50):
            stream = Stream(rng)
            pieces = stream.pieces(rng)
            found = answers(await converse(running, pieces, rng))
            wanted = [status for status, _ in stream.expected]
            assert [status for status, _ in found] == wanted, pieces
            for (_, body), (_, part) in zip(found, stream.expected, strict=True):
                assert part in body, pieces
