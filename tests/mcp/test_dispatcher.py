"""What a server answers, on both wires."""

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from engram.mcp.dispatcher import CALL_S, CALLS_AT_ONCE, MAX_ANSWER_BYTES
from engram.mcp.model import Caller
from tests.mcp.toys import NEW, OLD, Toys, call, request

READER = Caller(scopes=frozenset({"read"}))


@pytest.fixture
def toys() -> Toys:
    return Toys()


async def test_the_handshake_agrees_on_a_version(toys: Toys) -> None:
    for asked, agreed in ((OLD, OLD), ("2025-03-26", "2025-03-26"), ("1999-01-01", OLD), (NEW, OLD)):
        _, answer = await toys.ask(request("initialize", {"protocolVersion": asked, "capabilities": {}}))
        assert answer["result"]["protocolVersion"] == agreed
        assert answer["result"]["serverInfo"]["name"] == "toys"
        assert set(answer["result"]["capabilities"]) == {"tools", "resources"}
    assert (await toys.ask(request("ping")))[1]["result"] == {}


async def test_the_stateless_wire_needs_no_handshake(toys: Toys) -> None:
    _, answer = await toys.ask(request("server/discover", new=True))
    assert answer["result"]["supportedVersions"][-1] == NEW
    _, answer = await toys.ask(request("tools/list", new=True))
    assert answer["result"]["resultType"] == "complete"
    assert answer["result"]["ttlMs"] > 0
    assert answer["result"]["cacheScope"] == "private"
    assert answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "toys"


async def test_fields_of_the_stateless_wire_stay_out_of_the_handshake_wire(toys: Toys) -> None:
    _, answer = await toys.ask(request("tools/list"))
    assert set(answer["result"]) == {"tools"}


@pytest.mark.parametrize("new", [False, True])
async def test_a_tool_is_listed_with_its_schemas_and_called(toys: Toys, new: bool) -> None:
    _, listed = await toys.ask(request("tools/list", new=new))
    echo = listed["result"]["tools"][0]
    assert echo["inputSchema"]["type"] == echo["outputSchema"]["type"] == "object"
    assert echo["inputSchema"]["additionalProperties"] is False
    assert echo["inputSchema"]["required"] == ["text"]
    status, answer = await toys.ask(call("echo", {"text": "hi", "times": 2}, new=new))
    assert (status, answer["id"]) == (200, 7)
    assert answer["result"]["structuredContent"] == {"text": "hihi", "key": None}
    assert msgspec.json.decode(answer["result"]["content"][0]["text"]) == {"text": "hihi", "key": None}
    assert toys.measured[-1] == ("tools/call", "ok")


@pytest.mark.parametrize("arguments", [{}, {"text": 7}, {"text": "a", "more": 1}, {"text": "a", "times": 0}])
async def test_wrong_arguments_are_for_the_agent_to_read(toys: Toys, arguments: dict[str, Any]) -> None:
    _, answer = await toys.ask(request("tools/call", {"name": "echo", "arguments": arguments}))
    assert answer["result"]["isError"] is True
    assert answer["result"]["content"][0]["text"]


async def test_a_tool_s_failure_is_a_result_and_a_fault_is_not_shown(toys: Toys) -> None:
    _, answer = await toys.ask(call("fail"))
    assert answer["result"]["isError"] is True
    assert answer["result"]["content"][0]["text"] == "hi cannot be done; try something else"
    _, answer = await toys.ask(call("break"))
    assert answer["error"]["code"] == -32603
    assert "secret" not in str(answer)
    assert toys.measured == [("tools/call", "failed"), ("tools/call", "refused")]


@pytest.mark.parametrize(
    ("line", "code", "old", "new"),
    [
        (("nothing",), -32601, 200, 404),
        (("prompts/list",), -32601, 200, 404),
        (("tools/call", {"name": "nothing"}), -32602, 200, 400),
        (("tools/call", {"name": 7}), -32602, 200, 400),
        (("tools/call", {"name": "echo", "arguments": []}), -32602, 200, 400),
        (("tools/list", {"cursor": "x"}), -32602, 200, 400),
        (("resources/read", {}), -32602, 200, 400),
    ],
)
async def test_errors_have_the_specification_s_codes(
    toys: Toys, line: tuple[Any, ...], code: int, old: int, new: int
) -> None:
    status, answer = await toys.ask(request(*line))
    assert (status, answer["error"]["code"], answer["id"]) == (old, code, 7)
    status, answer = await toys.ask(request(*line, new=True))
    assert (status, answer["error"]["code"], answer["id"]) == (new, code, 7)


async def test_an_unknown_resource_has_the_code_of_its_wire(toys: Toys) -> None:
    unknown = {"uri": "no://where"}
    status, answer = await toys.ask(request("resources/read", unknown))
    assert (status, answer["error"]["code"], answer["error"]["data"]) == (200, -32002, unknown)
    status, answer = await toys.ask(request("resources/read", unknown, new=True))
    assert (status, answer["error"]["code"], answer["error"]["data"]) == (400, -32602, unknown)


async def test_methods_of_one_wire_are_none_of_the_other(toys: Toys) -> None:
    for line in (request("ping", new=True), request("server/discover", {"_meta": {}})):
        assert "error" in (await toys.ask(line))[1]


async def test_resources_are_listed_and_read(toys: Toys) -> None:
    _, answer = await toys.ask(request("resources/list"))
    assert [each["uri"] for each in answer["result"]["resources"]] == ["toy://one"]
    _, answer = await toys.ask(request("resources/templates/list"))
    assert [each["uriTemplate"] for each in answer["result"]["resourceTemplates"]] == ["toy://{name}"]
    _, answer = await toys.ask(request("resources/read", {"uri": "toy://one"}, new=True))
    assert msgspec.json.decode(answer["result"]["contents"][0]["text"]) == {"at": "toy://one"}
    _, answer = await toys.ask(request("resources/read", {"uri": "no://1"}))
    assert answer["error"]["data"] == {"uri": "no://1"}


async def test_notifications_and_responses_are_not_answered(toys: Toys) -> None:
    for line in (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', b'{"jsonrpc":"2.0","id":1,"result":{}}'):
        assert await toys.ask(line) == (202, None)
    headers = [("mcp-protocol-version", NEW)]
    assert (await toys.ask(b'{"jsonrpc":"2.0","id":1,"result":{}}', headers=headers))[0] == 400
    foreign = [("mcp-protocol-version", "2031-01-01")]
    assert (await toys.ask(b'{"jsonrpc":"2.0","method":"notifications/x"}', headers=foreign))[0] == 400


async def test_a_version_header_that_is_not_known_is_refused(toys: Toys) -> None:
    status, answer = await toys.ask(request("tools/list"), headers=[("mcp-protocol-version", "2031-01-01")])
    assert (status, answer["error"]["code"]) == (400, -32022)
    assert answer["error"]["data"]["supported"][-1] == NEW


async def test_a_caller_sees_and_calls_what_its_scope_allows(toys: Toys) -> None:
    _, answer = await toys.ask(request("tools/list"), READER)
    assert "write" not in [tool["name"] for tool in answer["result"]["tools"]]
    for new in (False, True):
        status, answer = await toys.ask(call("write", new=new), READER)
        assert (status, answer["error"]["code"]) == (403, -32001)
    nobody = Caller(scopes=frozenset())
    assert (await toys.ask(request("resources/read", {"uri": "toy://1"}), nobody))[0] == 403


async def test_a_large_answer_is_refused_and_not_sent(toys: Toys) -> None:
    _, answer = await toys.ask(call("echo", {"text": "x", "times": MAX_ANSWER_BYTES}))
    assert answer["error"]["code"] == -32603
    assert "ask for less" in answer["error"]["message"]
    assert toys.measured == [("tools/call", "failed")]


async def test_a_call_ends_in_time(toys: Toys, autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    _, answer = await toys.ask(call("sleep"))
    assert answer["error"]["code"] == -32603
    assert trio.current_time() - began == pytest.approx(CALL_S)


async def test_more_calls_than_may_run_are_refused_at_once(toys: Toys, autojump_clock: trio.testing.MockClock) -> None:
    statuses: list[int] = []

    async def one() -> None:
        statuses.append((await toys.ask(call("sleep")))[0])

    async with trio.open_nursery() as nursery:
        for _ in range(CALLS_AT_ONCE + 10):
            nursery.start_soon(one)
    assert statuses.count(503) == 10
