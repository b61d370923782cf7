"""The official clients against our servers: Python's SDK and TypeScript's, both wires, and the inspector."""

import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from engram.hotkeys import wallet
from engram.mcp.access import Policy
from tests.mcp.official_sides import (
    MODULES,
    answered,
    needs_node_sdk,
    needs_python_sdk,
    node,
    node_client,
    python_client,
)
from tests.miner.nodes import CONTROLLER, NodeProcess
from tests.miner.nodes import node as running_node
from tests.xeris.test_agents import READ, Receiver, receiver
from tests.xeris.test_judging import ONE, scores

pytestmark = [pytest.mark.heavy, pytest.mark.external]

ENGRAM = str(Path(sys.executable).with_name("engram"))
MODES = ["legacy", "auto", "2026-07-28"]
AT_ONCE = 25


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Receiver]:
    """A receiver that takes tokens of one key alone."""
    policy = Policy(loopback=frozenset(), signed=READ, permitted=lambda key: key == ONE.public_key)
    async with receiver(tmp_path, policy) as made:
        await made.permit(1000, ONE)
        await made.post(scores())
        yield made


def url(bench: Receiver) -> str:
    return f"http://127.0.0.1:{bench.running.port}/mcp"


@needs_python_sdk
@pytest.mark.parametrize("mode", MODES)
async def test_the_python_sdk_reads_the_receiver_with_a_token(bench: Receiver, mode: str) -> None:
    steps: list[list[Any]] = [
        ["about"],
        ["list_tools"],
        ["call_tool", "latest", {"netuid": 450, "kind": "scores"}],
        ["list_resources"],
        ["read_resource", "engram://intelligence/450/scores"],
        ["read_resource", "engram://intelligence/450/none"],
        ["call_tool", "none", {}],
    ]
    answers = await python_client(url=url(bench), token=bench.token(ONE), mode=mode, steps=steps)
    about, tools, latest, resources, document, no_document, no_tool = answers
    assert about["version"] == ("2025-11-25" if mode == "legacy" else "2026-07-28")
    assert [tool["name"] for tool in tools["tools"]] == ["search", "latest", "get"]
    assert latest["structuredContent"]["kind"] == "scores"
    assert len(resources["resources"]) == 1
    assert json.loads(document["contents"][0]["text"])["kind"] == "scores"
    assert no_document["error"]["code"] == (-32002 if mode == "legacy" else -32602)
    assert no_tool["error"]["code"] == -32602


@needs_node_sdk
@pytest.mark.parametrize(("client", "mode"), [("v1", None), ("v2", None), ("v2", "auto")])
async def test_the_typescript_sdks_read_the_receiver_with_a_token(
    bench: Receiver, client: str, mode: str | None
) -> None:
    steps = [["latest", {"kind": "scores"}], ["search", {"limit": 1_000}], ["none", {}]]
    answers = await node_client(client=client, mode=mode, url=url(bench), token=bench.token(ONE), steps=steps)
    assert answers[0] == ["search", "latest", "get"]
    assert answers[1]["content"]["kind"] == "scores"
    assert answers[2]["isError"] is True
    assert answers[3].get("code") == -32602


@needs_node_sdk
async def test_the_inspector_calls_a_tool(tmp_path: Path) -> None:
    async with receiver(tmp_path) as bench:
        await bench.permit(1000, ONE)
        await bench.post(scores())
        program = str(MODULES / ".bin" / "mcp-inspector")
        call = ["--method", "tools/call", "--tool-name", "latest", "--tool-arg", "netuid=450"]
        found = await node(program, "--cli", url(bench), "--transport", "http", *call)
        assert found.returncode == 0, found.stdout.decode()
        assert '"kind"' in found.stdout.decode()


@needs_python_sdk
@pytest.mark.parametrize("mode", MODES)
async def test_the_bridge_signs_for_a_client_that_cannot(bench: Receiver, tmp_path: Path, mode: str) -> None:
    key = tmp_path / "key"
    wallet.write_hotkey_file(key, ONE)
    bench.clock.jump(
        time.time() + 25 - bench.clock.now()
    )  # the bridge signs by the machine's clock, within this minute
    command = [ENGRAM, "mcp", "connect", url(bench), "--key", str(key)]
    tools, latest = await python_client(
        command=command, mode=mode, steps=[["list_tools"], ["call_tool", "latest", {"kind": "scores"}]]
    )
    assert len(tools["tools"]) == 3
    assert latest["structuredContent"]["kind"] == "scores"


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_node(tmp_path_factory.mktemp("node")) as made:
        yield made


@needs_python_sdk
@pytest.mark.serial
@pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=pytest.mark.nightly)])
async def test_an_agent_stores_finds_and_forgets_memories_while_the_node_restarts(
    memory: NodeProcess, tmp_path: Path, count: int
) -> None:
    """The node is killed in the midst of each: of storing, of finding and of forgetting."""
    key = tmp_path / "key"
    wallet.write_hotkey_file(key, CONTROLLER)
    command = [ENGRAM, "miner", "mcp", "--to", f"http://127.0.0.1:{memory.port}", "--key", str(key)]
    command += ["--namespace", f"of_{count}", "--embedder", "hash"]
    texts = [f"Memory {number}: the otter of day {number} sleeps at {number * 7} m." for number in range(count)]
    stored = await while_it_restarts(memory, command, at_once("remember", [{"text": text} for text in texts]))
    ids = [each["content"]["id"] for each in stored]
    assert len(set(ids)) == count
    recalls = at_once("recall", [{"query": text, "limit": 1} for text in texts])
    found = await while_it_restarts(memory, command, recalls)
    assert [each["content"]["memories"][0]["text"] for each in found] == texts
    gone = await while_it_restarts(memory, command, at_once("forget", [{"id": each} for each in ids]))
    assert all(each["content"] == {"forgotten": True} for each in gone)
    [left] = await python_client(command=command, mode="auto", steps=[["call_tool", "list", {}]])
    assert left["structuredContent"]["memories"] == []


def at_once(tool: str, calls: list[dict[str, Any]]) -> list[list[Any]]:
    """The calls in groups that are made side by side."""
    return [["call_at_once", tool, calls[first : first + AT_ONCE]] for first in range(0, len(calls), AT_ONCE)]


async def while_it_restarts(memory: NodeProcess, command: list[str], steps: list[list[Any]]) -> list[Any]:
    """What an agent's calls gave while the node was killed after the first group, and after each tenth from there on.

    The group after is then on its way, and there is one.
    """
    answers: list[Any] = []
    async with trio.open_nursery() as nursery:
        async for step in answered(command=command, mode="auto", steps=steps, within_s=280):
            answers += step["results"]
            if len(answers) // AT_ONCE % 10 == 1:
                assert len(answers) < len(steps) * AT_ONCE, "no call is left that the kill could fall into"
                await trio.to_thread.run_sync(memory.kill)
                nursery.start_soon(trio.to_thread.run_sync, memory.start)
    return answers
