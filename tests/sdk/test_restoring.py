"""A node that began again empty gets back what its controller kept; the gateway says lost until then."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trio
from sqlalchemy import Connection

from config.model import MinerSettings
from engram.api import node as api
from engram.api import node_model as model
from engram.cli.failures import CommandFailed
from engram.cli.miner import guard as guard_command
from engram.clock import SystemClock
from engram.hotkeys.python_json import JsonObject
from engram.sdk import ApiError, Exported, GatewayClient, MalformedAnswer, NodeClient, Session, read_export
from engram.sdk.guarding import ForeignExport, Guard, GuardStep, KeptExport, next_step
from engram.sdk.node_calls import NodeCalls, checked
from engram.sdk.restoring import RestoredMemory, restore_session
from engram.sdk.shamir import Share
from engram.sessions import SessionEvent
from engram.sessions import records as session_records
from tests.gateway.surface import Gateway, running_gateway
from tests.miner.nodes import CONTROLLER, NODE, NodeProcess, node
from tests.sdk.doubles import Asked, Told, scripted

T = TypeVar("T")
RECORD: dict[str, object] = {
    "kind": "record",
    "id": 1,
    "namespace": "__public__",
    "cid": "v1::1",
    "metadata": {},
    "embedding_b64": "AAAA",
}


@contextmanager
def a_node(folder: Path) -> Iterator[NodeProcess]:
    folder.mkdir()
    with node(folder, miner=MinerSettings(private_bucket_ms=0)) as made:
        yield made


def url_of(made: NodeProcess) -> str:
    return f"http://127.0.0.1:{made.port}"


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with a_node(tmp_path_factory.mktemp("lasting") / "node") as made:
        yield made


class Sold:
    """A session whose node is where the test says."""

    def __init__(self, gateway: Gateway, session_id: str) -> None:
        self.gateway = gateway
        self.id = session_id

    async def serves(self, url: str, store: str) -> None:
        at = self.gateway.clock.now()

        def note(connection: Connection) -> None:
            session = session_records.get(connection, self.id)
            assert session is not None
            session_records.set_node(connection, self.id, "token", url, NODE.public_key)
            session_records.note_store(connection, session, store, at)

        await self.gateway.ledger.write(note)
        self.gateway.clock.advance(60)

    async def using(self, use: Callable[[GatewayClient], T]) -> T:
        def run() -> T:
            with GatewayClient(self.gateway.url, CONTROLLER, clock=self.gateway.clock) as client:
                return use(client)

        return await trio.to_thread.run_sync(run)

    async def memory(self) -> str:
        return (await self.using(lambda client: client.get(self.id))).memory

    async def step(self, file: Path) -> GuardStep:
        def step(client: GatewayClient) -> GuardStep:
            return Guard(client, CONTROLLER, self.id, file, clock=self.gateway.clock).step()[1]

        return await self.using(step)


async def sell(gateway: Gateway) -> Sold:
    session_id = (await gateway.buy(keypair=CONTROLLER))["session_id"]
    await gateway.happen(session_id, SessionEvent.NODE_READY)
    return Sold(gateway, session_id)


def fill(url: str) -> None:
    with NodeClient(url, CONTROLLER) as public:
        public.ingest("otters hold hands", {"n": 1})
        public.ingest_vector([1.0] + [0.0] * 383, metadata={"only": "a vector"})
    with NodeClient(url, CONTROLLER, namespace="vault") as mine:
        mine.ingest("home is Paris", key="home")
        mine.ingest("home is Rome", key="home")
        mine.ingest("work is in Lyon", key="work")
        mine.delete(mine.ingest("work is in Nice", key="work"))
        mine.ingest_batch([(f"text {number}", {"n": number}) for number in range(70)])
        mine.ingest("over by now", expires_at=1_700_000_000.0)
        mine.put_share(Share(1, b"x"), 2, 3)
    converse(url)


def converse(url: str) -> None:
    calls = NodeCalls(SystemClock(), CONTROLLER)
    said: JsonObject = {"user_id": "u", "conv_id": "c", "messages": [{"role": "user", "content": "hi", "ts": 1.5}]}
    with NodeClient(url, CONTROLLER) as node:
        node.ask(calls.post(api.SAVE_CHAT, said, lambda answer: checked(answer, model.SavedChat)))


def move(url: str) -> None:
    with NodeClient(url, CONTROLLER, namespace="vault") as mine:
        mine.ingest("home is Berlin", key="home")


def home(url: str) -> list[str]:
    """Where home is, by a search that finds what is current."""
    with NodeClient(url, CONTROLLER, namespace="vault") as mine:
        return [hit.text for hit in mine.query("home is", top_k=100) if hit.text.startswith("home")]


def held(url: str) -> list[dict[str, object]]:
    """What the node holds, but for times, numbers and what has an owner by who stored it."""
    times = ("id", "created_at", "updated_at", "stored_at")
    with NodeClient(url, CONTROLLER) as node:
        return [{name: value for name, value in one.fields.items() if name not in times} for one in node.export()]


async def test_a_replaced_node_gets_back_what_was_kept_and_the_session_says_so(tmp_path: Path) -> None:
    async with running_gateway() as gateway:
        sold, file = await sell(gateway), tmp_path / "kept.jsonl"
        with a_node(tmp_path / "first") as first:
            await sold.serves(url_of(first), "first")
            await trio.to_thread.run_sync(fill, url_of(first))
            assert await sold.step(file) is GuardStep.EXPORT
            assert file.stat().st_mode & 0o777 == 0o600
            before = await trio.to_thread.run_sync(held, url_of(first))
        with a_node(tmp_path / "second") as second:
            await sold.serves(url_of(second), "second")
            assert await sold.memory() == "lost"
            assert await trio.to_thread.run_sync(held, url_of(second)) == []
            assert await sold.step(file) is GuardStep.RESTORE
            assert await sold.memory() == "restored"
            assert await trio.to_thread.run_sync(held, url_of(second)) == before
            kept = file.read_bytes()
            assert await sold.step(file) is GuardStep.EXPORT, "what is there now is kept as that of this node"
            assert (tmp_path / "kept.jsonl.before").read_bytes() == kept
            assert await sold.step(file) is GuardStep.WAIT
            gateway.clock.advance(601)
            assert await sold.step(file) is GuardStep.EXPORT

            def again(client: GatewayClient) -> int:
                with open(file, "rb") as opened:
                    return restore_session(client, CONTROLLER, sold.id, read_export(opened)).failed

            assert await sold.using(again) == 0, "storing it twice is harmless"
            assert await trio.to_thread.run_sync(held, url_of(second)) == before


async def test_what_the_node_has_learned_since_is_not_overtaken_by_what_was_kept(
    lasting: NodeProcess, tmp_path: Path
) -> None:
    async with running_gateway() as gateway:
        sold, file, url = await sell(gateway), tmp_path / "kept.jsonl", url_of(lasting)
        await sold.serves(url, "first")
        await trio.to_thread.run_sync(fill, url)
        assert await sold.step(file) is GuardStep.EXPORT
        await trio.to_thread.run_sync(move, url)

        def restore(client: GatewayClient) -> RestoredMemory:
            with open(file, "rb") as opened:
                return restore_session(client, CONTROLLER, sold.id, read_export(opened))

        restored = await sold.using(restore)
        assert (restored.overtaken, restored.is_whole) == (0, True), "the versions of then are all there"
        assert await trio.to_thread.run_sync(home, url) == ["home is Berlin"]
        with a_node(tmp_path / "other") as other:
            await sold.serves(url_of(other), "second")
            await trio.to_thread.run_sync(move, url_of(other))
            restored = await sold.using(restore)
            assert (restored.overtaken, restored.records) == (2, 74)
            assert await trio.to_thread.run_sync(home, url_of(other)) == ["home is Berlin"]
            assert await sold.memory() == "restored"


async def test_what_supersedes_something_that_was_deleted_is_restored(lasting: NodeProcess, tmp_path: Path) -> None:
    def plan(url: str) -> None:
        with NodeClient(url, CONTROLLER, namespace="plans") as mine:
            first = mine.ingest("the old plan")
            mine.update(first, "the new plan")
            mine.delete(first)

    def plans(url: str) -> list[str]:
        with NodeClient(url, CONTROLLER, namespace="plans") as mine:
            return [hit.text for hit in mine.query("plan")]

    async with running_gateway() as gateway:
        sold, file, url = await sell(gateway), tmp_path / "kept.jsonl", url_of(lasting)
        await sold.serves(url, "first")
        await trio.to_thread.run_sync(plan, url)
        assert await sold.step(file) is GuardStep.EXPORT
        with a_node(tmp_path / "other") as other:
            await sold.serves(url_of(other), "second")
            assert await sold.step(file) is GuardStep.RESTORE
            assert await trio.to_thread.run_sync(plans, url_of(other)) == ["the new plan"]


async def test_an_export_during_which_the_node_was_exchanged_is_not_kept(lasting: NodeProcess, tmp_path: Path) -> None:
    async with running_gateway() as gateway:
        sold, file, url = await sell(gateway), tmp_path / "kept.jsonl", url_of(lasting)
        await sold.serves(url, "first")
        assert await sold.step(file) is GuardStep.EXPORT
        kept = file.read_bytes()
        gateway.clock.advance(601)

        def step(client: GatewayClient) -> GuardStep:
            guard, get, looks = Guard(client, CONTROLLER, sold.id, file, clock=gateway.clock), client.get, []

            def seen(session_id: str) -> Session:
                looks.append(session_id)
                if len(looks) == 2:  # behind the export
                    trio.from_thread.run(sold.serves, url, "second")
                return get(session_id)

            client.get = seen  # type: ignore[method-assign]
            return guard.step()[1]

        assert await sold.using(step) is GuardStep.WAIT
        assert file.read_bytes() == kept
        assert [path.name for path in tmp_path.glob("*kept*")] == ["kept.jsonl"]


async def test_the_command_says_what_it_did_and_what_is_missing(
    lasting: NodeProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_gateway() as gateway:
        sold, file, url = await sell(gateway), tmp_path / "kept.jsonl", url_of(lasting)

        def look(client: GatewayClient) -> int | None:
            return guard_command.look(Guard(client, CONTROLLER, sold.id, file, clock=gateway.clock), file)

        async def says() -> str:
            assert await sold.using(look) is None
            return capsys.readouterr().err

        await sold.serves(url, "first")
        await sold.serves(url, "second")
        assert "the memory was lost, and there was no" in await says()
        await sold.serves(url, "third")
        assert "the node began again empty, and holds what is in" in await says()
        await sold.serves(url, "fourth")
        head, *_ = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(head + msgspec.json.encode(RECORD | {"embedding_b64": "?"}) + b"\n")
        with pytest.raises(CommandFailed, match=r"1 documents of .* are not: the session stays"):
            await sold.using(look)
        assert "record v1::1: " in capsys.readouterr().err
        await gateway.happen(sold.id, SessionEvent.END)
        await gateway.happen(sold.id, SessionEvent.DESTROYED)
        assert await sold.using(look) == 0
        assert "what its node held is in" in capsys.readouterr().err


def a_session(**changes: object) -> Session:
    session = Session(
        session_id="s",
        controller_hotkey=CONTROLLER.ss58,
        status="active",
        created_at=1.0,
        expires_at=2.0,
        node_endpoint="http://127.0.0.1:1",
        node_hotkey=NODE.ss58,
        remaining_seconds=1.0,
    )
    return msgspec.structs.replace(session, **changes)


def kept(emptied_at: float | None = None, exported_at: float = 0.0) -> KeptExport:
    return KeptExport(session_id="s", emptied_at=emptied_at, exported_at=exported_at)


@pytest.mark.parametrize(
    ("session", "file", "step"),
    [
        (a_session(), None, GuardStep.EXPORT),
        (a_session(), kept(exported_at=50.0), GuardStep.WAIT),
        (a_session(), kept(exported_at=39.0), GuardStep.EXPORT),
        (a_session(status="degraded"), None, GuardStep.WAIT),
        (a_session(node_endpoint=None), None, GuardStep.WAIT),
        (a_session(status="stopped"), kept(), GuardStep.END),
        (a_session(emptied_at=5.0), kept(), GuardStep.RESTORE),
        (a_session(emptied_at=5.0, status="degraded"), kept(), GuardStep.WAIT),
        (a_session(emptied_at=5.0), None, GuardStep.EXPORT),
        (a_session(emptied_at=5.0), kept(5.0, 50.0), GuardStep.WAIT),
        (a_session(emptied_at=9.0), kept(5.0, 50.0), GuardStep.RESTORE),
        (a_session(emptied_at=9.0, restored_at=10.0), kept(5.0, 90.0), GuardStep.EXPORT),
    ],
)
def test_what_a_guard_does_next(session: Session, file: KeptExport | None, step: GuardStep) -> None:
    assert next_step(session, file, 100.0, 60.5) is step


@pytest.mark.parametrize("text", ['{"kind":"record","id":1}\n', "no json\n", "", '{"kind":"guarded","session_id":7}\n'])
async def test_a_file_that_is_no_guarded_export_is_left_alone(tmp_path: Path, text: str) -> None:
    async with running_gateway() as gateway:
        sold, file = await sell(gateway), tmp_path / "kept.jsonl"
        file.write_text(text)
        with pytest.raises(ForeignExport, match=r"kept\.jsonl"):
            await sold.step(file)
        assert file.read_text() == text


async def test_the_file_of_another_session_is_left_alone(tmp_path: Path) -> None:
    async with running_gateway() as gateway:
        sold, file = await sell(gateway), tmp_path / "kept.jsonl"
        file.write_bytes(msgspec.json.encode(kept()) + b"\n")
        with pytest.raises(ForeignExport, match="of session s, not of"):
            await sold.step(file)


async def restored_by(real: NodeProcess, script: Callable[[Asked], Told], documents: list[Exported]) -> tuple[str, Any]:
    """What the session says after a restore into a node that answers by a script, and what came of it."""
    async with running_gateway() as gateway:
        sold = await sell(gateway)
        with scripted(partial(_or_real, script, real)) as url:
            await sold.serves(url_of(real), "first")
            await sold.serves(url, "second")

            def restore(client: GatewayClient) -> Any:
                try:
                    return restore_session(client, CONTROLLER, sold.id, documents, sleep=lambda _: None)
                except (ApiError, MalformedAnswer) as error:
                    return error

            outcome = await sold.using(restore)
            return await sold.memory(), outcome


def _or_real(script: Callable[[Asked], Told], real: NodeProcess, asked: Asked) -> Told:
    """The scripted answer to what stores something; the real node's for the rest."""
    if asked.method == "POST":
        return script(asked)
    with NodeClient(url_of(real)) as node:
        answer = node._transport.request(asked.method, asked.path)
    return Told(answer.status, answer.body)


async def test_a_memory_of_which_a_part_is_refused_stays_lost(lasting: NodeProcess) -> None:
    def script(asked: Asked) -> Told:
        if asked.path == "/IngestBatch":
            return Told(body=json.dumps({"results": [{"cid": None, "error": "no room"}], "stored": 0}).encode())
        return Told(400, b'{"error": "bad share", "code": "invalid"}')

    share = {"kind": "key_share", "id": 1, "namespace": "v", "share_index": 1, "share_hex": "00"}
    documents = [
        Exported("record", 1, RECORD),
        Exported("key_share", 1, share | {"threshold": 2, "total": 3}),
        Exported("attestation", 1, {}),
        Exported("a later kind", 1, {}),
    ]
    memory, outcome = await restored_by(lasting, script, documents)
    assert memory == "lost"
    assert (outcome.records, outcome.attestations, outcome.failed) == (0, 1, 2)
    assert outcome.failures == ("key share of v: bad share", "record v1::1: no room")


async def test_a_node_that_stores_something_else_has_not_restored_it(lasting: NodeProcess) -> None:
    body = json.dumps({"results": [{"cid": "v1::2"}], "stored": 1}).encode()
    memory, outcome = await restored_by(lasting, lambda _: Told(body=body), [Exported("record", 1, RECORD)])
    assert memory == "lost"
    assert outcome.failures == ("record v1::1: it is stored as v1::2",)


async def test_a_busy_node_is_asked_again_and_one_that_stays_busy_not_for_ever(lasting: NodeProcess) -> None:
    asked: list[str] = []
    good = json.dumps({"results": [{"cid": "v1::1"}], "stored": 1}).encode()

    def busy(request: Asked) -> Told:
        asked.append(request.path)
        return Told(503, b'{"error": "later", "code": "busy"}') if len(asked) < 3 else Told(body=good)

    memory, _ = await restored_by(lasting, busy, [Exported("record", 1, RECORD)])
    assert (memory, len(asked)) == ("restored", 3)
    memory, outcome = await restored_by(
        lasting, lambda _: Told(503, b'{"error": "later", "code": "busy"}'), [Exported("record", 1, RECORD)]
    )
    assert (memory, outcome.status) == ("lost", 503)


async def test_results_that_are_not_those_of_what_was_sent_are_no_answer(lasting: NodeProcess) -> None:
    none = Told(body=b'{"results": [], "stored": 0}')
    memory, outcome = await restored_by(lasting, lambda _: none, [Exported("record", 1, RECORD)])
    assert (memory, type(outcome)) == ("lost", MalformedAnswer)


@pytest.mark.parametrize("line", [b"no json\n", b"\xff\n", b'{"kind": "record"'])
def test_an_export_that_is_cut_is_told(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "e").write_bytes(b'{"kind": "record", "id": 1}\n{"kind": 7}\n' + line)
    with open(tmp_path / "e", "rb") as file:
        documents = read_export(file)
        assert next(documents).kind == "record"
        with pytest.raises(MalformedAnswer, match="line 3 of the export"):
            next(documents)
