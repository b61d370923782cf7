"""What a provider does with the nodes on its machines, and what it forges."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from config.model import DockerSettings, Settings
from engram.clock import SystemClock
from engram.hotkeys import Keypair, certificates, node_identity, sealed, ss58
from engram.hotkeys.certificates import Certificate, CertificateRefused
from engram.miner.errors import Refused
from engram.miner.signer import Signer
from engram.nodes.agreement import NodeSecrets
from engram.provisioning import certifier, node_keys, records, session_keys
from engram.provisioning.backend_factory import with_hotkeys
from engram.provisioning.enrollment_rules import KEYS_WITHIN_S, MOST_KEYS
from engram.provisioning.model import NodeRecord, NodeState
from engram.provisioning.tables import node_session_keys
from engram.sessions import SessionEvent, SessionState
from engram.sessions import records as session_records
from tests.fakes.responder import Answer, Asked, Responder
from tests.provisioning.foreign_nodes import BUYER, TOKEN, Sold, sold
from tests.provisioning.test_enrollment import Provider, keys_of

OTHER_TOKEN = "ledger-t2"
DEEP = b'{"x":' + b"[" * 5_000


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Sold]:
    async with sold(tmp_path) as made:
        yield made


class Neighbor(Provider):
    """The provider's part of a second session, whose node is on the same machine."""

    def __init__(self, session: Sold) -> None:
        super().__init__(session)
        self.hotkey = Keypair.generate()
        path = node_keys.write_key(session.folder / "hotkeys", self.hotkey)
        ledger = session.world.ledger
        session.world.sell("s2")
        add = partial(node_keys.add, public_key=self.hotkey.public_key, path=path, source="generated", at=1.0)
        ledger.write_now(lambda c: add(c))
        ledger.write_now(lambda c: node_keys.lease(c, "s2", BUYER.public_key, 0.0))
        node = NodeRecord(
            token=OTHER_TOKEN,
            session_id="s2",
            backend="akash",
            state=NodeState.LAUNCHING,
            port=None,
            reference=None,
            hotkey=self.hotkey.public_key,
            created_at=0.0,
        )
        ledger.write_now(lambda c: records.insert_launching(c, node))
        self.health = {"launch_token": OTHER_TOKEN}

    async def answer(self, asked: Asked) -> Answer:
        """Introduces itself as the node of its own session."""
        if not asked.target.startswith("/identity"):
            return await super().answer(asked)
        shown = node_identity.Introduction(
            hotkey=self.hotkey.public_key,
            key=self.keypair.public_key,
            box_key=self.box.public,
            session_id="s2",
            launch_token=OTHER_TOKEN,
        )
        nonce = bytes.fromhex(asked.target.partition("nonce_hex=")[2])
        self.changed = {
            "hotkey": self.hotkey.ss58,
            "session_id": "s2",
            "launch_token": OTHER_TOKEN,
            "signature": node_identity.sign(self.keypair, shown, nonce).hex(),
        }
        return await super().answer(asked)

    def serve(self, endpoint: str) -> None:
        key, ledger = self.hotkey.public_key, self.session.world.ledger
        ledger.write_now(lambda c: session_records.set_node(c, "s2", OTHER_TOKEN, endpoint, key))
        self.session.world.happens(SessionEvent.NODE_READY, "s2")


@asynccontextmanager
async def two_nodes(session: Sold) -> AsyncIterator[tuple[Provider, str, Neighbor, str]]:
    one, other = Provider(session), Neighbor(session)
    async with trio.open_nursery() as nursery:
        first = await nursery.start(Responder(one.answer).run)
        second = await nursery.start(Responder(other.answer).run)
        yield one, first, other, second
        nursery.cancel_scope.cancel()


async def test_two_nodes_with_one_session_key_are_one_node(session: Sold) -> None:
    """Its owner would have the statements of one session signed by the other's hotkey."""
    async with two_nodes(session) as (one, first, other, second):
        assert await session.enrollment.is_healthy(first, TOKEN)
        own, other.keypair = other.keypair, one.keypair
        assert not await session.enrollment.is_healthy(second, OTHER_TOKEN)
        assert other.certificate is None
        ledger = session.world.ledger
        assert ledger.write_now(lambda c: session_keys.holder(c, one.keypair.public_key)) == TOKEN
        other.keypair = own
        assert await session.enrollment.is_healthy(second, OTHER_TOKEN)


async def test_nodes_that_change_places_are_noticed_and_get_no_certificate_of_each_other(session: Sold) -> None:
    async with two_nodes(session) as (one, first, other, second):
        assert await session.enrollment.is_healthy(first, TOKEN)
        assert await session.enrollment.is_healthy(second, OTHER_TOKEN)
        session.serve(second)
        other.serve(first)
        one.certificate = other.certificate = None
        await certifier.sweep(session.certifier)
        assert (one.certificate, other.certificate) == (None, None)
        assert {session.world.state("s"), session.world.state("s2")} == {SessionState.DEGRADED}
        assert not await session.enrollment.is_healthy(second, TOKEN)


def zero_box(provider: Provider) -> None:
    """A point of small order: whatever is sealed to it, everybody can open."""
    provider.box = sealed.BoxKey()
    provider.box.public = bytes(32)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(zero_box, id="a box key of small order"),
        pytest.param(lambda provider: setattr(provider, "recorded", DEEP), id="an introduction nested too deep"),
        pytest.param(lambda provider: setattr(provider, "recorded", b"\xff"), id="no JSON"),
        pytest.param(lambda provider: provider.changed.update(key="1" * 70_000), id="an endless key"),
        pytest.param(lambda provider: provider.changed.update(signature="\ufffd"), id="a signature that is no hex"),
        pytest.param(lambda provider: provider.changed.update(session_id="s\0"), id="a session that is none"),
        pytest.param(lambda provider: provider.changed.update(protocol="2"), id="a version that is no number"),
    ],
)
async def test_one_bad_node_keeps_no_other_from_its_certificate(
    tmp_path: Path, spoil: Callable[[Provider], None]
) -> None:
    """Whatever it answers, the sweep goes on; and the secrets are sealed to no key that is none."""
    async with sold(tmp_path, NodeSecrets(embedding_api_key="k")) as session, two_nodes(session) as nodes:
        one, first, other, second = nodes
        assert await session.enrollment.is_healthy(first, TOKEN)
        assert await session.enrollment.is_healthy(second, OTHER_TOKEN)
        session.serve(first)
        other.serve(second)
        for each in (one, other):
            each.certificate = None
        spoil(one)
        await certifier.sweep(session.certifier)
        assert session.world.state("s") == SessionState.DEGRADED
        assert other.certificate is not None
        assert not await session.enrollment.is_healthy(first, TOKEN)


@pytest.mark.parametrize(
    "content",
    [DEEP, b"[]", b"\xff\xfe", b'{"protocol": 1e400}', b""],
    ids=["too deep", "a list", "no text", "no number", "nothing"],
)
async def test_no_health_of_a_node_ends_a_saga(session: Sold, content: bytes) -> None:
    async def answer(asked: Asked) -> Answer:
        return 200, {}, content

    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(answer).run)
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        nursery.cancel_scope.cancel()


async def test_no_answer_to_a_certificate_ends_a_saga(session: Sold) -> None:
    provider = Provider(session)

    async def answer(asked: Asked) -> Answer:
        return (200, {}, DEEP) if asked.method == "POST" else await provider.answer(asked)

    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(answer).run)
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("given", "is_node"), [(True, False), (False, True)])
async def test_where_nodes_have_their_hotkeys_no_other_key_is_believed(
    tmp_path: Path, given: bool, is_node: bool
) -> None:
    """The launch token is no secret: another user of the engine's machine may take the port of a node that is down."""
    docker = DockerSettings(host="unix:///run/docker.sock" if given else "tcp://10.0.0.5:2376")
    async with sold(tmp_path, backend="docker") as session, trio.open_nursery() as nursery:
        provider = Provider(session)
        endpoint = await nursery.start(Responder(provider.answer).run)
        enrollment = session.new_enrollment(given=with_hotkeys(Settings(docker=docker)))
        assert await enrollment.is_healthy(endpoint, TOKEN) is is_node
        assert (provider.certificate is not None) is is_node
        nursery.cancel_scope.cancel()


async def test_a_node_that_is_started_again_too_often_waits_for_a_day(session: Sold) -> None:
    provider, ledger = Provider(session), session.world.ledger
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        for _ in range(MOST_KEYS):
            provider.keypair = Keypair.generate()
            assert await session.enrollment.is_healthy(endpoint, TOKEN)
        provider.keypair = Keypair.generate()
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        shown_at = node_session_keys.c.shown_at
        ledger.write_now(lambda c: c.execute(update(node_session_keys).values(shown_at=shown_at - KEYS_WITHIN_S)))
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        assert len(keys_of(session)) == MOST_KEYS + 1
        nursery.cancel_scope.cancel()


# What a certificate says, forged in every field.

HOTKEY, OTHER = Keypair.generate(), Keypair.generate()
NOW = int(SystemClock().now())
SIGNER = Signer.with_session_key(HOTKEY.public_key)
SHOWN = SIGNER.introduction("s", TOKEN)
TRUE = Certificate(
    hotkey=HOTKEY.ss58,
    session_key=ss58.encode(SHOWN.key),
    box_key=SHOWN.box_key.hex(),
    controller=BUYER.ss58,
    session_id="s",
    launch_token=TOKEN,
    not_before=NOW,
    not_after=NOW + 600,
    ends_at=NOW + 3_600,
)
FORGED: dict[str, Any] = {
    "hotkey": OTHER.ss58,
    "session_key": OTHER.ss58,
    "box_key": "11" * 32,
    "controller": OTHER.ss58,
    "session_id": "s2",
    "launch_token": OTHER_TOKEN,
    "not_before": NOW + 1,
    "not_after": NOW + 9_000_000,
    "ends_at": NOW + 9_000_000,
    "secrets": "ab" * 32,
}


def signed_by(keypair: Keypair, certificate: Certificate) -> str:
    """What somebody makes who has that key and not the hotkey's."""
    text = certificates.issue(keypair, msgspec.structs.replace(certificate, hotkey=keypair.ss58))
    prefix, _, signature = text.split(".")
    payload = certificates._encoded(msgspec.json.encode(certificate))
    signature = certificates._encoded(keypair.sign(f"{prefix}.{payload}".encode()))
    return f"{prefix}.{payload}.{signature}"


def test_every_field_is_forged_once() -> None:
    assert FORGED.keys() == {field.name for field in msgspec.structs.fields(Certificate)}


@pytest.mark.parametrize("field", FORGED)
def test_a_field_that_is_forged_is_believed_by_nobody(field: str) -> None:
    forged = msgspec.structs.replace(TRUE, **{field: FORGED[field]})
    _, _, signature = certificates.issue(HOTKEY, TRUE).split(".")
    payload = certificates._encoded(msgspec.json.encode(forged))
    for text in (f"{certificates.PREFIX}.{payload}.{signature}", signed_by(OTHER, forged)):
        with pytest.raises(CertificateRefused):
            certificates.check(text, hotkey=HOTKEY.public_key, at=NOW)
        with pytest.raises(Refused):
            SIGNER.accept(text, SHOWN, b"", NOW)
    assert SIGNER.certificate is None


@pytest.mark.parametrize("field", ["hotkey", "session_key", "box_key", "session_id", "launch_token", "secrets"])
def test_a_node_takes_no_true_certificate_of_another(field: str) -> None:
    """As a provider of two nodes of one hotkey, one after the other, would deliver it."""
    other = msgspec.structs.replace(TRUE, **{field: FORGED[field]})
    issuer = OTHER if field == "hotkey" else HOTKEY
    with pytest.raises(Refused):
        SIGNER.accept(certificates.issue(issuer, other), SHOWN, b"", NOW)
    assert SIGNER.certificate is None


@given(st.integers(0, len(certificates.issue(HOTKEY, TRUE)) - 1), st.text(max_size=3))
def test_a_certificate_that_is_cut_is_malformed_or_not_signed(length: int, more: str) -> None:
    text = certificates.issue(HOTKEY, TRUE)[:length] + more
    with pytest.raises(CertificateRefused) as refused:
        certificates.check(text, hotkey=HOTKEY.public_key, at=NOW)
    assert refused.value.code in ("malformed", "bad_signature")


@given(st.sampled_from(sorted(FORGED)), st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just([[]]))
def test_a_field_of_another_kind_is_refused_by_name(field: str, value: object) -> None:
    """Even signed by the hotkey: what is read is what a certificate is."""
    fields = msgspec.to_builtins(TRUE) | {field: value}
    signed = f"{certificates.PREFIX}.{certificates._encoded(json.dumps(fields).encode())}"
    text = f"{signed}.{certificates._encoded(HOTKEY.sign(signed.encode()))}"
    try:
        found = certificates.check(text, hotkey=HOTKEY.public_key, at=NOW, session_id="s", controller=BUYER.public_key)
    except CertificateRefused:
        return
    assert type(getattr(found, field)) is type(getattr(TRUE, field))
