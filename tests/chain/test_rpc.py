from collections.abc import AsyncIterator
from random import Random

import pytest
import trio

from engram.chain.errors import AnswerMalformed, CallRefused, EndpointBusy, EndpointUnreachable
from engram.chain.read.node import RpcCall
from engram.chain.read.rpc import JsonRpcEndpoint
from engram.http.client import HttpClient
from tests.fakes.chain import ChainDouble, ChainServer, Fault, Shape
from tests.fakes.responder import Answer
from tests.sampling import SEED

HEAD = RpcCall("chain_getFinalizedHead")
NAME = RpcCall("system_chain")


@pytest.fixture
async def server(nursery: trio.Nursery) -> ChainServer:
    server = ChainServer(ChainDouble())
    await nursery.start(server.run)
    return server


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


@pytest.fixture
async def node(server: ChainServer, http: HttpClient) -> JsonRpcEndpoint:
    return JsonRpcEndpoint(http, server.url, timeout_s=2.0)


def answering(status: int, content: bytes = b"", **headers: str) -> Fault:
    async def fault(body: bytes) -> Answer:
        return status, {name.replace("_", "-"): value for name, value in headers.items()}, content

    return fault


async def test_a_batch_is_answered_in_the_order_of_the_calls(server: ChainServer, node: JsonRpcEndpoint) -> None:
    server.shape = lambda replies: list(reversed(replies))
    assert await node.ask([NAME, HEAD]) == ["bittensor", server.double.hash(1100)]
    assert await node.ask([]) == []


async def test_a_single_call_is_sent_without_a_batch(server: ChainServer, node: JsonRpcEndpoint) -> None:
    assert await node.ask([NAME]) == ["bittensor"]


async def test_a_refused_call_stands_in_its_place_and_hurts_no_other(node: JsonRpcEndpoint) -> None:
    refused, name = await node.ask([RpcCall("no_such_method"), NAME])
    assert isinstance(refused, CallRefused)
    assert (refused.code, refused.message, name) == (-32601, "Method not found", "bittensor")


async def test_an_endpoints_words_are_cut_short(server: ChainServer, node: JsonRpcEndpoint) -> None:
    server.double.refuse["system_chain"] = CallRefused(1, "x" * 100_000)
    (refused,) = await node.ask([NAME])
    assert isinstance(refused, CallRefused)
    assert len(str(refused)) < 400


async def test_a_server_without_batches_is_asked_one_by_one(server: ChainServer, node: JsonRpcEndpoint) -> None:
    server.batches = False
    for _ in range(2):
        assert await node.ask([NAME, HEAD]) == ["bittensor", server.double.hash(1100)]
    assert server.double.asked == ["system_chain", "chain_getFinalizedHead"] * 2


@pytest.mark.parametrize(
    "shape",
    [
        lambda replies: replies[:1],
        lambda replies: [replies[0], replies[0]],
        lambda replies: [replies[0], {**replies[1], "id": 999}],
        lambda replies: [replies[0], {**replies[1], "id": "2"}],
        lambda replies: [*replies, {"id": 77, "result": 1}],
        lambda replies: {"jsonrpc": "2.0", "id": None, "error": {"code": -32603, "message": "Internal error"}},
        lambda replies: {"jsonrpc": "2.0", "id": 1, "result": "only one"},
        lambda replies: "hello",
        lambda replies: [1, 2],
        lambda replies: [],
    ],
)
async def test_answers_to_other_questions_are_refused(server: ChainServer, node: JsonRpcEndpoint, shape: Shape) -> None:
    server.shape = shape
    with pytest.raises(AnswerMalformed):
        await node.ask([NAME, HEAD])


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b'{"id":1', b"null", b'{"id":1,"result":"\xff"}']
)
async def test_garbage_is_refused(server: ChainServer, node: JsonRpcEndpoint, content: bytes) -> None:
    server.fault = answering(200, content)
    with pytest.raises(AnswerMalformed):
        await node.ask([NAME])


@pytest.mark.parametrize(
    ("status", "headers", "retry_after_s"),
    [
        (429, {"retry_after": "37"}, 37.0),
        (429, {}, None),
        (403, {}, None),
        (503, {"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        (503, {"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:27:00 GMT"}, 60.0),
        (503, {"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:29:00 GMT"}, 0.0),
        (503, {"retry_after": "in a while", "date": "Wed, 21 Oct 2026 07:29:00 GMT"}, None),
        (429, {"retry_after": "-5"}, None),
    ],
)
async def test_a_refusal_for_load_keeps_what_the_endpoint_asked_for(
    server: ChainServer, node: JsonRpcEndpoint, status: int, headers: dict[str, str], retry_after_s: float | None
) -> None:
    server.fault = answering(status, b"", **headers)
    with pytest.raises(EndpointBusy) as busy:
        await node.ask([NAME])
    assert busy.value.retry_after_s == retry_after_s


@pytest.mark.parametrize("code", [-32004, -32005])
async def test_the_quota_codes_mean_busy_in_a_call_and_for_a_whole_batch(
    server: ChainServer, node: JsonRpcEndpoint, code: int
) -> None:
    server.double.refuse["system_chain"] = CallRefused(code, "quota exceeded")
    with pytest.raises(EndpointBusy, match="quota exceeded"):
        await node.ask([NAME])
    with pytest.raises(EndpointBusy):
        await node.ask([HEAD, NAME])
    server.shape = lambda replies: {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": "quota"}}
    with pytest.raises(EndpointBusy):
        await node.ask([HEAD, NAME])
    with pytest.raises(EndpointBusy):
        await node.ask([HEAD])


@pytest.mark.parametrize("status", [301, 404, 500, 502])
async def test_any_other_status_is_no_answer(server: ChainServer, node: JsonRpcEndpoint, status: int) -> None:
    server.fault = answering(status, location="http://127.0.0.1:1/")
    with pytest.raises(EndpointUnreachable, match=str(status)):
        await node.ask([NAME])


async def test_a_late_answer_is_not_waited_for(server: ChainServer, http: HttpClient) -> None:
    server.double.delay_s = 60.0
    with trio.fail_after(5), pytest.raises(EndpointUnreachable):
        await JsonRpcEndpoint(http, server.url, timeout_s=0.2).ask([NAME])


async def test_a_connection_cut_before_the_answer_is_no_answer(server: ChainServer, node: JsonRpcEndpoint) -> None:
    async def cut(body: bytes) -> None:
        return None

    server.fault = cut
    with pytest.raises(EndpointUnreachable):
        await node.ask([NAME])


async def test_nobody_listening_is_unreachable(http: HttpClient) -> None:
    with trio.socket.socket() as bound:
        await bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(EndpointUnreachable) as told:
            await JsonRpcEndpoint(http, url, timeout_s=2.0).ask([NAME])
        assert not told.value.may_have_arrived


async def test_an_oversized_answer_is_refused(
    server: ChainServer, node: JsonRpcEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.chain.read.rpc.MAX_ANSWER_BYTES", 1_000)
    server.double.chain_name = "x" * 2_000
    with pytest.raises(AnswerMalformed, match="larger than 1000 bytes"):
        await node.ask([NAME])


async def test_truncated_json_of_any_length_is_refused(server: ChainServer, node: JsonRpcEndpoint) -> None:
    whole = b'{"jsonrpc":"2.0","id":1,"result":{"a":[1,2,{"b":"c"}]}}'
    for length in Random(SEED).sample(range(len(whole)), 12):
        server.fault = answering(200, whole[:length])
        with pytest.raises(AnswerMalformed):
            await node.ask([NAME])


def test_the_name_of_an_endpoint_holds_no_credentials() -> None:
    node = JsonRpcEndpoint(HttpClient(), "https://user:secret@node.example:8443/v1/key-123?token=abc", 1.0)
    assert node.name == "https://node.example:8443"
    assert "secret" not in repr(node)
