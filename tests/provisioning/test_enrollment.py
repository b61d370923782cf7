"""The gateway and a node on a machine of somebody else, and everything that this somebody may try."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import select

from engram.clock import SystemClock
from engram.hotkeys import Keypair, certificates, node_identity, sealed, ss58
from engram.hotkeys.certificates import CertificateRefused
from engram.hotkeys.node_identity import Introduction
from engram.provisioning import certifier, enrollment_rules, session_keys
from engram.provisioning.tables import node_session_keys
from engram.sdk import NodeClient
from engram.sdk.errors import Impostor
from engram.sessions import SessionState
from tests.fakes.responder import Answer, Asked, Responder
from tests.provisioning.foreign_nodes import BUYER, TOKEN, Sold, sold


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Sold]:
    async with sold(tmp_path) as made:
        yield made


class Provider:
    """What a provider may put in the place of a node: it has read the launch, and signs by keys of its own."""

    def __init__(self, session: Sold) -> None:
        self.session = session
        self.keypair = Keypair.generate()
        self.box = sealed.BoxKey()
        self.changed: dict[str, Any] = {}
        self.health: dict[str, Any] = {}
        self.recorded: bytes | None = None
        self.certificate: str | None = None

    async def answer(self, asked: Asked) -> Answer:
        if asked.target == "/health":
            told = {"status": "ok", "ready": True, "launch_token": TOKEN, "protocol": 2, **self.health}
            return 200, {}, json.dumps(told).encode()
        if asked.method == "POST":
            self.certificate = json.loads(asked.body)["certificate"]
            return 200, {}, b'{"accepted": true}'
        if self.recorded is not None:
            return 200, {}, self.recorded
        nonce = bytes.fromhex(re.findall(r"nonce_hex=(\w+)", asked.target)[0])
        shown = Introduction(
            hotkey=self.session.hotkey.public_key,
            key=self.keypair.public_key,
            box_key=self.box.public,
            session_id="s",
            launch_token=TOKEN,
        )
        told = {
            "protocol": 2,
            "hotkey": ss58.encode(shown.hotkey),
            "key": self.keypair.ss58,
            "box_key": shown.box_key.hex(),
            "session_id": "s",
            "launch_token": TOKEN,
            "signature": node_identity.sign(self.keypair, shown, nonce).hex(),
            "certificate": self.certificate,
            **self.changed,
        }
        return 200, {}, json.dumps(told).encode()


class Hanging(Provider):
    """Answers everything, and hangs when it is asked who it is."""

    hangs = False

    async def answer(self, asked: Asked) -> Answer:
        if self.hangs and asked.target.startswith("/identity"):
            await trio.sleep_forever()
        return await super().answer(asked)


def keys_of(session: Sold) -> list[bytes]:
    rows = session.world.ledger.write_now(lambda c: c.execute(select(node_session_keys.c.session_key)).scalars().all())
    return list(rows)


async def test_a_node_on_a_foreign_machine_is_enrolled_and_its_roots_count_as_its_hotkeys(
    session: Sold, tmp_path: Path
) -> None:
    with session.node(tmp_path / "data") as endpoint:
        await session.until_answering(endpoint)
        await session.until_healthy(endpoint)
        assert len(keys_of(session)) == 1
        session.serve(endpoint)

        def use() -> None:
            with NodeClient(endpoint, BUYER, namespace="notes") as notes:
                cid = notes.ingest_text("Otters hold hands.")
                assert notes.prove(cid, session.hotkey.public_key)
                assert [each.cid for each in notes.walk(node=session.hotkey.public_key)] == [cid]
                with pytest.raises(Impostor):
                    notes.prove(cid, Keypair.generate().public_key)
            for session_id in ("s", "another"):
                with NodeClient(endpoint, BUYER, namespace="notes", session_id=session_id) as notes:
                    if session_id == "s":
                        assert notes.prove(cid, session.hotkey.public_key)
                        continue
                    with pytest.raises(Impostor, match="is of session s"):
                        notes.prove(cid, session.hotkey.public_key)

        await trio.to_thread.run_sync(use)
        await certifier.sweep(session.certifier)
        assert session.world.state() == SessionState.ACTIVE
    read = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    for secret in (session.hotkey.private_key()[:32], session.hotkey.private_key()[32:]):
        assert secret not in read
        assert secret.hex().encode() not in read


async def test_a_node_that_was_started_again_shows_another_key_and_is_taken_back_by_its_saga(
    session: Sold, tmp_path: Path
) -> None:
    with session.node(tmp_path / "data") as endpoint:
        await session.until_healthy(endpoint)
        session.serve(endpoint)
    with session.node(tmp_path / "data") as endpoint:
        session.serve(endpoint)
        await session.until_answering(endpoint)
        await certifier.sweep(session.certifier)
        assert session.world.state() == SessionState.DEGRADED
        assert session.enrollment.is_suspect(endpoint)
        await session.until_healthy(endpoint)
        assert not session.enrollment.is_suspect(endpoint)
        assert len(keys_of(session)) == 2


async def test_a_provider_that_answers_in_the_nodes_place_later_is_noticed(session: Sold) -> None:
    provider = Provider(session)
    responder = Responder(provider.answer)
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(responder.run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        session.serve(endpoint)
        await certifier.sweep(session.certifier)
        assert session.world.state() == SessionState.ACTIVE
        provider.keypair = Keypair.generate()
        await certifier.sweep(session.certifier)
        assert session.world.state() == SessionState.DEGRADED
        assert session.world.hints.given == ["node_turned s", "session_changed s"]
        assert session.enrollment.is_suspect(endpoint)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [b"<html>", b'{"status": "ok"}', b"x" * 100_000])
async def test_what_answers_and_introduces_itself_as_no_node_does_is_noticed(session: Sold, answer: bytes) -> None:
    """Its /health and /stats are those of the node; silence alone would be left to the polls."""
    provider = Provider(session)
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        session.serve(endpoint)
        provider.recorded = answer
        await certifier.sweep(session.certifier)
        assert session.world.state() == SessionState.DEGRADED
        assert session.enrollment.is_suspect(endpoint)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "changed",
    [
        {"session_id": "another"},
        {"launch_token": "another"},
        {"hotkey": BUYER.ss58},
        {"signature": "00" * 64},
        {"signature": "zz"},
        {"key": "nobody"},
        {"box_key": "00"},
    ],
)
async def test_what_is_not_an_introduction_of_this_launch_is_not_certified(
    session: Sold, changed: dict[str, str]
) -> None:
    provider = Provider(session)
    provider.changed = changed
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        assert session.enrollment.is_suspect(endpoint)
        assert provider.certificate is None
        assert keys_of(session) == []
        nursery.cancel_scope.cancel()


async def test_an_introduction_that_was_recorded_is_worth_nothing(session: Sold) -> None:
    provider = Provider(session)
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        recorded = await session.http.request("GET", f"{endpoint}/identity?nonce_hex={'11' * 32}")
        provider.recorded = recorded.content
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        nursery.cancel_scope.cancel()


async def test_a_node_without_its_hotkey_is_not_believed_on_our_own_machine(tmp_path: Path) -> None:
    async with sold(tmp_path, backend="local") as session, trio.open_nursery() as nursery:
        provider = Provider(session)
        endpoint = await nursery.start(Responder(provider.answer).run)
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        provider.health = {"protocol": 1}
        assert await session.enrollment.is_healthy(endpoint, TOKEN)  # a node of the version before, which has its key
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("protocol", "driven"), [(0, False), (1, False), (2, True), (3, False)])
async def test_a_gateway_drives_nodes_of_versions_that_it_knows(session: Sold, protocol: int, driven: bool) -> None:
    provider = Provider(session)
    provider.health = {"protocol": protocol}
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN) is driven
        nursery.cancel_scope.cancel()


async def test_a_node_that_keeps_running_after_the_end_is_certified_no_longer(session: Sold) -> None:
    provider = Provider(session)
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        session.serve(endpoint)
        text = provider.certificate
        assert text is not None
        session.end()
        provider.certificate = None
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        assert not await session.enrollment.attend(endpoint, TOKEN, launching=True)
        assert provider.certificate is None
        hotkey, now = session.hotkey.public_key, SystemClock().now()
        until = certificates.check(text, hotkey=hotkey, at=now).not_after
        assert until - now <= enrollment_rules.VALID_S
        with pytest.raises(CertificateRefused, match="valid until"):
            certificates.check(text, hotkey=hotkey, at=until + certificates.LEEWAY_S + 1)
        nursery.cancel_scope.cancel()


async def test_what_a_provider_was_given_is_no_good_for_another_session_or_launch(session: Sold) -> None:
    provider = Provider(session)
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        text, now = provider.certificate or "", SystemClock().now()
        for known in ({"session_id": "another"}, {"controller": Keypair.generate().public_key}):
            with pytest.raises(CertificateRefused):
                certificates.check(text, hotkey=session.hotkey.public_key, at=now, **known)
        assert not await session.enrollment.is_healthy(endpoint, "ledger-t2")
        nursery.cancel_scope.cancel()


async def test_a_key_is_on_disk_before_its_certificate_leaves(session: Sold) -> None:
    provider, seen = Provider(session), list[bytes]()

    async def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            seen.extend(keys_of(session))
        return await provider.answer(asked)

    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(answer).run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        assert seen == [provider.keypair.public_key]
        nursery.cancel_scope.cancel()


async def test_a_certificate_that_did_not_arrive_is_sent_again_for_the_same_key(session: Sold) -> None:
    provider, lost = Provider(session), [True, False]

    async def answer(asked: Asked) -> Answer | None:
        if asked.method == "POST" and lost.pop(0):
            return None
        return await provider.answer(asked)

    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(answer).run)
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        assert len(keys_of(session)) == 1
        nursery.cancel_scope.cancel()


async def test_another_gateway_process_goes_on_with_the_keys_of_the_ledger(session: Sold) -> None:
    provider = Provider(session)
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        later = session.new_enrollment()
        assert await later.attend(endpoint, TOKEN, launching=False)
        provider.keypair = Keypair.generate()
        assert not await later.attend(endpoint, TOKEN, launching=False)
        nursery.cancel_scope.cancel()


async def test_what_serves_and_is_silent_about_who_it_is_alone_is_noticed(session: Sold, autojump_clock: None) -> None:
    """It answers /health and /stats as the node did, so that no poll misses it, and hangs when asked for its key."""
    provider = Hanging(session)
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        session.serve(endpoint)
        # The third look is answered: it was only slow, and the count begins again.
        for looks, hangs in ((2, True), (1, False), (2, True)):
            provider.hangs = hangs
            for _ in range(looks):
                await certifier.sweep(session.certifier)
                assert session.world.state() == SessionState.ACTIVE
        await certifier.sweep(session.certifier)
        assert session.world.state() == SessionState.DEGRADED
        assert session.enrollment.is_suspect(endpoint)
        assert not await session.enrollment.is_healthy(endpoint, TOKEN)
        provider.hangs = False
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        assert not session.enrollment.is_suspect(endpoint)
        nursery.cancel_scope.cancel()


async def test_a_silent_node_that_serves_is_no_impostor(session: Sold) -> None:
    assert await session.enrollment.attend("http://127.0.0.1:9", TOKEN, launching=False)
    assert not await session.enrollment.attend("http://127.0.0.1:9", TOKEN, launching=True)
    assert not session.enrollment.is_suspect("http://127.0.0.1:9")


async def test_the_key_in_use_names_its_launch_and_the_one_before_does_not(session: Sold) -> None:
    provider = Provider(session)
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(Responder(provider.answer).run)
        first = provider.keypair.public_key
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        provider.keypair = Keypair.generate()
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        ledger = session.world.ledger
        assert ledger.write_now(lambda c: session_keys.holder(c, first)) is None
        assert ledger.write_now(lambda c: session_keys.holder(c, provider.keypair.public_key)) == TOKEN
        nursery.cancel_scope.cancel()
