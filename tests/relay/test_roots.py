"""Roots of nodes: asked of a node's own handler over a socket, and every way in which one does not hold."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from engram.clock import ManualClock
from engram.hotkeys import Keypair, certificates
from engram.hotkeys.certificates import Certificate
from engram.http.client import HttpClient
from engram.memory.model import PUBLIC
from engram.relay.model import SignedRoot
from engram.relay.roots import NodeRoots, RootRefused, require_root
from tests.fakes.responder import Answer, Asked, Responder
from tests.miner import endpoints
from tests.miner.nodes import NODE, serving

NOW = 1_700_000_000.0
SESSION = Keypair.from_seed(bytes([11]) * 32)
STRANGER = Keypair.from_seed(bytes([12]) * 32)


def root(signer: Keypair = NODE, certificate: str | None = None, **changed: Any) -> SignedRoot:
    """A root that is signed as it stands, whatever was changed."""
    unsigned = SignedRoot(
        form="keyed-1", namespace=PUBLIC, root_hex="ab" * 32, count=3, at_ms=int(NOW * 1000), signature=""
    )
    unsigned = msgspec.structs.replace(unsigned, certificate=certificate, **changed)
    return msgspec.structs.replace(unsigned, signature="0x" + signer.sign(unsigned.message).hex())


def certificate(signer: Keypair = NODE, hotkey: Keypair = NODE, until_s: float = 600.0, session: str = "s1") -> str:
    made = Certificate(
        hotkey=hotkey.ss58,
        session_key=SESSION.ss58,
        box_key="00" * 32,
        controller=STRANGER.ss58,
        session_id=session,
        launch_token="t",
        not_before=int(NOW - 600),
        not_after=int(NOW + until_s),
        ends_at=int(NOW),
    )
    if signer is hotkey:
        return certificates.issue(signer, made)
    return certificates.issue(signer, msgspec.structs.replace(made, hotkey=signer.ss58))


@pytest.mark.parametrize("found", [root(), root(SESSION, certificate()), root(at_ms=int((NOW - 3_500) * 1000))])
def test_a_root_holds_by_the_hotkey_or_by_a_certified_key(found: SignedRoot) -> None:
    require_root(NODE.public_key, found, NOW)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (msgspec.structs.replace(root(), root_hex="cd" * 32), "did not sign"),
        (msgspec.structs.replace(root(), count=4), "did not sign"),
        (msgspec.structs.replace(root(), at_ms=int(NOW * 1000) + 1), "did not sign"),
        (msgspec.structs.replace(root(), signature="0xzz"), "non-hexadecimal"),
        (msgspec.structs.replace(root(), signature="0x12"), "did not sign"),
        (root(STRANGER), "did not sign"),
        (root(SESSION), "did not sign"),
        (root(STRANGER, certificate()), "did not sign"),
        (root(SESSION, certificate(STRANGER)), "is of hotkey"),
        (root(SESSION, certificate(until_s=-300)), "valid until"),
        (root(SESSION, "engram-cert-1.x.y"), "cannot be read"),
        (root(form="legacy"), "legacy"),
        (root(namespace="whole"), "whole"),
        (root(at_ms=int((NOW - 3_601) * 1000)), "from"),
        (root(at_ms=int((NOW + 3_601) * 1000)), "from"),
    ],
)
def test_a_root_that_does_not_hold_is_refused_with_its_reason(found: SignedRoot, why: str) -> None:
    with pytest.raises(RootRefused, match=why):
        require_root(NODE.public_key, found, NOW)


def test_a_certificate_of_another_session_is_refused_where_the_session_is_known() -> None:
    found = root(SESSION, certificate(session="s1"))
    require_root(NODE.public_key, found, NOW, session_id="s1")
    with pytest.raises(RootRefused, match="session s1"):
        require_root(NODE.public_key, found, NOW, session_id="s2")


async def test_a_node_is_asked_for_its_root(tmp_path: Path, nursery: trio.Nursery) -> None:
    clock = ManualClock(NOW)
    async with serving(tmp_path, clock=clock) as service:

        async def answer(asked: Asked) -> Answer:
            found = await endpoints.commitment(service)
            return found.status, {"content-type": "application/json"}, msgspec.json.encode(found.body)

        responder = Responder(answer)
        url = await nursery.start(responder.run)
        found = await NodeRoots(HttpClient(), clock, 5.0)(url, NODE.public_key, "session")
    assert found is not None
    assert (found.count, found.at_ms, found.certificate) == (0, int(NOW * 1000), None)
    assert responder.asked[0].target == "/commitment"
    assert responder.asked[0].headers["x-engram-certificate"] == "1"
    require_root(NODE.public_key, found, NOW)


def fixed(status: int, body: bytes) -> Callable[[Asked], Awaitable[Answer]]:
    async def answer(asked: Asked) -> Answer:
        return status, {}, body

    return answer


COMMITMENT: dict[str, object] = {"root_hex": "ab" * 32, "count": 3, "form": "keyed-1", "signature": "0x12"}


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (503, b"{}", "answered 503"),
        (200, b"no JSON", "not the JSON"),
        (200, msgspec.json.encode(COMMITMENT | {"signed": "engram-commitment:now"}), "unix milliseconds"),
        (200, msgspec.json.encode(COMMITMENT | {"signed": f"x:{int(NOW * 1000)}"}), "did not sign"),
    ],
)
async def test_a_node_that_gives_no_root_is_logged(status: int, body: bytes, why: str, nursery: trio.Nursery) -> None:
    url = await nursery.start(Responder(fixed(status, body)).run)
    with capture_logs() as lines:
        assert await NodeRoots(HttpClient(), ManualClock(NOW), 5.0)(url, NODE.public_key, "s1") is None
    (line,) = lines
    assert line["event"] == "root_not_relayed"
    assert why in line["reason"]
