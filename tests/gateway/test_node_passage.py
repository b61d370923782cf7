"""Requests to a session's node through the gateway: whose they are, which are passed on, and how answers come back."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from engram.gateway.node_passage import MOST_WHOLE_BYTES, STREAMS_PER_HOTKEY, NodeStream
from engram.hotkeys import answers
from engram.http.asgi import Message
from engram.http.errors import Interrupted
from engram.sessions import SessionEvent
from engram.sessions import records as session_records
from tests.gateway.surface import GATEWAY, STRANGER, Gateway, running_gateway


class Node:
    """A node on a loopback socket that answers as the test says, and keeps what it received."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        self.holds: trio.Event | None = None
        """Keeps connections open after the answer, until it is set."""
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = bytearray()
            while b"\r\n\r\n" not in head:
                if not (part := await stream.receive_some()):
                    return
                head += part
            length = 0
            for line in bytes(head).split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            while len(head) < bytes(head).index(b"\r\n\r\n") + 4 + length:
                head += await stream.receive_some()
            self.received.append(bytes(head))
            await stream.send_all(self.answer)
            if self.holds is not None:
                await self.holds.wait()


@asynccontextmanager
async def passing() -> AsyncIterator[tuple[Gateway, Node, str]]:
    """A gateway, a node, and the path of an active session on it."""
    node = Node()
    async with running_gateway() as gateway, trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, node.serve, [listener])
        node.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        session_id = (await gateway.buy())["session_id"]
        await gateway.ledger.write(
            lambda connection: session_records.set_node(connection, session_id, "token", node.url, GATEWAY.public_key)
        )
        await gateway.happen(session_id, SessionEvent.NODE_READY)
        yield gateway, node, f"/sessions/{session_id}/node"
        nursery.cancel_scope.cancel()


async def test_the_body_reaches_the_node_as_it_was_signed_and_the_answer_is_vouched_for() -> None:
    async with passing() as (gateway, node, path):
        body = b'{"text":"frost","namespace":"phone","hotkey":"5F","nonce":1,"signature":"0x00"}'
        headers = gateway.auth("POST", f"{path}/IngestSynapse", body, version=2)
        answer = await gateway.client.post(f"{gateway.url}{path}/IngestSynapse", content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {})
        [request] = node.received
        assert request.startswith(b"POST /IngestSynapse HTTP/1.1\r\n")
        assert request.endswith(b"\r\n\r\n" + body)
        assert b"x-hotkey" not in request.lower()
        answers.verify_answer(answer.headers, 200, headers["X-Timestamp"], answer.content, gateway=GATEWAY.public_key)


async def test_a_node_is_reached_by_its_sessions_owner_alone() -> None:
    async with passing() as (gateway, node, path):
        assert (await gateway.ask("POST", f"{path}/list", {}, keypair=STRANGER)).status_code == 403
        assert (await gateway.client.post(f"{gateway.url}{path}/list", json={})).status_code == 401
        assert (await gateway.ask("POST", "/sessions/none/node/list", {})).status_code == 404
        assert node.received == []


@pytest.mark.parametrize(
    ("method", "endpoint"),
    [("POST", "certificate"), ("POST", "namespace"), ("GET", "export"), ("GET", "metrics"), ("DELETE", "list")],
)
async def test_what_is_not_the_owners_business_is_not_passed_on(method: str, endpoint: str) -> None:
    async with passing() as (gateway, node, path):
        refused = await gateway.ask(method, f"{path}/{endpoint}")
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
        assert node.received == []


async def test_paths_and_queries_arrive_as_they_were_sent() -> None:
    async with passing() as (gateway, node, path):
        asked = f"{path}/retrieve/v1::ab%20c?namespace=phone&namespace_sig=0x1"
        headers = gateway.auth("GET", asked.partition("?")[0])
        answer = await gateway.client.get(gateway.url + asked, headers=headers)
        assert answer.status_code == 200
        assert node.received[0].startswith(b"GET /retrieve/v1::ab%20c?namespace=phone&namespace_sig=0x1 HTTP/1.1\r\n")


async def test_elsewhere_fields_of_authority_are_refused_as_ever() -> None:
    async with passing() as (gateway, _, path):
        refused = await gateway.ask("POST", path.removesuffix("/node") + "/extend", {"namespace": "phone"})
        assert (refused.status_code, refused.json()["code"]) == (400, "misplaced_field")


async def test_a_nodes_refusal_comes_back_as_it_is() -> None:
    async with passing() as (gateway, node, path):
        said = json.dumps({"error": "too long", "code": "invalid"}).encode()
        node.answer = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            len(said),
            said,
        )
        answer = await gateway.ask("POST", f"{path}/list", {})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


async def test_a_long_answer_is_passed_on_as_it_comes() -> None:
    async with passing() as (gateway, node, path):
        content = b"x" * (MOST_WHOLE_BYTES + 1)
        node.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n" + content
        answer = await gateway.ask("POST", f"{path}/export-stream", {})
        assert answer.content == content
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["cache-control"] == "no-store"


class Endless:
    """A node's answer that goes on until its reader stops."""

    def __aiter__(self) -> "Endless":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"x"


async def never() -> Message:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


async def gone() -> Message:
    return {"type": "http.disconnect"}


@pytest.mark.parametrize("end", ["the client leaves", "the server drains"])
async def test_a_long_answer_ends_when_nobody_is_there_to_take_or_send_it(end: str) -> None:
    draining = trio.Event()
    closed: list[bool] = []
    if end == "the server drains":
        draining.set()
    held = AsyncExitStack()
    held.callback(closed.append, True)
    stream = NodeStream(Endless(), "application/x-ndjson", held)  # type: ignore[arg-type]

    async def send(message: object) -> None:
        await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        if end == "the server drains":
            with pytest.raises(Interrupted):  # a cut, so that what was sent does not look whole
                await stream.run(never, send, draining)
        else:
            await stream.run(gone, send, draining)
    assert closed == [True]


async def test_a_hotkey_has_no_more_than_its_share_of_long_answers_open() -> None:
    async with passing() as (gateway, node, path):
        node.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n{}\n"
        node.holds = trio.Event()
        async with AsyncExitStack() as opened:
            asked = f"{path}/export-stream"
            for _ in range(STREAMS_PER_HOTKEY):
                headers = gateway.auth("POST", asked, b"{}")
                answer = await opened.enter_async_context(
                    gateway.client.stream("POST", gateway.url + asked, content=b"{}", headers=headers)
                )
                assert answer.status_code == 200
            refused = await gateway.ask("POST", asked, {})
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
            node.holds.set()
        with trio.fail_after(5):
            while (await gateway.ask("POST", asked, {})).status_code != 200:
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_node_that_does_not_answer_is_named_and_nothing_is_called_failed() -> None:
    async with passing() as (gateway, node, path):
        node.answer = b""
        cut = await gateway.ask("POST", f"{path}/IngestSynapse", {})
        assert (cut.status_code, cut.json()["code"]) == (504, "outcome_unknown")
        node.answer = b"nonsense\r\n\r\n"
        assert (await gateway.ask("POST", f"{path}/list", {})).json()["code"] == "outcome_unknown"


async def test_a_node_that_is_gone_is_not_asked() -> None:
    async with passing() as (gateway, node, path):
        await gateway.ask("DELETE", path.removesuffix("/node"))
        refused = await gateway.ask("POST", f"{path}/list", {})
        assert (refused.status_code, refused.json()["code"]) == (409, "not_running")
        assert node.received == []
