"""Rounds of what is known of the managed nodes, from the poller's view into the outbox."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from sqlalchemy import Connection, select, update
from structlog.testing import capture_logs

from actors import ChildSpec, Job, SupervisorSpec, open_system
from config.model import RelaySettings
from engram.clock import TrioClock
from engram.hotkeys import WalletFileError, ss58
from engram.http.client import HttpClient
from engram.ledger import CommitUnknown, InlineLedger, open_inline
from engram.mcp.client import Called
from engram.mcp.remote import RemoteFailed
from engram.relay import records as relay_records
from engram.relay import rounds
from engram.relay.model import NodeMemory, SignedRoot, ToolCall
from engram.relay.negotiation import Terms, fitted
from engram.relay.rounds import CallsTool, MemoryRounds, RoundLosses, RoundPorts
from engram.relay.rules import memory_payload
from engram.relay.tables import relay_outbox
from engram.relay.tools import MAX_CONTENT, PayloadTool, payload_tool
from engram.sessions import Session, SessionState, TierName, records
from engram.sessions.tables import sessions
from engram.stats import NodeStats, StatsView
from engram.telemetry.metrics import Metrics
from tests.fakes.hints import RecordedHints
from tests.relay.samples import SIGNER, write

Clock = trio.testing.MockClock


@pytest.fixture
def ledger() -> Iterator[InlineLedger]:
    ledger = open_inline()
    yield ledger
    ledger.close()


def add_session(ledger: InlineLedger, number: int, *, has_node: bool = True) -> str:
    session = Session(
        id=f"s{number:04}",
        controller=b"\1" * 32,
        state=SessionState.ACTIVE,
        tier=TierName.LITE,
        paid_s=3600.0,
        amount_usd_micros=100_000,
        network="eip155:31337",
        payment_id=f"p{number}",
        created_at=1_000.0,
        node_hotkey=hotkey(number) if has_node else None,
    )
    write(ledger, lambda connection: records.insert_session(connection, session))
    return session.id


def hotkey(number: int) -> bytes:
    return (1000 + number).to_bytes(32, "big")


def place(connection: Connection, session_id: str) -> None:
    values = {"node_endpoint": f"http://{int(session_id[1:])}"}
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(values))


def queued(ledger: InlineLedger) -> list[dict[str, object]]:
    bodies = write(ledger, lambda c: c.scalars(select(relay_outbox.c.payload).order_by(relay_outbox.c.id)).all())
    return [json.loads(body) for body in bodies]


class Feeding:
    def __init__(self, ledger: InlineLedger) -> None:
        self.view = StatsView(TrioClock())
        self.block: int | None = 1100
        self.hints, self.metrics = RecordedHints(), Metrics()
        self.losses = RoundLosses(self.metrics)
        self.ports = RoundPorts(
            ledger=ledger,
            view=self.view,
            clock=TrioClock(),
            netuid=450,
            signer=SIGNER.hotkey,
            block=lambda: self.block,
            interval_s=600.0,
            hints=self.hints,
            losses=self.losses,
        )
        self.rounds = MemoryRounds(self.ports)

    def lost(self, reason: str) -> tuple[float | None, int]:
        """Payloads lost for that reason as the metric counts them, and all as /status does."""
        counted = self.metrics.registry.get_sample_value("engram_relay_not_queued_total", {"reason": reason})
        return counted, self.losses.payloads


async def test_a_round_holds_every_node_that_answered_in_it(ledger: InlineLedger, autojump_clock: Clock) -> None:
    feeding = Feeding(ledger)
    first, second = add_session(ledger, 1), add_session(ledger, 2)
    without = add_session(ledger, 3, has_node=False)
    feeding.view.put(first, NodeStats(vectors=1))
    await trio.sleep(601)
    feeding.view.put(second, NodeStats(vectors=22, proof_rate=0.5))
    feeding.view.put(without, NodeStats(vectors=3))
    assert await feeding.rounds.queue_round() == 1
    (payload,) = queued(ledger)
    assert (payload["kind"], payload["netuid"], payload["block"]) == ("memory", 450, 1100)
    nodes = payload["nodes"]
    assert isinstance(nodes, dict)
    assert list(nodes) == [ss58.encode(hotkey(2))]
    assert nodes[ss58.encode(hotkey(2))]["vectors"] == 22
    assert feeding.hints.given == ["outbox_changed"] * 2, "before the commit and after it"


async def test_no_payload_names_a_session_or_a_controller(ledger: InlineLedger, autojump_clock: Clock) -> None:
    feeding = Feeding(ledger)
    feeding.view.put(add_session(ledger, 1), NodeStats())
    await feeding.rounds.queue_round()
    text = msgspec.json.encode(queued(ledger)).decode()
    assert "s0001" not in text
    assert ss58.encode(b"\1" * 32) not in text


async def test_without_answers_or_a_block_nothing_is_queued(ledger: InlineLedger, autojump_clock: Clock) -> None:
    feeding = Feeding(ledger)
    assert await feeding.rounds.queue_round() == 0
    feeding.view.put(add_session(ledger, 1), NodeStats())
    feeding.block = None
    assert await feeding.rounds.queue_round() == 0
    assert (queued(ledger), feeding.hints.given) == ([], [])
    assert feeding.lost("no_block") == (1, 1)


async def test_what_a_full_outbox_refuses_is_logged_and_counted(
    ledger: InlineLedger, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "NODES_A_PAYLOAD", 1)
    monkeypatch.setattr("engram.relay.records.outbox.OPEN_BOUND", 2)
    monkeypatch.setattr(relay_records, "OPEN_BOUND", 2)
    feeding = Feeding(ledger)
    for number in range(5):
        feeding.view.put(add_session(ledger, number), NodeStats(vectors=number))
    with capture_logs() as lines:
        assert await feeding.rounds.queue_round() == 2
    assert (feeding.lost("outbox_full"), feeding.hints.given) == ((3, 3), ["outbox_changed"] * 2)
    (line,) = lines
    assert (line["event"], line["log_level"], line["reason"]) == ("relay_round_not_queued", "error", "outbox_full")
    assert (line["payloads"], line["bound"]) == (3, 2)


async def test_many_nodes_make_several_payloads(
    ledger: InlineLedger, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "NODES_A_PAYLOAD", 2)
    feeding = Feeding(ledger)
    for number in range(5):
        feeding.view.put(add_session(ledger, number), NodeStats(vectors=number))
    assert await feeding.rounds.queue_round() == 3
    payloads = queued(ledger)
    assert len({payload["nonce"] for payload in payloads}) == 3
    named = [name for payload in payloads for name in payload["nodes"]]  # type: ignore[attr-defined]  # JSON
    assert sorted(named) == sorted(ss58.encode(hotkey(number)) for number in range(5))


async def test_rounds_come_by_themselves(ledger: InlineLedger, autojump_clock: Clock) -> None:
    feeding = Feeding(ledger)
    session_id = add_session(ledger, 1)
    async with open_system(SupervisorSpec("root", [ChildSpec("rounds", lambda: Job(feeding.rounds.run))])):
        for number in range(3):
            feeding.view.put(session_id, NodeStats(vectors=number))
            await trio.sleep(600.5)
    assert len(queued(ledger)) == 3


async def test_a_ledger_that_cannot_write_costs_one_round(ledger: InlineLedger, autojump_clock: Clock) -> None:
    feeding = Feeding(ledger)
    feeding.view.put(add_session(ledger, 1), NodeStats())
    ledger.close()
    async with open_system(SupervisorSpec("root", [ChildSpec("rounds", lambda: Job(feeding.rounds.run))])) as system:
        await trio.sleep(601)
        assert all(node.restarts == 0 for node in system.tree())
    assert feeding.lost("ledger") == (1, 1)


async def test_a_round_whose_commit_is_unknown_is_not_counted_as_lost(
    ledger: InlineLedger, autojump_clock: Clock
) -> None:
    feeding = Feeding(ledger)
    feeding.view.put(add_session(ledger, 1), NodeStats())

    def lose_the_answer() -> None:
        ledger.after_commit = None
        raise CommitUnknown("the answer was lost")

    ledger.after_commit = lose_the_answer
    async with open_system(SupervisorSpec("root", [ChildSpec("rounds", lambda: Job(feeding.rounds.run))])) as system:
        with capture_logs() as lines:
            await trio.sleep(601)
        assert all(node.restarts == 0 for node in system.tree())
    assert len(queued(ledger)) == 1
    assert feeding.lost("ledger") == (0, 0)
    assert "relay_round_unknown" in [line["event"] for line in lines]


async def test_each_node_s_root_is_relayed_and_null_stands_for_none(ledger: InlineLedger) -> None:
    feeding = Feeding(ledger)
    asked: list[tuple[str, bytes, str]] = []
    found = SignedRoot(form="keyed-1", namespace="__public__", root_hex="ab" * 32, count=1, at_ms=2, signature="0x1")

    async def ask_root(endpoint: str, node: bytes, session_id: str) -> SignedRoot | None:
        asked.append((endpoint, node, session_id))
        return found if session_id == "s0001" else None

    feeding.rounds = MemoryRounds(msgspec.structs.replace(feeding.ports, ask_root=ask_root))
    for number in (1, 2, 3):
        session_id = add_session(ledger, number)
        feeding.view.put(session_id, NodeStats(vectors=number))
        if number < 3:
            write(ledger, lambda c, s=session_id: place(c, s))  # type: ignore[misc]
    assert await feeding.rounds.queue_round() == 1
    (payload,) = queued(ledger)
    assert payload["schema_version"] == "engram-v2"
    nodes = payload["nodes"]
    assert isinstance(nodes, dict)
    shown = [nodes[ss58.encode(hotkey(number))] for number in (1, 2, 3)]
    assert [(each["root_hex"], each["root"] is None) for each in shown] == [("ab" * 32, False), *[(None, True)] * 2]
    assert sorted(asked) == [(f"http://{n}", hotkey(n), f"s{n:04}") for n in (1, 2)]


async def test_nodes_that_hang_do_not_hold_a_round_up(ledger: InlineLedger, autojump_clock: Clock) -> None:
    feeding = Feeding(ledger)

    async def ask_root(endpoint: str, node: bytes, session_id: str) -> SignedRoot | None:
        await trio.sleep_forever()

    feeding.rounds = MemoryRounds(msgspec.structs.replace(feeding.ports, ask_root=ask_root))
    session_id = add_session(ledger, 1)
    write(ledger, lambda c: place(c, session_id))
    feeding.view.put(session_id, NodeStats(vectors=1))
    began = trio.current_time()
    assert await feeding.rounds.queue_round() == 1
    assert trio.current_time() - began == pytest.approx(rounds.ROOTS_WITHIN_S)


async def tool_round(ledger: InlineLedger, call_tool: CallsTool, **ports: Any) -> dict[str, Any]:
    """The payload of a round that asks nodes for roots and calls a tool."""

    async def no_root(endpoint: str, hotkey: bytes, session_id: str) -> None:
        return None

    feeding = Feeding(ledger)
    changed = msgspec.structs.replace(feeding.ports, call_tool=call_tool, **({"ask_root": no_root} | ports))
    feeding.view.put(add_session(ledger, 1), NodeStats(vectors=1))
    assert await MemoryRounds(changed).queue_round() == 1
    [payload] = queued(ledger)
    return payload


async def test_the_block_s_hash_is_kept_though_the_head_moves_on_while_roots_and_a_tool_are_awaited(
    ledger: InlineLedger, autojump_clock: Clock
) -> None:
    feeding = Feeding(ledger)
    hashes = {1100: b"\xaa" * 32, 1103: b"\xbb" * 32}

    def hash_of(block: int) -> bytes | None:
        """As `Subnets.hash_of`: of the newest finalized block alone."""
        return hashes[block] if block == feeding.block else None

    async def ask_root(endpoint: str, node: bytes, session_id: str) -> SignedRoot | None:
        await trio.sleep_forever()

    async def call_tool(netuid: int, block: int) -> ToolCall:
        feeding.block = 1103
        return ToolCall(server="s", tool="t", called_at=1.0, took_ms=2, status="ok", content="{}", content_sha256="")

    session_id = add_session(ledger, 1)
    write(ledger, lambda c: place(c, session_id))
    feeding.view.put(session_id, NodeStats(vectors=1))
    ports = msgspec.structs.replace(feeding.ports, block_hash=hash_of, ask_root=ask_root, call_tool=call_tool)
    assert await MemoryRounds(ports).queue_round() == 1
    kept = write(ledger, lambda c: c.execute(select(relay_outbox.c.block, relay_outbox.c.block_hash)).all())
    assert list(kept) == [(1100, b"\xaa" * 32)]


async def test_what_a_tool_says_is_recorded_with_the_payload(ledger: InlineLedger, autojump_clock: Clock) -> None:
    asked: list[dict[str, Any]] = []

    class Client:
        async def call(self, tool: str, arguments: dict[str, Any]) -> Called:
            asked.append({"tool": tool, **arguments})
            return Called({"content": [{"type": "text", "text": "1.07"}]}, is_error=False)

    payload = await tool_round(ledger, PayloadTool(Client(), "dex.example", "price", TrioClock()))  # type: ignore[arg-type]
    assert asked == [{"tool": "price", "netuid": 450, "block": 1100}]
    said = payload["tool"]
    assert (said["server"], said["tool"], said["status"]) == ("dex.example", "price", "ok")
    assert json.loads(said["content"])["content"][0]["text"] == "1.07"
    assert said["content_sha256"] == hashlib.sha256(said["content"].encode()).hexdigest()


async def test_a_tool_that_fails_holds_no_payload_up(ledger: InlineLedger, autojump_clock: Clock) -> None:
    class Client:
        async def call(self, tool: str, arguments: dict[str, Any]) -> Called:
            await trio.sleep(5)
            raise RemoteFailed("no answer within 5 s")

    payload = await tool_round(ledger, PayloadTool(Client(), "dex.example", "price", TrioClock()))  # type: ignore[arg-type]
    assert (payload["tool"]["status"], payload["tool"]["content"]) == ("failed", "no answer within 5 s")
    assert payload["tool"]["took_ms"] == 5_000
    assert payload["nodes"]


async def test_a_tool_s_own_error_and_a_long_answer_are_told_apart_and_cut(
    ledger: InlineLedger, autojump_clock: Clock
) -> None:
    class Client:
        async def call(self, tool: str, arguments: dict[str, Any]) -> Called:
            return Called({"content": [{"type": "text", "text": "x" * 100_000}]}, is_error=True)

    payload = await tool_round(ledger, PayloadTool(Client(), "dex.example", "price", TrioClock()))  # type: ignore[arg-type]
    assert payload["tool"]["status"] == "tool_error"
    assert len(payload["tool"]["content"]) == MAX_CONTENT


def test_a_payload_of_the_first_version_bears_no_tool() -> None:
    said = ToolCall(
        server="dex.example", tool="price", called_at=1.0, took_ms=2, status="ok", content="{}", content_sha256=""
    )
    about: dict[str, Any] = {"netuid": 450, "block": 9, "source": "nodes0", "round_ts": 1.0, "tool": said}
    assert memory_payload({"5abc": NodeMemory(vectors=1)}, **about).tool is msgspec.UNSET
    second = memory_payload({"5abc": NodeMemory(vectors=1, root=None)}, **about)
    assert second.tool == said
    first = fitted("memory", msgspec.json.encode(second), Terms({"memory": ("engram-v1",)}))
    assert first is not None
    assert "tool" not in json.loads(first.payload)


def test_a_tool_is_made_of_the_settings(tmp_path: Path) -> None:
    assert payload_tool(HttpClient(), TrioClock(), RelaySettings()) is None
    token = tmp_path / "token"
    token.write_text("secret\n", encoding="utf-8")
    token.chmod(0o600)
    named = RelaySettings(tool_url="https://dex.example/mcp", tool="price", tool_token_file=str(token))
    assert payload_tool(HttpClient(), TrioClock(), named) is not None
    with pytest.raises(WalletFileError):
        payload_tool(HttpClient(), TrioClock(), msgspec.structs.replace(named, tool_token_file=str(tmp_path / "none")))
