"""A node whose hotkey stays with the gateway: it introduces itself, is certified, and signs under its certificate."""

import base64
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.model import HttpSettings
from engram.api.node_model import Introduced
from engram.clock import ManualClock, SeededIds
from engram.hotkeys import Keypair, certificates, node_identity, sealed, ss58
from engram.hotkeys.certificates import Certificate
from engram.hotkeys.node_identity import Introduction
from engram.miner.app import make_app
from engram.miner.lifetime import Lifetime
from engram.miner.service import Service
from engram.miner.signer import Signer
from engram.nodes.agreement import PROTOCOL, NodeSecrets
from engram.sdk.errors import Impostor
from engram.sdk.node_calls import NodeCalls
from engram.sdk.transport import Answer
from tests.http.asgi_client import AsgiClient
from tests.miner.nodes import CONTROLLER, NODE, STRANGER, encoded, serving

NOW = 1_800_000_000


class Foreign:
    """A node with a session key and what its gateway would send it."""

    def __init__(self, service: Service, clock: ManualClock) -> None:
        self.service = service
        self.clock = clock
        app = make_app(
            service,
            settings=HttpSettings(requests_per_minute_per_ip=0),
            clock=clock,
            ids=SeededIds(1),
            metrics=service.metrics,
        )
        self.client: AsgiClient = AsgiClient(app)

    async def introduced(self, nonce: bytes = bytes(32)) -> Introduced:
        answer = await self.client.get("/identity", query_string={"nonce_hex": nonce.hex()})
        assert answer.status_code == 200
        return msgspec.json.decode(await answer.get_data(), type=Introduced)

    async def certificate(self, **changed: Any) -> Certificate:
        shown = await self.introduced()
        fields = {
            "hotkey": NODE.ss58,
            "session_key": shown.key,
            "box_key": shown.box_key,
            "controller": CONTROLLER.ss58,
            "session_id": "session",
            "launch_token": "token",
            "not_before": NOW,
            "not_after": NOW + 600,
            "ends_at": NOW + 3_600,
        }
        return Certificate(**{**fields, **changed})

    async def certify(self, text: str, content: bytes = b"") -> tuple[int, str]:
        body = encoded({"certificate": text, "sealed": base64.b64encode(content).decode()})
        answer = await self.client.post("/certificate", data=body)
        return answer.status_code, (await answer.get_json()).get("code", "")

    async def root(self) -> Answer:
        answer = await self.client.get("/commitment")
        return Answer(answer.status_code, {}, bytes(await answer.get_data(as_text=False)))


@pytest.fixture
async def foreign(tmp_path: Path) -> AsyncIterator[Foreign]:
    clock = ManualClock(NOW)
    async with serving(tmp_path, clock=clock, signer=Signer.with_session_key(NODE.public_key)) as service:
        yield Foreign(service, clock)


async def test_an_introduction_is_signed_for_the_nonce_by_the_key_it_shows(foreign: Foreign) -> None:
    nonce = secrets.token_bytes(32)
    shown = await foreign.introduced(nonce)
    assert (shown.hotkey, shown.protocol, shown.certificate) == (NODE.ss58, PROTOCOL, None)
    said = Introduction(
        hotkey=NODE.public_key,
        key=ss58.decode(shown.key),
        box_key=bytes.fromhex(shown.box_key),
        session_id="session",
        launch_token="token",
    )
    assert shown.key != NODE.ss58
    assert node_identity.holds(said, nonce, bytes.fromhex(shown.signature))
    assert not node_identity.holds(said, secrets.token_bytes(32), bytes.fromhex(shown.signature))


@pytest.mark.parametrize("nonce", ["", "00", "zz" * 32, "00" * 33])
async def test_a_nonce_has_32_bytes(foreign: Foreign, nonce: str) -> None:
    assert (await foreign.client.get("/identity", query_string={"nonce_hex": nonce})).status_code == 400


async def test_what_the_node_signs_counts_once_it_is_certified_and_until_that_ends(foreign: Foreign) -> None:
    calls = NodeCalls(foreign.clock).commitment(NODE.public_key)
    uncertified = await foreign.root()
    assert (uncertified.status, msgspec.json.decode(uncertified.body)["code"]) == (503, "not_certified")
    assert await foreign.certify(certificates.issue(NODE, await foreign.certificate())) == (200, "")
    answer = await foreign.root()
    assert calls.read(answer).count == 0
    with pytest.raises(Impostor, match="is of hotkey"):
        NodeCalls(foreign.clock).commitment(STRANGER.public_key).read(answer)
    foreign.clock.advance(700)
    with pytest.raises(Impostor, match="valid until"):
        calls.read(await foreign.root())


async def test_the_keys_of_a_session_are_on_no_disk(foreign: Foreign, tmp_path: Path) -> None:
    await foreign.certify(certificates.issue(NODE, await foreign.certificate()))
    await foreign.client.post("/IngestSynapse", data=encoded({"text": "a"}))
    await foreign.root()
    private = foreign.service.identity.signer._keypair.private_key()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for secret in (private[:32], private[32:]):
        for spelled in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert not [file for file in files if spelled in file]


async def test_a_root_that_somebody_kept_is_an_impostors(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with serving(tmp_path, clock=clock) as service:
        node = Foreign(service, clock)
        kept = await node.root()
        calls = NodeCalls(clock).commitment(NODE.public_key)
        assert calls.read(kept).count == 0
        clock.advance(601)
        with pytest.raises(Impostor, match="more than 600 s from now"):
            calls.read(kept)


async def test_a_root_without_its_certificate_or_with_that_of_another_node_is_an_impostors(foreign: Foreign) -> None:
    await foreign.certify(certificates.issue(NODE, await foreign.certificate()))
    told = msgspec.json.decode((await foreign.root()).body)
    other = Keypair.generate()
    for certificate in (None, certificates.issue(NODE, await foreign.certificate(session_key=other.ss58))):
        changed = {key: value for key, value in told.items() if key != "certificate"}
        if certificate is not None:
            changed["certificate"] = certificate
        with pytest.raises(Impostor, match="did not sign"):
            NodeCalls(foreign.clock).commitment(NODE.public_key).read(Answer(200, {}, encoded(changed)))


async def test_only_a_certificate_of_this_very_node_is_taken(foreign: Foreign) -> None:
    stranger = await foreign.certificate(hotkey=STRANGER.ss58)
    assert await foreign.certify(certificates.issue(STRANGER, stranger)) == (403, "other_hotkey")
    for changed in (
        {"session_key": STRANGER.ss58},
        {"box_key": "00" * 32},
        {"session_id": "other"},
        {"launch_token": "other"},
    ):
        text = certificates.issue(NODE, await foreign.certificate(**changed))
        assert await foreign.certify(text) == (403, "other_node"), changed
    for text in ("", "engram-cert-1", "x" * 5_000, certificates.issue(NODE, await foreign.certificate())[:-4] + "AAAA"):
        assert (await foreign.certify(text))[0] == 403


async def test_an_older_certificate_does_not_take_the_place_of_a_newer_one(foreign: Foreign) -> None:
    older = certificates.issue(NODE, await foreign.certificate())
    newer = await foreign.certificate(not_before=NOW + 200, not_after=NOW + 800, ends_at=NOW + 9_000)
    foreign.clock.advance(200)
    assert await foreign.certify(certificates.issue(NODE, newer)) == (200, "")
    assert await foreign.certify(older) == (409, "older")
    assert foreign.service.identity.signer.ends_at == NOW + 9_000


async def test_a_certificate_of_the_future_gives_way_to_one_of_now(foreign: Foreign) -> None:
    """The gateway's clock was ahead when it issued the first, and has been set back."""
    ahead = await foreign.certificate(not_before=NOW + 3_600, not_after=NOW + 4_200)
    assert await foreign.certify(certificates.issue(NODE, ahead)) == (200, "")
    expired = await foreign.certificate(not_before=NOW - 4_000, not_after=NOW - 3_400)
    assert await foreign.certify(certificates.issue(NODE, expired)) == (409, "older")
    current = await foreign.certificate(not_before=NOW, not_after=NOW + 600)
    assert await foreign.certify(certificates.issue(NODE, current)) == (200, "")
    assert await foreign.certify(certificates.issue(NODE, expired)) == (409, "older")


async def test_an_extension_reaches_a_node_without_a_launch_file_by_its_certificate(
    foreign: Foreign, autojump_clock: object
) -> None:
    signer = foreign.service.identity.signer
    lifetime = Lifetime(foreign.clock, NOW + 10, lambda: signer.ends_at)
    await foreign.certify(certificates.issue(NODE, await foreign.certificate(ends_at=NOW + 20)))
    foreign.clock.advance(15)
    assert lifetime._left_s() < 0
    lifetime._set(signer.ends_at)
    assert lifetime._left_s() == 5


async def test_secrets_arrive_sealed_and_only_those_that_the_certificate_names(tmp_path: Path) -> None:
    received: list[NodeSecrets] = []
    signer = Signer.with_session_key(NODE.public_key)
    async with serving(tmp_path, clock=ManualClock(NOW), signer=signer, use_secrets=received.append) as service:
        foreign = Foreign(service, ManualClock(NOW))
        shown = await foreign.introduced()
        content = sealed.seal(bytes.fromhex(shown.box_key), msgspec.json.encode(NodeSecrets(embedding_api_key="key")))
        named = certificates.issue(NODE, await foreign.certificate(secrets=sealed.digest(content)))
        unnamed = certificates.issue(NODE, await foreign.certificate())
        assert await foreign.certify(unnamed, content) == (403, "other_secrets")
        assert await foreign.certify(named, sealed.seal(bytes.fromhex(shown.box_key), b"{}")) == (403, "other_secrets")
        assert received == []
        assert await foreign.certify(named, content) == (200, "")
        assert received[0].embedding_api_key == "key"
        assert "key" not in repr(received)


async def test_a_node_that_has_its_hotkey_introduces_itself_by_it_and_takes_no_certificate(tmp_path: Path) -> None:
    async with serving(tmp_path, clock=ManualClock(NOW)) as service:
        node = Foreign(service, ManualClock(NOW))
        shown = await node.introduced()
        assert (shown.key, shown.box_key) == (NODE.ss58, "")
        assert await node.certify(certificates.issue(NODE, await node.certificate())) == (409, "has_hotkey")
        assert "certificate" not in msgspec.json.decode((await node.root()).body)
