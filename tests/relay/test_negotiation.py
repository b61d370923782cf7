"""What a receiver takes: its answer to GET /schemas, the form a payload leaves in, an emitter that waits to know."""

import msgspec
import pytest
import trio

from engram.http.client import HttpClient
from engram.ledger import InlineLedger, open_inline
from engram.relay import MinerScore, NodeMemory, memory_payload, scores_payload
from engram.relay.model import Answered, GapPayload, Unknown, Unreachable
from engram.relay.negotiation import ORIGINAL, Fitted, NotKnown, Terms, fitted, not_taken
from engram.relay.receiver import Receiver
from engram.relay.records import dlq_retry, enqueue
from engram.relay.rules import anchor_payload, output_hash, stable_nodes
from tests.fakes.responder import Answer, Asked, Responder
from tests.relay.samples import KEYPAIR, NOW, SIGNER, queue
from tests.relay.test_actor import ReceiverDouble, emitting, states, status
from tests.relay.test_roots import root

BOTH = Terms({"scores": ("engram-v1",), "memory": ("engram-v1", "engram-v2"), "gap": ("engram-v2",)})


def memory(node: NodeMemory) -> bytes:
    return msgspec.json.encode(memory_payload({KEYPAIR.ss58: node}, netuid=450, block=7, source="nodes0", round_ts=NOW))


SCORES = msgspec.json.encode(
    scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=450, block=7, uid=5, round_ts=NOW)
)
ROOTED, PLAIN = memory(NodeMemory(vectors=3, root_hex="ab" * 32, root=root())), memory(NodeMemory(vectors=3))
GAP = msgspec.json.encode(
    GapPayload(netuid=450, block=7, round_ts=NOW, output_hash="ab", nonce="7:x:1:gap", parked="memory", reason="")
)
PAYLOADS = {
    "scores": ("scores", SCORES),
    "rooted": ("memory", ROOTED),
    "plain": ("memory", PLAIN),
    "gap": ("gap", GAP),
}


@pytest.mark.parametrize(
    ("name", "terms", "leaves"),
    [
        ("scores", BOTH, True),
        ("scores", ORIGINAL, True),
        ("rooted", BOTH, True),
        ("plain", BOTH, True),
        ("plain", ORIGINAL, True),
        ("plain", Terms({"memory": ("engram-v2",)}), False),
        ("rooted", Terms({"scores": ("engram-v1",)}), False),
        ("gap", BOTH, True),
        ("gap", ORIGINAL, False),
    ],
)
def test_a_payload_leaves_as_it_is_or_not_at_all(name: str, terms: Terms, leaves: bool) -> None:
    kind, payload = PAYLOADS[name]
    found = fitted(kind, payload, terms)
    assert (found.payload if found else None) == (payload if leaves else None)


def test_memory_leaves_without_its_roots_where_the_receiver_knows_none() -> None:
    found = fitted("memory", ROOTED, ORIGINAL)
    nodes = {KEYPAIR.ss58: NodeMemory(vectors=3, root_hex="ab" * 32)}
    plain = memory_payload(nodes, netuid=450, block=7, source="nodes0", round_ts=NOW)
    assert found == Fitted(msgspec.json.encode(plain), output_hash(stable_nodes(nodes)))


def test_the_operator_is_told_what_is_taken() -> None:
    assert not_taken("gap", ORIGINAL).endswith("only memory (engram-v1), scores (engram-v1)")
    assert not_taken("gap", Terms({})).endswith("only nothing")


@pytest.mark.parametrize(
    ("status_code", "body", "expected"),
    [
        (200, b'{"schemas":[{"kind":"scores","versions":["engram-v1"]}]}', Terms({"scores": ["engram-v1"]})),
        (200, b"<html>", ORIGINAL),
        (200, b"x" * 70_000, ORIGINAL),
        (404, b"", ORIGINAL),
        (405, b"", ORIGINAL),
        (501, b"", ORIGINAL),
        (401, b"", NotKnown(Answered(401))),
        (503, b"", NotKnown(Answered(503))),
        (503, b"x" * 70_000, NotKnown(Answered(503))),
    ],
    ids=range(9),
)
async def test_a_receiver_is_asked_what_it_takes(
    status_code: int, body: bytes, expected: Terms | NotKnown, nursery: trio.Nursery
) -> None:
    async def answer(asked: Asked) -> Answer:
        return status_code, {}, body

    responder = Responder(answer)
    url = await nursery.start(responder.run)
    assert await Receiver(HttpClient(), f"{url}/relay/payloads", 5.0).ask_terms() == expected
    assert (responder.asked[0].method, responder.asked[0].target) == ("GET", "/relay/schemas")


async def test_a_receiver_that_is_away_or_hangs_up_is_not_guessed_at(nursery: trio.Nursery) -> None:
    async def hang_up(asked: Asked) -> None:
        return None

    url = await nursery.start(Responder(hang_up).run)
    found = await Receiver(HttpClient(), f"{url}/payloads", 5.0).ask_terms()
    assert isinstance(found, NotKnown)
    assert isinstance(found.outcome, Unknown)
    found = await Receiver(HttpClient(), "http://127.0.0.1:1/payloads", 5.0).ask_terms()
    assert isinstance(found, NotKnown)
    assert isinstance(found.outcome, Unreachable)


@pytest.fixture
def ledger() -> InlineLedger:
    return open_inline()


async def test_nothing_is_sent_before_it_is_known_what_the_receiver_takes(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver, answers = ReceiverDouble(), [NotKnown(Answered(503))] * 4
    asked_at: list[float] = []

    async def ask_terms() -> Terms | NotKnown:
        asked_at.append(trio.current_time())
        return answers.pop() if answers else ORIGINAL

    queue(ledger, 1)
    async with emitting(ledger, receiver, ask_terms=ask_terms) as ref:
        await trio.sleep(100)
        found = await status(ref)
        assert (receiver.sent, found.outbox_pending, found.failures_in_a_row) == ([], 1, 4)
        assert found.held_back == "the receiver answered 503"
        await trio.sleep(200)
        assert receiver.blocks == [1001]
        assert (await status(ref)).held_back == ""
    assert len(asked_at) == 5
    assert asked_at[1] - asked_at[0] >= 10, "it is asked at the pace of a receiver that is held back"


async def test_what_it_takes_is_asked_again_each_hour_and_after_a_refusal_and_holds_until_it_says_otherwise(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver, asked_at = ReceiverDouble(), []
    answer: Terms | NotKnown = BOTH

    async def ask_terms() -> Terms | NotKnown:
        asked_at.append(trio.current_time())
        return answer

    async with emitting(ledger, receiver, ask_terms=ask_terms):
        await trio.sleep(3_700)
        assert len(asked_at) == 2
        answer = NotKnown(Unreachable("down"))
        receiver.next_outcome = lambda attempt: Answered(422) if attempt == 1 else Answered(200)
        queue(ledger, 1, 2, now=NOW)
        await trio.sleep(30)
        assert len(asked_at) == 3, "asked after the refusal"
        assert states(ledger) == ["abandoned", "delivered", "delivered"], "the marker and the next one left"
        await trio.sleep(61)
        assert len(asked_at) > 3, "asked again a minute after it could not be"


async def test_what_was_signed_before_leaves_only_to_a_receiver_that_takes_its_kind(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    """An anchor says something of other payloads and is discarded; a bundle of scores is parked."""
    anchor = anchor_payload(
        ["ab" * 32], anchored="memory", first=0, count=1, root="cd" * 32, epoch=1, netuid=450, block=7, round_ts=NOW
    )
    scores = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=450, block=7, uid=5, round_ts=NOW)
    for payload in (anchor, scores):
        signed = SIGNER.sign(msgspec.json.encode(payload))
        ledger.write_now(lambda c, p=payload, s=signed: enqueue(c, p, NOW, signer=KEYPAIR.ss58, signed=s))  # type: ignore[misc]
    receiver, terms = ReceiverDouble(), Terms({"memory": ("engram-v1",)})

    async def ask_terms() -> Terms | NotKnown:
        return terms

    async with emitting(ledger, receiver, ask_terms=ask_terms) as ref:
        await trio.sleep(30)
        assert receiver.sent == []
        assert states(ledger) == ["discarded", "abandoned", "discarded"], "the marker is not taken either"
        ledger.write_now(lambda c: dlq_retry(c, 2, NOW + 40))
        await trio.sleep(60)
        assert receiver.blocks == [7], "the operator may know better"
        assert (await status(ref)).dlq_abandoned == 0
