"""Two tenants, a controller and an attacker, in sequences drawn by chance over every endpoint of the HTTP application.

Each answer is held to a model that knows who may see what (isolation_model.py), and to a second node, the twin of one
of them, which is never sent what the others do in namespaces of theirs: both must look the same from there, byte by
byte but for what the clock and the dice put in. Times are held to their buckets without waiting for them.
"""

import json
import shutil
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from config.model import HttpSettings
from engram.clock import ManualClock, SeededIds
from engram.http.app import App
from engram.memory import padding
from engram.memory.padding import SIZES
from engram.miner import namespace_keys
from engram.miner.app import make_app
from tests.memory.search.searchers import ShortSighted
from tests.memory.stores import DIMENSION, until
from tests.miner.isolation_model import SPACED, Endpoint, Model, Told, cid_of, embedding, shown_cids
from tests.miner.isolation_requests import PATHS, PEOPLE, RIGHT, WRONG, Draft, Sent, made
from tests.miner.nodes import serving
from tests.sampling import NIGHTLY, SEED

VARYING = ("latency_ms", "signature", "p50_latency_ms", "uptime_pct", "_p")
NOBODYS = "v1::" + "0" * 64
LOOKS: tuple[tuple[Endpoint, str | None], ...] = (
    ("list", "notes"),
    ("list", "diary"),
    ("get share", "notes"),
    ("chat", None),
    ("export", None),
)
TALKS: tuple[Endpoint, ...] = ("save chat", "save chat", "chat", "chats", "make chat", "rename chat", "delete chat")

people = st.sampled_from(sorted(PEOPLE))
ways = st.sampled_from(3 * RIGHT + WRONG)
names = st.sampled_from(["notes", "notes", "diary", None, "not-a-name"])
contents = st.lists(st.integers(0, 2), min_size=1, max_size=2)
cids = st.sampled_from([*(cid_of(content) for content in range(3)), NOBODYS, "garbage"])
endpoints: st.SearchStrategy[Endpoint] = st.sampled_from(sorted(PATHS) + 2 * sorted(SPACED))
usual: st.SearchStrategy[Endpoint] = st.sampled_from(sorted(SPACED) + ["ingest"] * 12 + ["put share"] * 4)


class ByContent(ShortSighted):
    """Embeds a text by the number of its content, with which it begins; its windows are those of the text."""

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        return [struct.pack(f"<{DIMENSION}f", *embedding(int(text.split()[0]))) for text in texts]


class Answered(msgspec.Struct, frozen=True):
    """What came back; `disguised` says whether its time was put into a bucket."""

    status: int
    body: bytes
    disguised: bool

    def read(self) -> dict[str, Any]:
        """The JSON object; of a stream, all documents under `records`."""
        lines = [json.loads(line) for line in self.body.splitlines()]
        return {"records": lines} if lines[-1].get("kind") == "end" else cast(dict[str, Any], lines[0])

    def without_dice(self) -> tuple[int, bool, int, dict[str, Any]]:
        """All that may be compared: status, bucket, size where it is padded, and the body less what varies."""
        body = {key: value for key, value in self.read().items() if key not in VARYING}
        if "records" in body:  # the items of a batch are stored in any order
            body["records"] = sorted(body["records"], key=lambda record: str(record["cid"]))
        return self.status, self.disguised, len(self.body) if self.disguised else 0, body


class Nodes:
    """Nodes and their applications, made and asked in the loop for a machine that runs in a thread."""

    def __init__(self, nursery: trio.Nursery, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._nursery = nursery
        self._folder = folder
        self._made = 0
        self._bucketed = False
        self._ending = trio.Event()

        def answer_at(arrived_s: float, now_s: float, bucket_s: float) -> float:
            self._bucketed = True
            buckets = (_real_answer_at(arrived_s, now_s, bucket_s) - arrived_s) / bucket_s
            assert buckets == pytest.approx(round(buckets), abs=1e-6)
            assert round(buckets) >= 1
            return now_s

        monkeypatch.setattr(namespace_keys, "_ROUNDS", 1)
        monkeypatch.setattr(padding, "answer_at", answer_at)

    async def open(self, *, is_open: bool, is_strict: bool) -> App:
        """A new node's application."""
        app: App = await self._nursery.start(self._keep, is_open, is_strict)
        return app

    async def close(self) -> None:
        """Ends all nodes."""
        self._ending.set()
        self._ending = trio.Event()
        await until(lambda: not self._nursery.child_tasks)

    async def _keep(self, is_open: bool, is_strict: bool, *, task_status: trio.TaskStatus[App]) -> None:
        ending = self._ending
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        clock = ManualClock()
        async with serving(
            folder,
            clock=clock,
            require_signature=is_strict,
            tenants="anyone" if is_open else "controller",
            private_bucket_s=0.1,
            embedder=ByContent(),
            waits_for_windows=True,
        ) as service:
            await until(service.searchable)
            limits = HttpSettings(requests_per_minute_per_ip=0)
            task_status.started(
                make_app(service, settings=limits, clock=clock, ids=SeededIds(1), metrics=service.metrics)
            )
            await ending.wait()
        shutil.rmtree(folder)

    async def ask(self, app: App, sent: Sent) -> Answered:
        """One exchange by ASGI."""
        self._bucketed = False
        parts: list[Any] = []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": sent.method,
            "scheme": "http",
            "path": sent.path,
            "raw_path": sent.path.encode(),
            "query_string": sent.query.encode(),
            "root_path": "",
            "headers": [(b"host", b"node"), (b"x-request-id", b"request-1")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "extensions": {},
        }

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            parts.append(message)

        await app(cast(Any, scope), cast(Any, _received(sent.body)), cast(Any, send))
        body = b"".join(part.get("body", b"") for part in parts[1:])
        return Answered(parts[0]["status"], body, self._bucketed)


_real_answer_at = padding.answer_at


def _received(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    """The one message of a request; then the client stays."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await trio.sleep_forever()
        return messages.pop()

    return receive


class Isolation(RuleBasedStateMachine):
    """A node, the twin of `observer`, and what was sent."""

    nodes: Nodes

    @initialize(
        observer=st.sampled_from(["anna", "bert", "eve"]),
        is_open=st.sampled_from([True, True, False]),
        is_strict=st.booleans(),
    )
    def begin(self, observer: str, is_open: bool, is_strict: bool) -> None:
        self.observer = observer
        self.model = Model("host", is_open=is_open, is_strict=is_strict)
        self.node = trio.from_thread.run(lambda: self.nodes.open(is_open=is_open, is_strict=is_strict))
        self.twin = trio.from_thread.run(lambda: self.nodes.open(is_open=is_open, is_strict=is_strict))
        self.now_ms = int(ManualClock().now() * 1000)
        self.sent: list[Sent] = []
        self.texts: set[str] = set()

    def teardown(self) -> None:
        """Everybody looks at everything that is theirs."""
        try:
            for actor in PEOPLE:
                for endpoint, name in LOOKS:
                    self.send(made(self.draft(actor, endpoint, "v2+body", name, [0], NOBODYS)))
        finally:
            trio.from_thread.run(self.nodes.close)

    @rule(actor=people, endpoint=usual, name=st.sampled_from(["notes", "diary", None]), contents=contents, cid=cids)
    def use(self, actor: str, endpoint: Endpoint, name: str | None, contents: list[int], cid: str) -> None:
        """What is right everywhere for whoever may have a namespace."""
        self.send(made(self.draft(actor, endpoint, "v2+body", name, contents, cid)))

    @rule(actor=people, endpoint=endpoints, way=ways, name=names, contents=contents, cid=cids)
    def ask(self, actor: str, endpoint: Endpoint, way: str, name: str | None, contents: list[int], cid: str) -> None:
        self.send(made(self.draft(actor, endpoint, way, name, contents, cid)))

    @rule(actor=people, way=ways, name=st.sampled_from(["notes", None]), content=st.integers(0, 2))
    def remove(self, actor: str, way: str, name: str | None, content: int) -> None:
        self.send(made(self.draft(actor, "delete", way, name, [0], cid_of(content))))

    @rule(actor=people, endpoint=st.sampled_from(TALKS), way=st.sampled_from(["body", "body", "none", "forged body"]))
    def talk(self, actor: str, endpoint: Endpoint, way: str) -> None:
        self.send(made(self.draft(actor, endpoint, way, None, [0], NOBODYS)))

    @precondition(lambda self: self.sent)
    @rule(number=st.integers(0, 1_000))
    def replay(self, number: int) -> None:
        self.send(self.sent[number % len(self.sent)])

    @precondition(lambda self: any(sent.shown.stamp for sent in self.sent))
    @rule(number=st.integers(0, 1_000), endpoint=st.sampled_from(sorted(SPACED)), way=ways, contents=contents, cid=cids)
    def steal(self, number: int, endpoint: Endpoint, way: str, contents: list[int], cid: str) -> None:
        """A namespace signature of version 1 that was seen on its way, with a request of somebody else's."""
        seen = [sent for sent in self.sent if sent.shown.stamp]
        victim = seen[number % len(seen)]
        draft = self.draft("eve", endpoint, way, victim.shown.name, contents, cid)
        self.send(made(draft, victim))

    def draft(self, actor: str, endpoint: Endpoint, way: str, name: str | None, contents: list[int], cid: str) -> Draft:
        about = tuple(contents) if endpoint in ("batch", "look up", "delete batch") else (contents[0],)
        return Draft(actor, endpoint, way, name, about, cid, self.now_ms + len(self.sent))

    def send(self, sent: Sent) -> None:
        self.sent.append(sent)
        told = self.model.answer(sent.shown)
        answered = trio.from_thread.run(self.nodes.ask, self.node, sent)
        self.hold_to_the_model(sent, told, answered)
        self.texts |= {sent.shown.text, sent.shown.share}
        concerns_all = (
            sent.shown.name is None and "chat" not in sent.shown.endpoint
        ) or "attest" in sent.shown.endpoint
        if sent.actor == self.observer or concerns_all:
            twins = trio.from_thread.run(self.nodes.ask, self.twin, sent)
            if sent.actor == self.observer:
                assert answered.without_dice() == twins.without_dice()

    def hold_to_the_model(self, sent: Sent, told: Told, answered: Answered) -> None:
        assert answered.status == told.status
        assert answered.disguised == told.disguised
        body = answered.read()
        assert ("_p" in body) == told.disguised
        assert not told.disguised or len(answered.body) in SIZES
        assert {text for text in self.texts if text.encode() in answered.body} <= told.texts
        if told.status != 200 or body.get("error"):
            return
        shown = sent.shown
        match shown.endpoint:
            case "health" | "stats":
                assert body["vectors"] == told.count
            case "chats":
                assert len(body["conversations"]) == told.count
            case "attestation":
                owner = told.share and PEOPLE[told.share].ss58
                assert body.get("owner_hotkey") == owner
            case "get share":
                assert body["share_hex"] == told.share
            case "export" | "export stream":
                held = [each["cid"] for each in body["records"] if each.get("kind") == "record"]
                assert sorted(held) == sorted(told.cids or ())
            case _:
                assert told.count is None or body.get("count", told.count) == told.count
                if told.cids is not None:
                    shown_there = shown_cids(shown.endpoint, body)
                    assert sorted(shown_there) == sorted(told.cids)


@pytest.mark.parametrize("block", range(12 if NIGHTLY else 1))
async def test_nothing_of_one_is_visible_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    limits = settings(
        max_examples=150 if NIGHTLY else 20,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    async with trio.open_nursery() as nursery:
        machine = seed(1_000 * SEED + block)(
            type("Isolation", (Isolation,), {"nodes": Nodes(nursery, tmp_path, monkeypatch)})
        )
        await trio.to_thread.run_sync(lambda: run_state_machine_as_test(machine, settings=limits))
