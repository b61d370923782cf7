"""Whether the receiver is down or one payload breaks it: an outage uses up no attempts, such a payload all of them."""

import json
from collections.abc import Callable

import msgspec
import pytest
import trio
import trio.testing
from sqlalchemy import select
from structlog.testing import capture_logs

from engram.clock import TrioClock
from engram.ledger import InlineLedger
from engram.relay import records
from engram.relay.model import Answered, MinerScore, Outcome, Unknown, Unreachable
from engram.relay.negotiation import NotKnown, Terms
from engram.relay.protocol import OutboxGrew
from engram.relay.rules import scores_payload
from engram.relay.signer import Signed
from engram.relay.tables import relay_outbox
from tests.relay.samples import SIGNER, queue, write
from tests.relay.test_actor import emitting, ledger, states, status

__all__ = ("ledger",)

pytestmark = pytest.mark.rules

TAKES = Terms({"memory": ("engram-v1",), "scores": ("engram-v1",), "gap": ("engram-v2",)})
FAILS = [
    *(Answered(code) for code in (425, 429, 500, 502, 503, 504)),
    Unknown("closed after the request was sent"),
]
HOURS = 6 * 3_600.0


class Fails:
    """Answers by `next_outcome`, given the block; holds what it has taken, each once."""

    def __init__(self) -> None:
        self.next_outcome: Callable[[int], Outcome] = lambda block: Answered(200)
        self.terms: Terms | NotKnown = TAKES
        self.sent: list[int] = []
        """Blocks, as they were sent."""
        self.held: list[int] = []
        """Blocks, as they were first taken."""
        self.markers = 0

    async def submit(self, signed: Signed) -> Outcome:
        await trio.sleep(0.1)
        document = json.loads(signed.body)
        if document.get("kind") == "gap":
            self.markers += 1
            return Answered(200)
        block = document["block"]
        self.sent.append(block)
        outcome = self.next_outcome(block)
        if outcome == Answered(200) and block not in self.held:
            self.held.append(block)
        return outcome

    async def ask_terms(self, negotiated: bool) -> Terms | NotKnown:
        await trio.lowlevel.checkpoint()
        return self.terms


def queue_scores(ledger: InlineLedger, *blocks: int, netuid: int = 450) -> None:
    """Of another stream."""
    for block in blocks:
        payload = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=netuid, block=block, uid=5, round_ts=block)
        write(ledger, lambda c, p=payload: records.enqueue(c, p, TrioClock().now(), signer=SIGNER.hotkey))  # type: ignore[misc]


def attempts(ledger: InlineLedger) -> list[int]:
    return list(write(ledger, lambda c: c.scalars(select(relay_outbox.c.attempts).order_by(relay_outbox.c.id)).all()))


@pytest.mark.parametrize("outcome", FAILS)
@pytest.mark.parametrize("others", [0, 5])
async def test_an_outage_uses_up_no_attempt_however_it_shows(
    outcome: Outcome, others: int, ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    """The list of schemas is answered all the while, as by a receiver whose disk is full: only payloads fail."""
    receiver = Fails()
    queue(ledger, 1)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms) as ref:
        await trio.sleep(1)
        receiver.next_outcome = lambda block: outcome
        queue(ledger, 2, 3, 4)
        queue_scores(ledger, *range(1, 1 + others))
        ref.tell(OutboxGrew())
        await trio.sleep(HOURS)
        assert set(states(ledger)[1:]) == {"pending"}
        assert set(attempts(ledger)[1:]) == {0}
        found = await status(ref)
        assert found.held_back
        assert found.failures_in_a_row > 10
        assert len(receiver.sent) < HOURS / 240.0 + 20, "one at a time is tried, about every 300 s"
        receiver.next_outcome = lambda block: Answered(200)
        await trio.sleep(400)
        assert (await status(ref)).held_back == ""
    assert set(states(ledger)) == {"delivered"}
    assert [block for block in receiver.held if block > 1_000] == [1001, 1002, 1003, 1004]


@pytest.mark.parametrize("outcome", FAILS)
async def test_a_payload_that_alone_breaks_its_receiver_is_parked_after_its_attempts_and_the_stream_goes_on(
    outcome: Outcome, ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()
    receiver.next_outcome = lambda block: outcome if block == 1002 else Answered(200)
    queue(ledger, 1, 2, 3)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms):
        await trio.sleep(HOURS)
    assert states(ledger) == ["delivered", "abandoned", "delivered", "delivered"]
    assert attempts(ledger)[1] == 10
    assert receiver.sent.count(1002) == 11, "the first one counts only once the receiver was found well since"
    assert receiver.held == [1001, 1003]
    assert receiver.markers == 1


async def test_a_payload_that_brings_its_receiver_down_for_a_while_is_parked_and_holds_up_nothing_for_ever(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver, down_until = Fails(), 0.0

    def crashes(block: int) -> Outcome:
        nonlocal down_until
        if trio.current_time() < down_until:
            return Unreachable("nobody listens")
        if block == 1002:
            down_until = trio.current_time() + 15.0
            return Unknown("closed")
        return Answered(200)

    receiver.next_outcome = crashes
    queue(ledger, 1, 2, 3)
    queue_scores(ledger, 1, 2)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms) as ref:
        await trio.sleep(HOURS)
        assert (await status(ref)).dlq_abandoned == 1
    assert receiver.held[-1] == 1003
    assert sorted(receiver.held) == [1, 2, 1001, 1003]


@pytest.mark.parametrize("outcome", FAILS)
async def test_a_restart_in_an_outage_uses_up_no_attempt(
    outcome: Outcome, ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()
    queue(ledger, 1)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms, destination="http://there"):
        await trio.sleep(1)
    receiver.next_outcome = lambda block: outcome
    queue(ledger, 2, 3, 4)
    queue_scores(ledger, 1, 2, 3)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms, destination="http://there"):
        await trio.sleep(HOURS)
        assert set(states(ledger)[1:]) == {"pending"}
        receiver.next_outcome = lambda block: Answered(200)
        await trio.sleep(700)
    assert set(states(ledger)) == {"delivered"}


async def test_after_a_restart_what_the_ledger_has_as_delivered_tells_an_outage_from_a_payload_that_breaks_its_receiver(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()
    receiver.next_outcome = lambda block: Answered(503) if block == 1002 else Answered(200)
    queue(ledger, 1)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms, destination="http://there"):
        await trio.sleep(1)
    queue(ledger, 2, 3)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms, destination="http://there"):
        await trio.sleep(HOURS)
    assert states(ledger) == ["delivered", "abandoned", "delivered", "delivered"]


@pytest.mark.parametrize("outcome", FAILS)
async def test_a_payload_that_breaks_its_receiver_does_not_hold_up_other_streams(
    outcome: Outcome, ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()
    receiver.next_outcome = lambda block: outcome if block == 1002 else Answered(200)
    queue(ledger, 1, 2, 3)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms) as ref:
        for block in range(60):
            queue_scores(ledger, block)
            ref.tell(OutboxGrew())
            await trio.sleep(60)
            assert block in receiver.held
    assert states(ledger)[1] == "abandoned"
    assert 1003 in receiver.held


async def test_payloads_that_break_their_receiver_in_all_streams_are_parked_all_the_same(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()
    receiver.next_outcome = lambda block: Answered(503) if block == 7 else Answered(200)
    queue(ledger, 1)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms) as ref:
        await trio.sleep(1)
        for netuid in range(12):
            queue_scores(ledger, 7, 100 + netuid, netuid=netuid)
        ref.tell(OutboxGrew())
        await trio.sleep(HOURS)
    assert sorted(receiver.held) == [*range(100, 112), 1001]
    assert states(ledger).count("abandoned") == 12


@pytest.mark.parametrize("repeated", [Answered(500), Unknown("200 without the acknowledgement")])
async def test_a_receiver_that_does_not_repeat_its_answers_gets_all_the_same_what_waits(
    repeated: Outcome, ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver, blips = Fails(), [1002]

    def answer(block: int) -> Outcome:
        if block in blips:
            blips.remove(block)
            return Answered(503)
        return repeated if block in receiver.held else Answered(200)

    receiver.next_outcome = answer
    queue(ledger, 1, 2, 3)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms):
        await trio.sleep(400)
    assert set(states(ledger)) == {"delivered"}


async def test_a_receiver_that_is_slow_to_repeat_its_answers_gets_what_comes_meanwhile(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()

    async def submit(signed: Signed) -> Outcome:
        if json.loads(signed.body)["block"] in receiver.held:
            await trio.sleep(25.0)
        return await Fails.submit(receiver, signed)

    receiver.submit = submit  # type: ignore[method-assign]
    receiver.next_outcome = lambda block: Answered(503) if block == 1002 else Answered(200)
    queue(ledger, 1, 2)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms) as ref:
        for block in range(20):
            await trio.sleep(60)
            queue_scores(ledger, block)
            ref.tell(OutboxGrew())
            await trio.sleep(25.0 + 10.0 + 2.0)
            assert block in receiver.held


@pytest.mark.parametrize("outcome", FAILS)
async def test_a_gap_marker_is_kept_until_it_is_delivered_or_refused(
    outcome: Outcome, ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver, fails = Fails(), True

    async def submit(signed: Signed) -> Outcome:
        is_marker = json.loads(signed.body).get("kind") == "gap"
        return outcome if is_marker and fails else await Fails.submit(receiver, signed)

    receiver.submit = submit  # type: ignore[method-assign]
    receiver.next_outcome = lambda block: Answered(422) if block == 1002 else Answered(200)
    queue(ledger, 1, 2, 3)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms) as ref:
        for block in range(300):
            queue_scores(ledger, block)
            ref.tell(OutboxGrew())
            await trio.sleep(60)
        assert states(ledger)[1:3] == ["abandoned", "pending"]
        fails = False
        await trio.sleep(400)
    assert set(states(ledger)) == {"delivered", "abandoned"}
    assert receiver.markers == 1


@pytest.mark.parametrize("negotiated", [True, False])
async def test_a_receiver_that_has_acknowledged_nothing_and_gets_nothing_else_is_tried_on_and_told_of(
    negotiated: bool, ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()
    receiver.terms = msgspec.structs.replace(TAKES, negotiated=negotiated)
    receiver.next_outcome = lambda block: Answered(503)
    queue(ledger, 1)
    with capture_logs() as logged:
        async with emitting(ledger, receiver, ask_terms=receiver.ask_terms) as ref:
            await trio.sleep(HOURS)
            assert (await status(ref)).held_back == "the receiver answered 503"
    assert states(ledger) == ["pending"]
    levels = [line["log_level"] for line in logged if line["event"] == "relay attempt failed"]
    assert len(levels) > 60
    assert set(levels[3:]) == {"error"}


async def test_a_receiver_that_fails_what_it_has_acknowledged_is_told_of_as_down(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()
    queue(ledger, 1)
    with capture_logs() as logged:
        async with emitting(ledger, receiver, ask_terms=receiver.ask_terms) as ref:
            await trio.sleep(1)
            receiver.next_outcome = lambda block: Answered(503)
            queue(ledger, 2)
            ref.tell(OutboxGrew())
            await trio.sleep(HOURS)
    assert "relay receiver is down" in {line["event"] for line in logged}


async def test_streams_that_fail_at_once_hold_the_receiver_back_once(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = Fails()
    down = True
    receiver.next_outcome = lambda block: Answered(503) if down else Answered(200)
    for netuid in range(8):
        queue_scores(ledger, 7, netuid=netuid)
    async with emitting(ledger, receiver, ask_terms=receiver.ask_terms):
        await trio.sleep(1)
        assert len(receiver.sent) == 8
        down = False
        await trio.sleep(30)
    assert set(states(ledger)) == {"delivered"}
