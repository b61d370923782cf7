"""The memory of a real node for an agent: what it stores, finds, lists and forgets, and what leaves the machine."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engram.agents.memories import MAX_SEALED_BYTES, PUBLIC, Memories
from engram.agents.tools import catalog
from engram.agents.vault import Vault, key_of
from engram.clock import SystemClock
from engram.hotkeys import Keypair, wallet
from engram.mcp import LOCAL, Caller, Dispatcher, ToolFailed
from engram.mcp.stdio import Lines
from engram.memory.embed.hash_embedder import HashEmbedder
from engram.sdk import NodeClient
from engram.sdk.async_transport import AsyncTransport
from engram.sdk.errors import ApiError, OutcomeUnknown
from tests.mcp.toys import call, request
from tests.miner.nodes import CONTROLLER, STRANGER, NodeProcess, node

pytestmark = pytest.mark.serial

ENGRAM = str(Path(sys.executable).with_name("engram"))
OTTERS = "Otters hold hands while they sleep."


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with node(tmp_path_factory.mktemp("node")) as made:
        yield made


def url(of: NodeProcess) -> str:
    return f"http://127.0.0.1:{of.port}"


def following(after: str | None) -> dict[str, Any]:
    return {} if after is None else {"after": after}


class Agent:
    """An agent of one hotkey, as its MCP server sees it."""

    def __init__(self, of: NodeProcess, keypair: Keypair, *namespaces: str, public: bool = False) -> None:
        self.transport = AsyncTransport(url(of), timeout_s=10.0)
        vault = Vault(keypair, HashEmbedder, lambda embedder: None)
        memories = Memories(self.transport, keypair, namespaces, vault, SystemClock(), public=public)
        self.dispatcher = Dispatcher(catalog(memories))

    async def tool(self, name: str, caller: Caller = LOCAL, **arguments: Any) -> Any:
        answered = await self.dispatcher.answer(call(name, arguments), caller)
        result = msgspec.json.decode(answered.body or b"")["result"]
        return result["content"][0]["text"] if result["isError"] else result["structuredContent"]


@pytest.fixture
async def agent(running: NodeProcess) -> AsyncIterator[Agent]:
    made = Agent(running, CONTROLLER, "notes", "work", public=True)
    yield made
    await made.transport.close()


async def test_the_whole_life_of_a_memory(agent: Agent) -> None:
    stored = await agent.tool("remember", text=OTTERS, metadata={"source": "zoo", "seen": 3})
    found = await agent.tool("recall", query="otters hold hands")
    assert found["memories"][0]["text"] == OTTERS
    assert found["memories"][0]["metadata"] == {"source": "zoo", "seen": 3}
    assert found["memories"][0]["id"] == stored["id"]
    listed = await agent.tool("list")
    assert [each["id"] for each in listed["memories"]] == [stored["id"]]
    assert await agent.tool("forget", id=stored["id"]) == {"forgotten": True}
    assert await agent.tool("forget", id=stored["id"]) == {"forgotten": False}
    assert (await agent.tool("list"))["memories"] == []


async def test_private_text_is_encrypted_before_it_leaves(agent: Agent, running: NodeProcess) -> None:
    stored = await agent.tool("remember", text=OTTERS, metadata={"source": "zoo"}, namespace="work")
    with NodeClient(url(running), CONTROLLER, namespace="work") as owner:
        [kept] = owner.list()
    assert set(kept.metadata) == {"_enc"}
    assert kept.kept_text is None
    for path in (running.folder / "data").rglob("*"):
        assert not path.is_file() or OTTERS.encode() not in path.read_bytes(), path
    assert await agent.tool("forget", id=stored["id"], namespace="work") == {"forgotten": True}


async def test_no_private_namespace_is_taken_for_the_one_that_everyone_reads(running: NodeProcess) -> None:
    with pytest.raises(ValueError, match="a private namespace cannot be called 'public'"):
        Agent(running, CONTROLLER, "notes", PUBLIC)


async def test_what_another_key_encrypted_is_counted_and_not_shown(agent: Agent, running: NodeProcess) -> None:
    with NodeClient(url(running), CONTROLLER, namespace="work") as owner:
        cid = owner.ingest_vector([1.0, *[0.0] * 383], {"_enc": "AAAA", "text": "a secret"})
    found = await agent.tool("list", namespace="work")
    assert (found["memories"], found["unreadable"]) == ([], 1)
    assert await agent.tool("forget", id=cid, namespace="work") == {"forgotten": True}


async def test_namespaces_that_are_not_open_are_refused(agent: Agent) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("remember", {"text": "x"}),
        ("recall", {"query": "x"}),
        ("list", {}),
        ("forget", {"id": "v1::" + "0" * 64}),
    ]
    for name, arguments in calls:
        assert "is not open here: use notes or work or public" in await agent.tool(name, **arguments, namespace="other")
        narrow = Caller(namespaces=frozenset({"work", "elsewhere"}))
        assert "is not open here: use work" in await agent.tool(name, narrow, **arguments, namespace="notes")
        closed = Caller(namespaces=frozenset({"elsewhere"}))
        assert "this token opens none" in await agent.tool(name, closed, **arguments)


async def test_a_key_that_does_not_own_the_node_s_namespaces_gets_nothing(running: NodeProcess, agent: Agent) -> None:
    stored = await agent.tool("remember", text=OTTERS)
    stranger = Agent(running, STRANGER, "notes")
    for name, arguments in (
        ("remember", {"text": "x"}),
        ("recall", {"query": "otters"}),
        ("list", {}),
        ("forget", {"id": stored["id"]}),
    ):
        answer = await stranger.tool(name, **arguments)
        assert isinstance(answer, str), "refused"
        assert "the node refuses" in answer
    await stranger.transport.close()
    assert [each["id"] for each in (await agent.tool("list"))["memories"]] == [stored["id"]]
    await agent.tool("forget", id=stored["id"])


async def test_a_public_memory_is_for_everyone(agent: Agent, running: NodeProcess) -> None:
    stored = await agent.tool("remember", text=OTTERS, namespace=PUBLIC)
    with NodeClient(url(running)) as anybody:
        assert anybody.query("otters hold hands", top_k=1)[0].text == OTTERS
    found = await agent.tool("recall", query="otters hold hands", namespace=PUBLIC)
    assert found["memories"][0] == {
        "id": stored["id"],
        "text": OTTERS,
        "metadata": {},
        "score": found["memories"][0]["score"],
    }
    assert await agent.tool("forget", id=stored["id"], namespace=PUBLIC) == {"forgotten": True}


async def test_a_list_goes_on_where_it_ended(agent: Agent) -> None:
    ids = [(await agent.tool("remember", text=f"note {number}"))["id"] for number in range(5)]
    seen: list[str] = []
    after = None
    while True:
        page = await agent.tool("list", limit=2, **following(after))
        seen += [each["id"] for each in page["memories"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ids
    for each in ids:
        await agent.tool("forget", id=each)


async def test_a_text_that_does_not_fit_is_refused_with_what_would(agent: Agent) -> None:
    answer = await agent.tool("remember", text="x" * 4_000)
    assert f"at most {MAX_SEALED_BYTES} fit" in answer
    assert "remember it in parts" in answer


async def test_a_node_that_restarts_is_waited_for(tmp_path: Path) -> None:
    with node(tmp_path) as made:
        agent = Agent(made, CONTROLLER, "notes")
        made.kill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, made.start)
            stored = await agent.tool("remember", text=OTTERS)
        assert (await agent.tool("recall", query="otters"))["memories"][0]["id"] == stored["id"]
        await agent.transport.close()


class CutOff:
    """A transport to a node whose first answer is lost on the way."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._lost = False

    async def ask(self, call: Any) -> Any:
        found = await self._transport.ask(call)
        if not self._lost:
            self._lost = True
            raise OutcomeUnknown("the connection was lost")
        return found


async def test_a_memory_that_a_lost_attempt_deleted_is_told_as_forgotten(agent: Agent) -> None:
    stored = await agent.tool("remember", text=OTTERS, namespace=PUBLIC)
    cut: Any = CutOff(agent.transport)
    memories = Memories(cut, CONTROLLER, (), None, SystemClock(), public=True)
    assert await memories.forget(LOCAL, None, stored["id"])
    assert not await memories.forget(LOCAL, None, stored["id"])


class Restarted:
    """A transport to a node that starts between the signing of a request and its arrival, so many times."""

    def __init__(self, transport: AsyncTransport, times: int) -> None:
        self._transport = transport
        self._left = times

    async def ask(self, call: Any) -> Any:
        if self._left:
            self._left -= 1
            text = "the request is older than this server's start; sign it again"
            raise ApiError(401, "namespace_signature", text)
        return await self._transport.ask(call)


async def test_a_request_that_was_signed_before_the_node_s_start_is_signed_again(agent: Agent) -> None:
    def memories(times: int) -> Memories:
        restarted: Any = Restarted(agent.transport, times)
        return Memories(restarted, CONTROLLER, (), None, SystemClock(), public=True)

    stored = await memories(2).remember(LOCAL, None, OTTERS, {})
    assert await memories(1).forget(LOCAL, None, stored)
    with pytest.raises(ToolFailed, match="the node refuses"):
        await memories(100).forget(LOCAL, None, stored)


def test_the_key_of_a_namespace_is_the_hotkey_s_own() -> None:
    assert key_of(CONTROLLER, "notes") == key_of(CONTROLLER, "notes")
    assert len({key_of(CONTROLLER, "notes"), key_of(CONTROLLER, "work"), key_of(STRANGER, "notes")}) == 3
    assert CONTROLLER.private_key().hex() not in key_of(CONTROLLER, "notes")


async def test_the_command_serves_standard_input_until_it_ends(running: NodeProcess, tmp_path: Path) -> None:
    key = tmp_path / "key"
    wallet.write_hotkey_file(key, CONTROLLER)
    command = [ENGRAM, "miner", "mcp", "--to", url(running), "--key", str(key), "--namespace", "cli"]
    process = await trio.lowlevel.open_process(
        [*command, "--embedder", "hash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = Lines(process.stdout)
    with trio.fail_after(30):
        await process.stdin.send_all(request("initialize", {"protocolVersion": "2025-11-25"}) + b"\n")
        begun = msgspec.json.decode(await lines.__anext__() or b"")
        assert begun["result"]["serverInfo"]["name"] == "engram-memory"
        await process.stdin.send_all(call("remember", {"text": OTTERS}) + b"\n")
        stored = msgspec.json.decode(await lines.__anext__() or b"")["result"]["structuredContent"]
        await process.stdin.send_all(call("forget", {"id": stored["id"]}, new=True) + b"\n")
        gone = msgspec.json.decode(await lines.__anext__() or b"")["result"]["structuredContent"]
        assert gone == {"forgotten": True}
        await process.stdin.aclose()
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "http://127.0.0.1:1"], "name a private namespace by --namespace"),
        (["--to", "http://127.0.0.1:1", "--namespace", "n"], "needs --key"),
        (["--to", "http://127.0.0.1:1", "--public", "--listen", "8080"], "--listen is HOST:PORT"),
        (["--to", "http://127.0.0.1:1", "--public", "--listen", "127.0.0.1:0"], "--listen needs --key"),
        (
            ["--to", "http://127.0.0.1:1", "--public", "--listen", "0.0.0.0:0", "--open-loopback"],
            "needs a --listen such",
        ),
        (["--to", "http://127.0.0.1:1", "--public", "--host", "box.lan"], "go with --listen"),
        (["--public"], "name the node"),
        (["--to", "http://127.0.0.1:1", "--key", "k", "--namespace", PUBLIC], "a private namespace cannot be called"),
    ],
)
def test_what_is_missing_is_said(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from engram.cli import main

    assert main(["miner", "mcp", *arguments]) == 2
    assert words in capsys.readouterr().err
