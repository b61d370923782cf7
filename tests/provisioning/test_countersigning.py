"""The gateway signs by a hotkey what its node states, for clients that know no certificates; and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram import wire
from engram.clock import SystemClock
from engram.hotkeys import Keypair, certificates, verify
from engram.hotkeys.node_identity import Introduction
from engram.memory.proof import statements
from engram.memory.proof.statements import PossessionStatement, RootStatement, Statement
from engram.provisioning import countersigning, enrollment_rules, session_keys
from engram.provisioning.countersigning import Ask, Countersigner, NotCountersigned
from engram.provisioning.hotkey_ring import HotkeyRing
from tests.provisioning.foreign_nodes import TOKEN, Sold, sold


class Node:
    """A node that was enrolled, as the gateway's side of it."""

    def __init__(self, session: Sold) -> None:
        self.session = session
        self.keypair = Keypair.generate()
        self.countersigner = Countersigner(
            session.world.ledger, session.instants, HotkeyRing(session.folder / "hotkeys", lambda _: None)
        )
        self.certificate = self.certified(self.keypair, 0)

    def certified(self, keypair: Keypair, number: int) -> str:
        ledger, now = self.session.world.ledger, self.session.instants.now()
        found = ledger.write_now(lambda c: session_keys.launch(c, TOKEN, now, 30.0))
        assert found is not None
        shown = Introduction(
            hotkey=self.session.hotkey.public_key,
            key=keypair.public_key,
            box_key=b"\1" * 32,
            session_id="s",
            launch_token=TOKEN,
        )
        made = enrollment_rules.certificate(shown, found.expected, now.wall)
        ledger.write_now(lambda c: session_keys.note(c, shown, number, made.not_after, now.wall))
        return certificates.issue(self.session.hotkey, made)

    def root(self, **changed: Any) -> RootStatement:
        fields = {
            "form": "keyed-1",
            "namespace": "notes",
            "root_hex": "ab" * 32,
            "count": 3,
            "at_ms": int(SystemClock().now() * 1000),
        }
        return RootStatement(**{**fields, **changed})

    def ask(self, statement: Statement, keypair: Keypair | None = None, late_ms: int = 0) -> Ask:
        sent_at_ms = int(SystemClock().now() * 1000) - late_ms
        message = statement.message(self.session.hotkey.public_key)
        signature = (keypair or self.keypair).sign(statements.ask_message(message, sent_at_ms))
        return Ask(certificate=self.certificate, statement=statement, sent_at_ms=sent_at_ms, signature=signature)

    async def refused(self, ask: Ask) -> str:
        with pytest.raises(NotCountersigned) as caught:
            await self.countersigner.sign(ask)
        return caught.value.code


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with sold(tmp_path) as session:
        session.serve("http://127.0.0.1:9")
        yield Node(session)


async def test_a_root_and_a_proof_get_the_signature_of_the_hotkey(node: Node) -> None:
    hotkey = node.session.hotkey.public_key
    possession = PossessionStatement(
        validator_hex="00" * 32,
        nonce_hex="11" * 32,
        cid="v1::" + "0" * 64,
        namespace="__public__",
        root_hex="ab" * 32,
        count=1,
        expires_at=int(SystemClock().now()) + 60,
        proof_hex="cd" * 32,
    )
    for statement in (node.root(), node.root(namespace="whole", form="legacy"), possession):
        signature = await node.countersigner.sign(node.ask(statement))
        assert verify(hotkey, statement.message(hotkey), signature)


@pytest.mark.parametrize("changed", [{"at_ms": 5}, {"namespace": "a:b"}, {"namespace": "<Bytes>"}, {"namespace": ""}])
async def test_what_no_node_would_state_now_is_not_signed(node: Node, changed: dict[str, Any]) -> None:
    assert await node.refused(node.ask(node.root(**changed))) == "not_a_statement"


async def test_only_the_session_key_in_use_may_ask(node: Node) -> None:
    assert await node.refused(node.ask(node.root(), Keypair.generate())) == "bad_signature"
    assert await node.refused(node.ask(node.root(), late_ms=60_000)) == "stale"
    before, ask = node.certificate, node.ask(node.root())
    later = Keypair.generate()
    node.certificate = node.certified(later, 1)
    assert await node.refused(ask) == "unknown_key"
    mixed = msgspec.structs.replace(node.ask(node.root(), later), certificate=before)
    assert await node.refused(mixed) == "unknown_key"
    assert await node.countersigner.sign(node.ask(node.root(), later))


async def test_a_signature_of_one_statement_asks_for_no_other(node: Node) -> None:
    ask = node.ask(node.root())
    other = msgspec.structs.replace(ask, statement=node.root(root_hex="cd" * 32))
    assert await node.refused(other) == "bad_signature"
    assert await node.refused(msgspec.structs.replace(ask, sent_at_ms=ask.sent_at_ms + 1)) == "bad_signature"


async def test_after_the_session_the_hotkey_signs_nothing_for_its_node(node: Node) -> None:
    node.session.end()
    assert await node.refused(node.ask(node.root())) == "session_over"


async def test_a_certificate_that_a_node_made_itself_gets_nothing(node: Node) -> None:
    forged = msgspec.structs.replace(certificates.claimed(node.certificate), hotkey=node.keypair.ss58)
    ask = msgspec.structs.replace(node.ask(node.root()), certificate=certificates.issue(node.keypair, forged))
    assert await node.refused(ask) == "other_hotkey"
    for text in ("", "engram-cert-1.e30.e30"):
        assert await node.refused(msgspec.structs.replace(ask, certificate=text)) == "malformed"


async def test_a_node_may_ask_only_so_often(node: Node) -> None:
    for _ in range(countersigning.BURST):
        await node.countersigner.sign(node.ask(node.root()))
    with pytest.raises(NotCountersigned) as caught:
        await node.countersigner.sign(node.ask(node.root()))
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")
    assert caught.value.retry_after_s


@given(
    st.recursive(st.none() | st.text() | st.integers() | st.binary(), lambda inner: st.dictionaries(st.text(), inner))
)
def test_nothing_but_the_two_kinds_is_a_statement(junk: object) -> None:
    for told in (junk, {"type": "extrinsic"}, {"type": "root", "message": "anything"}):
        with pytest.raises(msgspec.ValidationError):
            wire.convert(told, Statement)


@given(
    st.sampled_from(["notes", "whole", "__public__"]),
    st.integers(0, 2**50),
    st.integers(0, 2**50),
)
def test_no_statement_is_a_message_of_another_scheme(namespace: str, count: int, at_ms: int) -> None:
    root = RootStatement(form="keyed-1", namespace=namespace, root_hex="00" * 32, count=count, at_ms=at_ms)
    message = root.message(bytes(32))
    assert message.startswith(b"engram-commitment:")
    assert not message.startswith((b"engram-cert-1", b"engram-ns:", b"<Bytes>", b"engram-node-"))
