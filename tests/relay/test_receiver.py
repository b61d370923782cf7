from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio

from config.model import RelaySettings
from engram.api.xeris import Acknowledged
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.relay.model import Answered, Unknown, Unreachable
from engram.relay.negotiation import ORIGINAL, NotKnown, Terms
from engram.relay.receiver import Receiver, open_receiver, retry_after_s
from engram.relay.rules import acknowledged_text
from engram.relay.signer import Signed
from tests.fakes.responder import Answer, Asked, Responder

SIGNED = Signed(b'{"schema_version":"engram-v1"}', "ab" * 32)


class Behaviour:
    """What the receiver does with each request."""

    def __init__(self) -> None:
        self.answer: Answer | None = (200, {}, b"{}")
        self.late_s = 0.0

    async def respond(self, asked: Asked) -> Answer | None:
        await trio.sleep(self.late_s)
        return self.answer


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
async def responder(behaviour: Behaviour) -> Responder:
    return Responder(behaviour.respond)


@pytest.fixture
async def receiver(responder: Responder, nursery: trio.Nursery) -> AsyncIterator[Receiver]:
    client = HttpClient()
    yield Receiver(client, await nursery.start(responder.run), timeout_s=0.5)
    await client.aclose()


async def test_a_payload_is_sent_unchanged_with_its_idempotency_key(receiver: Receiver, responder: Responder) -> None:
    assert await receiver.submit(SIGNED) == Answered(200)
    (asked,) = responder.asked
    assert (asked.method, asked.body) == ("POST", SIGNED.body)
    assert asked.headers["idempotency-key"] == SIGNED.signed_hash
    assert asked.headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [201, 301, 400, 500])
async def test_every_status_is_an_answer(receiver: Receiver, behaviour: Behaviour, status: int) -> None:
    behaviour.answer = status, {"location": "http://127.0.0.1:1/"}, b""
    assert await receiver.submit(SIGNED) == Answered(status)


async def test_what_the_receiver_asks_for_is_kept(receiver: Receiver, behaviour: Behaviour) -> None:
    behaviour.answer = 429, {"retry-after": "120"}, b""
    assert await receiver.submit(SIGNED) == Answered(429, 120.0)


async def test_a_late_answer_is_an_unknown_outcome(receiver: Receiver, behaviour: Behaviour) -> None:
    behaviour.late_s = 60.0
    with trio.fail_after(5):
        assert isinstance(await receiver.submit(SIGNED), Unknown)


async def test_a_connection_cut_without_an_answer_is_an_unknown_outcome(
    receiver: Receiver, behaviour: Behaviour
) -> None:
    behaviour.answer = None
    assert isinstance(await receiver.submit(SIGNED), Unknown)


async def test_an_answer_too_large_to_read_is_known_by_its_status(receiver: Receiver, behaviour: Behaviour) -> None:
    behaviour.answer = 200, {}, b"x" * 70_000
    assert await receiver.submit(SIGNED) == Answered(200)


async def test_nobody_listening_is_unreachable() -> None:
    with trio.socket.socket() as bound:
        await bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/relay"
        outcome = await Receiver(HttpClient(), url, timeout_s=2.0).submit(SIGNED)
    assert isinstance(outcome, Unreachable)


SCHEMAS = b'{"schemas":[{"kind":"memory","versions":["engram-v2"]}]}'


def acknowledgement(**changed: object) -> bytes:
    """What a receiver of ours answers; the signature holds for what it says before it is changed."""
    key = Keypair.from_seed(bytes([9]) * 32)
    signature = "0x" + key.sign(acknowledged_text(SIGNED.signed_hash, 1_000)).hex()
    found = Acknowledged(
        status="accepted",
        signed_hash=SIGNED.signed_hash,
        output_hash="cd" * 32,
        received_ms=1_000,
        signers=1,
        receiver=key.ss58,
        signature=signature,
    )
    return msgspec.json.encode(msgspec.structs.replace(found, **changed))


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome to the airport</html>",
        b"x" * 70_000,
        acknowledgement(signed_hash="ef" * 32),
        acknowledgement(received_ms=2_000),
        acknowledgement(receiver=Keypair.from_seed(bytes([8]) * 32).ss58),
        acknowledgement(receiver="nobody"),
        acknowledgement(signature="0xzz"),
    ],
    ids=["portal", "large", "another payload", "another time", "another key", "no key", "no signature"],
)
async def test_from_a_receiver_that_negotiates_200_without_the_acknowledgement_delivers_nothing(
    receiver: Receiver, behaviour: Behaviour, body: bytes
) -> None:
    behaviour.answer = 200, {}, SCHEMAS
    assert isinstance(await receiver.ask_terms(False), Terms)
    behaviour.answer = 200, {}, body
    assert isinstance(await receiver.submit(SIGNED), Unknown)
    behaviour.answer = 200, {}, acknowledgement()
    assert await receiver.submit(SIGNED) == Answered(200)


async def test_a_portal_does_not_turn_a_receiver_that_negotiates_into_one_that_does_not(
    receiver: Receiver, behaviour: Behaviour
) -> None:
    behaviour.answer = 200, {}, SCHEMAS
    assert isinstance(await receiver.ask_terms(False), Terms)
    for body in (b"<html>", b"x" * 70_000):
        behaviour.answer = 200, {}, body
        assert isinstance(await receiver.ask_terms(False), NotKnown)
    behaviour.answer = 200, {}, b"ok"
    assert isinstance(await receiver.submit(SIGNED), Unknown)


@pytest.mark.parametrize("code", [404, 405, 410, 501])
async def test_a_proxy_without_its_backend_does_not_turn_a_receiver_that_negotiates_into_one_that_does_not(
    receiver: Receiver, behaviour: Behaviour, code: int
) -> None:
    behaviour.answer = 200, {}, SCHEMAS
    assert isinstance(await receiver.ask_terms(False), Terms)
    behaviour.answer = code, {}, b""
    assert await receiver.ask_terms(False) == NotKnown(Answered(code))
    behaviour.answer = 200, {}, b"ok"
    assert isinstance(await receiver.submit(SIGNED), Unknown), "its acknowledgements are still signed"


async def test_the_operator_says_that_a_receiver_was_replaced_by_one_of_the_original(
    responder: Responder, behaviour: Behaviour, nursery: trio.Nursery
) -> None:
    receiver = Receiver(HttpClient(), await nursery.start(responder.run), timeout_s=0.5, may_be_original=True)
    behaviour.answer = 200, {}, b"<html>"
    assert isinstance(await receiver.ask_terms(True), NotKnown), "that may still be a portal"
    behaviour.answer = 404, {}, b""
    assert await receiver.ask_terms(True) == ORIGINAL
    behaviour.answer = 200, {}, b"ok"
    assert await receiver.submit(SIGNED) == Answered(200)


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), (" 60 ", 60.0), ("-1", None), ("soon", None), ("", None)])
def test_retry_after_is_read_in_seconds(text: str, seconds: float | None) -> None:
    assert retry_after_s(text) == seconds


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, {}, b'{"acknowledgement":' + acknowledgement() + b"}"), True),
        ((200, {}, b'{"acknowledgement":{}}'), None),
        ((200, {}, b"<html>"), None),
        ((404, {}, b"{}"), False),
        ((503, {}, b""), None),
    ],
    ids=range(5),
)
async def test_what_a_receiver_has_accepted_is_what_it_shows_its_signature_of(
    receiver: Receiver, behaviour: Behaviour, answer: Any, expected: bool | None
) -> None:
    behaviour.answer = answer
    assert await receiver.has_accepted(SIGNED.signed_hash) is expected


async def test_a_receiver_that_is_away_or_of_the_original_does_not_say_what_it_has_accepted() -> None:
    for original in (False, True):
        receiver = Receiver(HttpClient(), "http://127.0.0.1:1/payloads", 0.5, may_be_original=original)
        assert await receiver.has_accepted(SIGNED.signed_hash) is None


async def test_with_a_pinned_key_no_other_key_acknowledges(
    responder: Responder, behaviour: Behaviour, nursery: trio.Nursery
) -> None:
    url, own = f"{await nursery.start(responder.run)}/payloads", msgspec.json.decode(acknowledgement())["receiver"]
    for pinned, taken in ((own, True), (Keypair.from_seed(bytes([8]) * 32).ss58, False)):
        receiver = open_receiver(HttpClient(), RelaySettings(url=url, receiver_key=pinned))
        assert receiver is not None
        behaviour.answer = 200, {}, SCHEMAS
        await receiver.ask_terms(False)
        behaviour.answer = 200, {}, acknowledgement()
        found = await receiver.submit(SIGNED)
        assert isinstance(found, Answered) is taken
        assert receiver.acknowledged_by == (own if taken else "")
        behaviour.answer = 200, {}, b'{"acknowledgement":' + acknowledgement() + b"}"
        assert await receiver.has_accepted(SIGNED.signed_hash) is (True if taken else None)
