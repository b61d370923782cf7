"""Three people and an agent of each, on one node, in sequences drawn by chance: what one remembers no other is shown.

Each answer is held to the model that the node's own endpoints are held to (tests/miner/isolation_model.py), by either
transport: `engram miner mcp` on standard input, and over HTTP, where people also come to each other's servers.
"""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from config.model import MinerSettings
from engram.hotkeys import wallet
from engram.http.client import HttpClient
from engram.mcp import tokens
from engram.mcp.connect import audience
from engram.mcp.stdio import Lines
from engram.mcp.tokens import Claims
from tests.agents.test_serving import served
from tests.mcp.toys import call
from tests.miner.isolation_model import Endpoint, Model, Shown, Told, cid_of
from tests.miner.isolation_requests import PEOPLE
from tests.miner.nodes import NodeProcess, node
from tests.sampling import NIGHTLY, SEED

pytestmark = pytest.mark.serial

ENGRAM = str(Path(sys.executable).with_name("engram"))
ACTORS: Final = ("host", "anna", "bert")
NAMES: Final = ("notes", "diary", None)
"""The private namespaces, which all of them call the same, and everyone's."""
ENDPOINTS: Final[dict[str, Endpoint]] = {"remember": "ingest", "recall": "query", "list": "walk", "forget": "delete"}
"""What of the node each tool uses, as the model knows it."""

actors = st.sampled_from(ACTORS)
names = st.sampled_from(NAMES)


class Said(msgspec.Struct, frozen=True):
    """What a tool answered: its result, or the text of its failure; and everything that came."""

    result: dict[str, Any] | None
    failure: str
    whole: bytes


class Door:
    """A server of one person's agent on standard input."""

    asks_for_tokens = False

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._out, self._lines = process.stdin, Lines(process.stdout)

    async def say(self, line: bytes) -> bytes:
        await self._out.send_all(line + b"\n")
        return await self._lines.__anext__() or b""

    async def tool(self, name: str, arguments: dict[str, Any]) -> Said:
        with trio.fail_after(60):
            whole = await self.say(call(name, arguments))
        result = msgspec.json.decode(whole)["result"]
        if result["isError"]:
            return Said(None, result["content"][0]["text"], whole)
        return Said(result["structuredContent"], "", whole)


class HttpDoor(Door):
    """The same over HTTP, where each request shows a token of the server's owner."""

    asks_for_tokens = True

    def __init__(self, owner: str, url: str, http: HttpClient) -> None:
        self._owner, self.url, self._http = owner, url, http

    async def say(self, line: bytes) -> bytes:
        return (await self.ask(line, self.token(self._owner)))[1]

    async def ask(self, line: bytes, token: str) -> tuple[int, bytes]:
        sent = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        found = await self._http.request("POST", self.url, content=line, headers=sent)
        return found.status, found.content

    def token(self, signer: str, **changed: Any) -> str:
        now = int(time.time())
        fields: dict[str, Any] = {
            "key": PEOPLE[signer].ss58,
            "aud": audience(self.url),
            "scope": ("read", "write"),
            "iat": now - 5,
            "exp": now + 60,
            "id": "a" * 32,
        }
        return tokens.mint(PEOPLE[signer], Claims(**(fields | changed)))


@asynccontextmanager
async def doors(folder: Path, made: NodeProcess, *, over_http: bool) -> AsyncIterator[dict[str, Door]]:
    """A server for each person, all on one node."""
    found: dict[str, Door] = {}
    http = HttpClient()
    async with AsyncExitStack() as stack:

        async def open_one(actor: str) -> None:
            key = folder / actor
            wallet.write_hotkey_file(key, PEOPLE[actor])
            command = [ENGRAM, "miner", "mcp", "--to", f"http://127.0.0.1:{made.port}", "--key", str(key), "--public"]
            command += ["--namespace", "notes", "--namespace", "diary", "--embedder", "hash"]
            if over_http:
                more = ["--listen", "127.0.0.1:0", "--revoked", str(folder / f"{actor}.revoked")]
                found[actor] = HttpDoor(actor, await stack.enter_async_context(served(*command, *more)), http)
            else:
                found[actor] = Door(await stack.enter_async_context(on_standard_input(*command)))

        async with trio.open_nursery() as starting:
            for actor in ACTORS:
                starting.start_soon(open_one, actor)
        yield found
        await http.aclose()


@asynccontextmanager
async def on_standard_input(*command: str) -> AsyncIterator[trio.Process]:
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.fail_after(20):
            assert await process.wait() == 0


class AgentIsolation(RuleBasedStateMachine):
    """What the agents of the people were told to remember, and what each is shown."""

    doors: dict[str, Door]
    is_open: bool

    @initialize()
    def begin(self) -> None:
        self.model = Model("host", is_open=self.is_open, is_strict=False)
        self.ids: dict[str, str] = {}
        """By the model's CID: what the server calls the memory."""
        self.texts: dict[str, str] = {}
        self.made = 0

    def teardown(self) -> None:
        """Everybody forgets what is theirs, so that the next sequence begins with nothing."""
        for actor in ACTORS:
            for name in NAMES:
                for cid in self.found(actor, name, "list"):
                    self.drop(actor, name, cid)
        for actor in ACTORS:
            for name in NAMES:
                assert self.found(actor, name, "list") == []

    @rule(actor=actors, name=names)
    def remember(self, actor: str, name: str | None) -> None:
        self.made += 1
        cid, text = cid_of(self.made), f"Text {self.made} of {actor} is secret."
        told = self.model.answer(self.shown("remember", actor, name, cid, text))
        said = self.say(actor, name, "remember", text=text)
        self.texts[cid] = text
        if told.status == 200:
            assert said.result is not None, said.failure
            assert said.result["id"] not in self.ids.values()
            self.ids[cid] = said.result["id"]
        else:
            assert "the node refuses" in said.failure

    @rule(actor=actors, name=names, tool=st.sampled_from(["recall", "recall", "list"]))
    def look(self, actor: str, name: str | None, tool: str) -> None:
        self.found(actor, name, tool)

    def found(self, actor: str, name: str | None, tool: str) -> list[str]:
        """What a tool shows, by the model's CIDs."""
        told = self.model.answer(self.shown(tool, actor, name))
        given = {"query": "Text of somebody is secret."} if tool == "recall" else {}
        said = self.say(actor, name, tool, **given, limit=50)
        self.hold(said, told)
        if told.status != 200:
            assert "the node refuses" in said.failure
            return []
        assert said.result is not None, said.failure
        assert said.result["unreadable"] == 0, "the record of another key"
        found = [each["id"] for each in said.result["memories"]]
        assert sorted(found) == sorted(self.ids[cid] for cid in told.cids or ())
        return list(told.cids or ())

    @precondition(lambda self: self.ids)
    @rule(actor=actors, name=names, number=st.integers(0, 1_000))
    def forget(self, actor: str, name: str | None, number: int) -> None:
        """One's own, and as often somebody else's, whose id was seen somewhere."""
        self.drop(actor, name, sorted(self.ids)[number % len(self.ids)])

    @precondition(lambda self: self.ids and self.doors["host"].asks_for_tokens)
    @rule(
        actor=actors,
        victim=actors,
        name=names,
        tool=st.sampled_from(sorted(ENDPOINTS)),
        number=st.integers(0, 1_000),
        way=st.sampled_from(["own key", "elsewhere", "expired", "forged", "narrow", "reader", "none"]),
    )
    def trespass(self, actor: str, victim: str, name: str | None, tool: str, number: int, way: str) -> None:
        """Come to another's server with a token that is not for this."""
        door = self.doors[victim]
        assert isinstance(door, HttpDoor)
        other = "host" if victim == "anna" else "anna"
        own = self.doors[other]
        assert isinstance(own, HttpDoor)
        name = "notes" if way == "narrow" else name
        refused, token = 401, ""
        match way:
            case "own key":
                refused, token = 403, door.token(actor if actor != victim else other)
            case "elsewhere":
                token = door.token(victim, aud=audience(own.url))
            case "expired":
                token = door.token(victim, iat=int(time.time()) - 60, exp=int(time.time()) - 1)
            case "forged":
                token = door.token(victim).rpartition(".")[0] + "." + door.token(other).rpartition(".")[2]
            case "narrow":
                refused, token = 200, door.token(victim, namespaces=("diary", "elsewhere"))
            case "none":
                pass
            case _:
                assert way == "reader"
                tool = "remember" if tool in ("remember", "recall") else "forget"
                refused, token = 403, door.token(victim, scope=("read",))
        cid = sorted(self.ids)[number % len(self.ids)]
        given = {"remember": {"text": "x"}, "recall": {"query": "secret"}, "list": {}, "forget": {"id": self.ids[cid]}}
        line = call(tool, {**given[tool], "namespace": name or "public"})
        status, whole = trio.from_thread.run(door.ask, line, token)
        assert status == refused, whole
        if way == "narrow":
            result = msgspec.json.decode(whole)["result"]
            assert result["isError"] is True
            assert "is not open here: use diary" in result["content"][0]["text"]
        self.hold(Said(None, "", whole), Told(refused, disguised=False))

    def drop(self, actor: str, name: str | None, cid: str) -> None:
        told = self.model.answer(self.shown("forget", actor, name, cid))
        said = self.say(actor, name, "forget", id=self.ids[cid])
        self.hold(said, told)
        if told.status in (200, 404):
            assert said.result == {"forgotten": told.status == 200}, said.failure
        else:
            assert "the node refuses" in said.failure
        if told.status == 200:
            del self.ids[cid]

    def shown(self, tool: str, actor: str, name: str | None, cid: str = "", text: str = "") -> Shown:
        """What the tool's request to the node shows: the whole of it is signed by the server's key."""
        self.made += 1
        by_name: dict[str, Any] = {} if name is None else {"namer": actor, "bound": self.made}
        contents = (self.made - 1,) if tool == "remember" else ()
        own = Shown(endpoint=ENDPOINTS[tool], name=name, signer=actor, body=self.made, cid=cid, text=text)
        return msgspec.structs.replace(own, contents=contents, **by_name)

    def say(self, actor: str, name: str | None, tool: str, **arguments: Any) -> Said:
        return trio.from_thread.run(self.doors[actor].tool, tool, {**arguments, "namespace": name or "public"})

    def hold(self, said: Said, told: Told) -> None:
        """Hold the whole of what came to the texts that may be in it."""
        allowed = {self.texts[cid] for cid in told.cids or ()}
        assert {text for text in self.texts.values() if text.encode() in said.whole} <= allowed


@pytest.mark.parametrize(
    ("over_http", "tenants"),
    [
        (False, "anyone"),
        (True, "anyone"),
        pytest.param(False, "controller", marks=pytest.mark.nightly),
        (True, "controller"),
    ],
)
async def test_nothing_of_one_reaches_another_through_mcp(tmp_path: Path, over_http: bool, tenants: Any) -> None:
    limits = settings(
        max_examples=60 if NIGHTLY else 3,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    told = MinerSettings(tenants=tenants, private_bucket_ms=0, requests_per_minute=0)
    with node(tmp_path, miner=told) as made:
        async with doors(tmp_path, made, over_http=over_http) as opened:
            own = {"doors": opened, "is_open": tenants == "anyone"}
            machine = seed(1_000 * SEED)(type("AgentIsolation", (AgentIsolation,), own))
            await trio.to_thread.run_sync(lambda: run_state_machine_as_test(machine, settings=limits))
