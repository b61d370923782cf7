"""What a receiver takes: its answer to GET /schemas, the form a payload leaves in, an emitter that waits to know."""

import msgspec
import pytest
import trio

from engram.http.client import HttpClient
from engram.ledger import InlineLedger, open_inline
from engram.relay import MinerScore, NodeMemory, memory_payload, records, scores_payload
from engram.relay.model import Answered, Entry, GapPayload, MemoryPayload, Unknown, Unreachable
from engram.relay.negotiation import ORIGINAL, Fitted, NotKnown, Terms, fitted, not_taken
from engram.relay.receiver import Receiver
from engram.relay.records import dlq_retry, enqueue
from engram.relay.rules import anchor_payload, output_hash, ranking_payload, stable_nodes
from tests.fakes.responder import Answer, Asked, Responder
from tests.relay.samples import KEYPAIR, KEYRING, NOW, SIGNER, queue
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
    assert len(not_taken("gap", Terms({"x" * 30_000: ("y",)}))) == 200


def test_a_backlog_that_is_not_taken_is_parked_a_part_at_a_time(ledger: InlineLedger) -> None:
    queue(ledger, *range(150))
    unsent: list[Entry] = []

    def claim() -> list[Entry]:
        unsent.clear()
        terms = Terms({"ranking": ("engram-v2",)})
        return ledger.write_now(
            lambda c: records.claim(c, NOW + 1, KEYRING.sign, room=8, terms=terms, unsent=unsent.append)
        )

    passes = []
    while not claim() and unsent:
        passes.append(len(unsent))
    assert passes == [100, 100, 100], "150 payloads, and a marker of each"
    assert states(ledger) == ["abandoned"] * 150 + ["discarded"] * 150


@pytest.mark.parametrize(
    ("status_code", "body", "expected"),
    [
        (200, b'{"schemas":[{"kind":"scores","versions":["engram-v1"]}]}', Terms({"scores": ["engram-v1"]})),
        (200, b"<html>", None),
        (200, b'{"schemas":[]}', None),
        (200, b'{"schemas":[{"kind":"scores","versions":[]}]}', None),
        (200, b"x" * 70_000, None),
        (404, b"", NotKnown(Answered(404))),
        (405, b"", NotKnown(Answered(405))),
        (501, b"", NotKnown(Answered(501))),
        (401, b"", NotKnown(Answered(401))),
        (503, b"", NotKnown(Answered(503))),
        (503, b"x" * 70_000, NotKnown(Answered(503))),
    ],
    ids=range(11),
)
async def test_a_receiver_is_asked_what_it_takes(
    status_code: int, body: bytes, expected: Terms | NotKnown | None, nursery: trio.Nursery
) -> None:
    async def answer(asked: Asked) -> Answer:
        return status_code, {}, body

    responder = Responder(answer)
    url = await nursery.start(responder.run)
    found = await Receiver(HttpClient(), f"{url}/relay/payloads", 5.0).ask_terms(False)
    if expected is None:
        assert isinstance(found, NotKnown)
        assert isinstance(found.outcome, Unknown)
        assert "no list of schemas" in found.outcome.reason
    else:
        assert found == expected
    assert (responder.asked[0].method, responder.asked[0].target) == ("GET", "/relay/schemas")


@pytest.mark.parametrize("code", [404, 405, 410, 501])
async def test_the_original_is_what_the_operator_says_it_is(code: int, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> Answer:
        return code, {}, b""

    url = await nursery.start(Responder(answer).run)
    assert await Receiver(HttpClient(), f"{url}/payloads", 5.0, may_be_original=True).ask_terms(False) == ORIGINAL
    assert isinstance(await Receiver(HttpClient(), f"{url}/payloads", 5.0).ask_terms(False), NotKnown)


@pytest.mark.parametrize(("code", "reason"), [(200, "no list of schemas"), (404, "the receiver answered 404")])
async def test_at_the_first_contact_a_portal_or_a_wrong_address_is_held_back_and_nothing_is_lost(
    ledger: InlineLedger, nursery: trio.Nursery, code: int, reason: str
) -> None:
    async def portal(asked: Asked) -> Answer:
        return code, {"content-type": "text/html"}, b"<html>sign in</html>"

    responder = Responder(portal)
    receiver = Receiver(HttpClient(), f"{await nursery.start(responder.run)}/payloads", 5.0)
    queue(ledger, 1, 2)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms, destination="portal") as ref:
        with trio.fail_after(10):
            while not (found := await status(ref)).held_back:  # noqa: ASYNC110  # no event crosses the actor
                await trio.sleep(0.01)
    assert reason in found.held_back
    assert (states(ledger), found.total_ok) == (["pending"] * 2, 0)
    assert {asked.method for asked in responder.asked} == {"GET"}


async def test_a_receiver_that_is_away_or_hangs_up_is_not_guessed_at(nursery: trio.Nursery) -> None:
    async def hang_up(asked: Asked) -> None:
        return None

    url = await nursery.start(Responder(hang_up).run)
    found = await Receiver(HttpClient(), f"{url}/payloads", 5.0).ask_terms(False)
    assert isinstance(found, NotKnown)
    assert isinstance(found.outcome, Unknown)
    found = await Receiver(HttpClient(), "http://127.0.0.1:1/payloads", 5.0).ask_terms(False)
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

    async def ask_terms(_: bool) -> Terms | NotKnown:
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

    async def ask_terms(_: bool) -> Terms | NotKnown:
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


async def test_an_emitter_that_starts_again_behind_a_portal_still_knows_that_its_receiver_negotiates(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    answer, before = BOTH, list[bool]()

    async def ask_terms(negotiated: bool) -> Terms | NotKnown:
        before.append(negotiated)
        return answer

    async def start(url: str) -> None:
        async with emitting(ledger, ReceiverDouble(), ask_terms=ask_terms, destination=url):
            await trio.sleep(30)

    for url in ("http://one", "http://one", "http://another"):
        await start(url)
    assert before == [False, True, False]
    answer = ORIGINAL
    for _ in range(2):
        await start("http://another")
    assert before[3:] == [True, False], "it was replaced by one that does not, and said so"


async def test_a_portal_in_the_place_of_a_receiver_that_negotiated_before_delivers_nothing(
    nursery: trio.Nursery,
) -> None:
    async def portal(asked: Asked) -> Answer:
        return 200, {"content-type": "text/html"}, b"<html>Accept our terms first.</html>"

    url = await nursery.start(Responder(portal).run)
    fresh = Receiver(HttpClient(), f"{url}/payloads", 5.0)
    assert isinstance(await fresh.ask_terms(True), NotKnown)
    assert isinstance(await fresh.submit(SIGNER.sign(PLAIN)), Unknown)


async def test_nothing_that_waits_is_given_up_while_a_proxy_answers_404_for_a_receiver_that_has_negotiated(
    nursery: trio.Nursery, ledger: InlineLedger
) -> None:
    gone = True
    schemas = b'{"schemas":[{"kind":"memory","versions":["engram-v2"]},{"kind":"ranking","versions":["engram-v2"]},'
    schemas += b'{"kind":"anchor","versions":["engram-v2"]}]}'

    async def proxy(asked: Asked) -> Answer:
        if gone:
            return 404, {}, b"no backend"
        return (200, {}, schemas) if asked.method == "GET" else (200, {}, b"not signed")

    responder = Responder(proxy)
    url = f"{await nursery.start(responder.run)}/payloads"
    ledger.write_now(lambda c: records.note_negotiated(c, url, True))
    anchor = anchor_payload(
        ["ab" * 32], anchored="memory", first=0, count=1, root="cd" * 32, epoch=1, netuid=450, block=7, round_ts=NOW
    )
    ranking = ranking_payload({(1, KEYPAIR.ss58): 1.0}, netuid=450, block=7, uid=5, round_ts=NOW)
    for payload in (anchor, ranking, msgspec.json.decode(ROOTED, type=MemoryPayload)):
        ledger.write_now(lambda c, p=payload: enqueue(c, p, NOW, signer=KEYPAIR.ss58))  # type: ignore[misc]
    receiver = Receiver(HttpClient(), url, 5.0)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms, destination=url) as ref:
        with trio.fail_after(10):
            while not (found := await status(ref)).held_back:  # noqa: ASYNC110  # no event crosses the actor
                await trio.sleep(0.01)
    assert found.held_back == "the receiver answered 404"
    assert states(ledger) == ["pending"] * 3
    assert ledger.read_now(lambda c: records.has_negotiated(c, url)), "nor is it forgotten that it negotiates"
    assert {asked.method for asked in responder.asked} == {"GET"}
    gone = False
    again = Receiver(HttpClient(), url, 5.0)
    async with emitting(ledger, again, ask_terms=again.ask_terms, destination=url):
        with trio.fail_after(10):
            while len([each for each in responder.asked if each.method == "POST"]) < 3:  # noqa: ASYNC110  # as above
                await trio.sleep(0.01)
    assert "discarded" not in states(ledger)


async def test_what_was_signed_before_leaves_only_to_a_receiver_that_takes_its_kind(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing but a marker is ever given up without the operator."""
    anchor = anchor_payload(
        ["ab" * 32], anchored="memory", first=0, count=1, root="cd" * 32, epoch=1, netuid=450, block=7, round_ts=NOW
    )
    scores = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=450, block=7, uid=5, round_ts=NOW)
    for payload in (anchor, scores):
        signed = SIGNER.sign(msgspec.json.encode(payload))
        ledger.write_now(lambda c, p=payload, s=signed: enqueue(c, p, NOW, signer=KEYPAIR.ss58, signed=s))  # type: ignore[misc]
    receiver, terms = ReceiverDouble(), Terms({"memory": ("engram-v1",)})

    async def ask_terms(_: bool) -> Terms | NotKnown:
        return terms

    async with emitting(ledger, receiver, ask_terms=ask_terms) as ref:
        await trio.sleep(30)
        assert receiver.sent == []
        assert states(ledger) == ["abandoned"] * 2 + ["discarded"] * 2, "the markers are not taken either"
        found = await status(ref)
        assert (found.dlq_abandoned, found.discarded) == (2, 2)
        ledger.write_now(lambda c: dlq_retry(c, 2, NOW + 40))
        await trio.sleep(60)
        assert receiver.blocks == [7], "the operator may know better"
        assert (await status(ref)).dlq_abandoned == 1
