"""A miner whose hotkey is elsewhere proves by its certified session key; a validator checks the chain of both."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from engram.clock import SystemClock
from engram.hotkeys import Keypair, certificates
from engram.hotkeys.certificates import HEADER, Certificate
from engram.http.client import HttpClient
from engram.memory.proof import proofs
from engram.validator.miner_client import MinerClient, cid_of
from tests.fakes.responder import Responder
from tests.validator.toy_miners import Keeps

HOTKEY, SESSION, OWN = Keypair.from_uri("//Charlie"), Keypair.from_uri("//Ferdie"), Keypair.from_uri("//Alice")
VECTOR = b"\0\0\x80?" + bytes(4 * 383)


class Certified(Keeps):
    """Signs by a session key where `certificate` is given."""

    certificate: str | None = None

    def proof(self, cid: str, vector: bytes, body: dict[str, Any]) -> Any:
        own, self.keypair = self.keypair, HOTKEY
        shown = super().proof(cid, vector, body)
        self.keypair = own
        signed = self.signed(shown, cid, body)
        shown["signature"] = "0x" + own.sign(signed).hex()
        return shown if self.certificate is None else shown | {"certificate": self.certificate}

    def signed(self, shown: dict[str, Any], cid: str, body: dict[str, Any]) -> bytes:
        challenge = proofs.Challenge(
            HOTKEY.public_key,
            bytes.fromhex(body["validator_hotkey_hex"]),
            bytes.fromhex(body["nonce_hex"]),
            cid,
            "__public__",
            bytes.fromhex(shown["root_hex"]),
            shown["count"],
            body["expires_at"],
        )
        return proofs.transcript(challenge) + bytes.fromhex(shown["proof"])


def certificate(hotkey: Keypair, not_after_s: float) -> str:
    now = int(SystemClock().now())
    made = Certificate(
        hotkey=hotkey.ss58,
        session_key=SESSION.ss58,
        box_key="00" * 32,
        controller=OWN.ss58,
        session_id="s",
        launch_token="t",
        not_before=now - 600,
        not_after=now + int(not_after_s),
        ends_at=now,
    )
    return certificates.issue(hotkey, made)


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("made", "proved"),
    [
        (lambda: certificate(HOTKEY, 300), True),
        (lambda: certificate(HOTKEY, -300), False),
        (lambda: certificate(OWN, 300), False),
        (lambda: None, False),
        (lambda: "engram-cert-1.x.y", False),
    ],
    ids=["certified", "ended", "of_another_hotkey", "none", "garbled"],
)
async def test_a_proof_by_a_session_key_counts_under_a_certificate_of_the_hotkey(
    http: HttpClient, made: Callable[[], str | None], proved: bool
) -> None:
    miner = Certified(SESSION)
    miner.certificate = made()
    responder = Responder(miner.answer)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(responder.run)
        client = MinerClient(http, SystemClock(), 5.0)
        await client.ingest(url, OWN, "a", VECTOR)
        reply = await client.challenge(url, OWN, cid_of("a", VECTOR), VECTOR, HOTKEY.public_key)
        assert reply.proved is proved
        said = [HEADER.lower() in {name.lower() for name in asked.headers} for asked in responder.asked]
        assert said == [True, True], "as the SDK does in every request"
        nursery.cancel_scope.cancel()
