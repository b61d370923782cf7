"""The emitter in virtual time, with a receiver that does as it is told."""

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from sqlalchemy import select, update

from actors import ActorRef, ChildSpec, Intensity, Registry, SupervisorSpec, open_system
from engram.clock import TrioClock
from engram.ledger import InlineLedger, open_inline
from engram.relay import RelayStatus, RetryPolicy, is_signed, records
from engram.relay.actor import EmitterPorts, RelayEmitter, Submits
from engram.relay.finality import Finality, FinalityGuard
from engram.relay.model import Answered, MinerScore, NodeMemory, Outcome, Unknown, Unreachable
from engram.relay.negotiation import NotKnown, Terms
from engram.relay.protocol import GetRelayStatus, OutboxGrew
from engram.relay.rounds import RoundLosses
from engram.relay.rules import memory_payload, scores_payload
from engram.relay.signer import Signed
from engram.relay.tables import relay_log, relay_outbox
from engram.telemetry.metrics import Metrics
from tests.crashes import may_crash
from tests.relay.samples import KEYRING, SIGNER, queue, rng, write

pytestmark = pytest.mark.rules

DOWN = Unreachable("nobody listens")


class ReceiverDouble:
    """Answers by `next_outcome`; remembers what it was sent, and when."""

    def __init__(self) -> None:
        self.next_outcome: Callable[[int], Outcome] = lambda attempt: Answered(200)
        self.sent: list[Signed] = []
        self.times: list[float] = []
        self.hangs_s = 0.0
        self.metrics = Metrics()
        """Where the emitter counts its attempts."""

    async def submit(self, signed: Signed) -> Outcome:
        self.sent.append(signed)
        self.times.append(trio.current_time())
        number = len(self.sent)
        await trio.sleep(self.hangs_s)
        return self.next_outcome(number)

    @property
    def blocks(self) -> list[int]:
        return [json.loads(signed.body)["block"] for signed in self.sent]


@pytest.fixture
def ledger() -> Iterator[InlineLedger]:
    ledger = open_inline()
    yield ledger
    ledger.close()


@pytest.fixture
def receiver() -> ReceiverDouble:
    return ReceiverDouble()


@asynccontextmanager
async def emitting(
    ledger: InlineLedger,
    receiver: Submits | None,
    guard: FinalityGuard | None = None,
    ask_terms: Callable[[bool], Awaitable[Terms | NotKnown]] | None = None,
    clock: TrioClock | None = None,
    destination: str = "",
) -> AsyncIterator[ActorRef]:
    metrics = receiver.metrics if isinstance(receiver, ReceiverDouble) else Metrics()
    ports = EmitterPorts(
        ledger=ledger,
        receiver=receiver,
        keyring=KEYRING,
        policy=RetryPolicy(),
        clock=clock or TrioClock(),
        rng=rng(),
        metrics=metrics,
        losses=RoundLosses(metrics),
        guard=guard,
        ask_terms=ask_terms,
        destination=destination,
    )
    start = ChildSpec("relay", lambda: RelayEmitter(ports), name="relay")
    spec, registry = SupervisorSpec("root", [start], intensity=Intensity(3, 5.0)), Registry()
    async with open_system(spec, registry=registry):
        yield registry.ref(RelayEmitter, "relay")


async def status(ref: ActorRef) -> RelayStatus:
    return await ref.call(GetRelayStatus())


def log_of(ledger: InlineLedger) -> list[str]:
    return list(write(ledger, lambda c: c.scalars(select(relay_log.c.status).order_by(relay_log.c.id)).all()))


def states(ledger: InlineLedger) -> list[str]:
    return list(write(ledger, lambda c: c.scalars(select(relay_outbox.c.state).order_by(relay_outbox.c.id)).all()))


async def test_what_waited_at_the_start_is_sent_in_order_and_signed(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    queue(ledger, 2, 1, 3)
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(1)
        assert receiver.blocks == [1002, 1001, 1003]
        assert all(is_signed(json.loads(signed.body)) for signed in receiver.sent)
        assert log_of(ledger) == ["ok"] * 3
        found = await status(ref)
        assert (found.enabled, found.total_ok, found.outbox_pending) == (True, 3, 0)


async def test_a_hint_wakes_it_and_without_one_it_looks_again_by_itself(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(1)
        queue(ledger, 1)
        ref.tell(OutboxGrew())
        await trio.sleep(0.1)
        assert receiver.times == [pytest.approx(1.0, abs=0.05)]
        queue(ledger, 2)
        await trio.sleep(16)
        assert receiver.blocks == [1001, 1002]


async def test_a_failing_receiver_gets_ten_attempts_on_the_emitters_own_clock(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    """Another stream goes on meanwhile, so that the payload is to blame."""
    fails = {"memory", "gap"}
    receiver.next_outcome = lambda attempt: (
        Answered(503) if json.loads(receiver.sent[attempt - 1].body).get("kind") in fails else Answered(200)
    )
    queue(ledger, 1)
    async with emitting(ledger, receiver) as ref:
        for block in range(600):
            scores = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=1, block=block, uid=5, round_ts=block)
            write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=scores, now=TrioClock().now()))
            ref.tell(OutboxGrew())
            await trio.sleep(10)
        kinds = [json.loads(signed.body).get("kind") for signed in receiver.sent]
        ours = [place for place, kind in enumerate(kinds) if kind == "memory"]
        times = [receiver.times[place] for place in ours]
        waits = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert len(ours) == 11, "the first one counts only once the receiver was found well since"
        assert 10 <= waits[0] <= 12
        assert all(waits[place] < waits[place + 1] for place in range(1, 5))
        assert max(waits) <= 300.2
        assert len({receiver.sent[place].body for place in ours}) == 1
        failed = kinds.count("memory") + kinds.count("gap")
        assert [state for state in states(ledger) if state != "delivered"] == ["abandoned", "pending"]
        assert log_of(ledger).count("http_503") == failed
        assert receiver.metrics.registry.get_sample_value("engram_relay_sends_total", {"outcome": "http_503"}) == failed
        found = await status(ref)
        assert (found.dlq_abandoned, found.total_failed) == (1, failed)


async def test_an_unreachable_receiver_uses_up_no_attempt_and_all_is_sent_when_it_is_back(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    receiver.next_outcome = lambda attempt: DOWN
    queue(ledger, 1, 2, 3)
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(6 * 3_600)
        tries = len(receiver.sent)
        assert 70 <= tries <= 110, "about one a 300 s"
        assert set(receiver.blocks) == {1001}
        assert set(log_of(ledger)) == {"error"}
        assert (await status(ref)).outbox_pending == 3
        receiver.next_outcome = lambda attempt: Answered(200)
        await trio.sleep(301)
        assert receiver.blocks[tries:] == [1001, 1002, 1003]
        assert states(ledger) == ["delivered"] * 3
        row = write(ledger, lambda c: c.execute(select(relay_outbox.c.attempts)).scalars().all())
        assert row == [1, 1, 1]


async def test_a_refusal_of_the_payload_parks_it_at_once_behind_a_signed_gap_marker_and_holds_up_nobody(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    receiver.next_outcome = lambda attempt: Answered(422) if attempt == 1 else Answered(200)
    queue(ledger, 1, 2)
    async with emitting(ledger, receiver):
        await trio.sleep(1)
        assert states(ledger) == ["abandoned", "delivered", "delivered"]
        sent = [json.loads(signed.body) for signed in receiver.sent]
        assert [document["kind"] for document in sent] == ["memory", "gap", "memory"]
        assert sent[1]["output_hash"] == sent[0]["output_hash"]
        assert is_signed(sent[1])


@pytest.mark.parametrize("status_code", [301, 401, 402, 403, 404])
async def test_a_receiver_that_refuses_us_is_held_back_and_nothing_is_parked(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock, status_code: int
) -> None:
    """A minute of 401 lost nothing (imtaqin/waxum#68)."""
    receiver.next_outcome = lambda attempt: Answered(status_code)
    queue(ledger, 1, 2)
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(60)
        found = await status(ref)
        assert (found.outbox_pending, found.dlq_abandoned) == (2, 0)
        assert found.held_back == f"the receiver answered {status_code}"
        assert receiver.metrics.registry.get_sample_value("engram_relay_held_back") == 1
        assert set(receiver.blocks) == {1001}
        receiver.next_outcome = lambda attempt: Answered(200)
        await trio.sleep(301)
        assert states(ledger) == ["delivered", "delivered"]
        assert (await status(ref)).held_back == ""
        assert receiver.metrics.registry.get_sample_value("engram_relay_held_back") == 0


async def test_an_attempt_that_the_end_of_the_process_interrupts_is_repeated_and_uses_up_none(
    ledger: InlineLedger,
    receiver: ReceiverDouble,
    autojump_clock: trio.testing.MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    queue(ledger, 1)
    at_once = relay_outbox.update().values(state="sending", attempts=10, signed=b"{}", signed_hash="ab")
    write(ledger, lambda c: c.execute(at_once))
    async with emitting(ledger, receiver):
        await trio.sleep(0.1)
        assert states(ledger) == ["pending"]
        assert write(ledger, lambda c: c.scalar(select(relay_outbox.c.attempts))) == 9
    assert "will be repeated" in capsys.readouterr().out


async def test_a_refused_key_does_not_hold_up_the_streams_of_others(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    def refuses_memory(attempt: int) -> Outcome:
        document = json.loads(receiver.sent[attempt - 1].body)
        return Answered(403 if document.get("kind") == "memory" else 200)

    receiver.next_outcome = refuses_memory
    queue(ledger, 1)
    for block in range(60):
        scores = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=1, block=block, uid=5, round_ts=block)
        write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=scores, now=TrioClock().now()))
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(3_600)
        ok = [at for at, block in zip(receiver.times, receiver.blocks, strict=True) if block < 60]
        assert (len(ok), ok[-1] < 15) == (60, True)
        refused = [at for at, block in zip(receiver.times, receiver.blocks, strict=True) if block == 1001]
        waits = [later - earlier for earlier, later in itertools.pairwise(refused)]
        assert 12 <= len(refused) <= 20, "about one a 300 s"
        assert waits[1] < waits[2] < waits[3], "it grows"
        found = await status(ref)
        assert (found.outbox_pending, found.dlq_abandoned) == (1, 0)
        assert found.held_back == f"stream 450/{SIGNER.hotkey}/memory: the receiver answered 403"
        assert receiver.metrics.registry.get_sample_value("engram_relay_held_back") == 1
        receiver.next_outcome = lambda attempt: Answered(200)
        await trio.sleep(361)
        assert set(states(ledger)) == {"delivered"}
        assert (await status(ref)).held_back == ""
        assert receiver.metrics.registry.get_sample_value("engram_relay_held_back") == 0


async def test_after_an_entry_that_was_not_confirmed_nothing_later_of_its_stream_leaves_but_other_streams_do(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    """informalsystems/hermes#3540, #2670"""
    receiver.next_outcome = lambda attempt: Answered(503) if receiver.blocks[attempt - 1] == 1001 else Answered(200)
    queue(ledger, 1, 2)
    other = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=450, block=7, uid=5, round_ts=1.0)
    write(ledger, lambda c: records.enqueue(c, other, TrioClock().now(), signer=SIGNER.hotkey))
    async with emitting(ledger, receiver):
        await trio.sleep(5)
        assert sorted(receiver.blocks) == [7, 1001]
        receiver.next_outcome = lambda attempt: Answered(200)
        await trio.sleep(20)
        assert [block for block in receiver.blocks if block > 7] == [1001, 1001, 1002]


async def test_streams_run_beside_each_other_up_to_the_bound(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    score = {"0": MinerScore(1.0, None, 1.0)}
    for netuid in range(12):
        for block in (1, 2):
            payload = scores_payload(score, netuid=netuid, block=block, uid=netuid, round_ts=block)
            write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=payload, now=TrioClock().now()))
    receiver.hangs_s = 1.0
    async with emitting(ledger, receiver):
        await trio.sleep(0.5)
        assert len(receiver.sent) == 8
        await trio.sleep(3.2)
        order: dict[int, list[int]] = {}
        for signed in receiver.sent:
            document = json.loads(signed.body)
            order.setdefault(document["netuid"], []).append(document["block"])
        assert order == {netuid: [1, 2] for netuid in range(12)}


async def test_a_block_gets_one_signature_and_another_payload_of_it_is_withdrawn(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    """hyperlane-xyz/hyperlane-monorepo#9684"""
    for recall, at in ((1.0, 1.0), (0.5, 2.0)):
        payload = scores_payload({"0": MinerScore(recall, None, 1.0)}, netuid=450, block=7, uid=5, round_ts=at)
        write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=payload, now=TrioClock().now()))
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(5)
        assert states(ledger) == ["delivered", "withdrawn"]
        assert len(receiver.sent) == 1
        assert (await status(ref)).withdrawn == 1
        assert receiver.metrics.registry.get_sample_value("engram_relay_withdrawn_total") == 1


@pytest.mark.parametrize("jump_s", [-86_400.0, 40 * 86_400.0])
async def test_a_wall_clock_that_jumps_neither_keeps_the_receiver_shut_nor_permits_a_second_signature(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock, jump_s: float
) -> None:
    clock = TrioClock()
    other = scores_payload({"0": MinerScore(0.5, None, 1.0)}, netuid=450, block=7, uid=5, round_ts=2.0)
    first = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=450, block=7, uid=5, round_ts=1.0)
    write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=first, now=clock.now()))
    async with emitting(ledger, receiver, clock=clock) as ref:
        await trio.sleep(1)
        receiver.next_outcome = lambda attempt: Answered(401)
        queue(ledger, 1, now=clock.now())
        ref.tell(OutboxGrew())
        await trio.sleep(1)
        clock.jump(jump_s)
        receiver.next_outcome = lambda attempt: Answered(200)
        await trio.sleep(3_700)
        write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=other, now=clock.now()))
        ref.tell(OutboxGrew())
        await trio.sleep(30)
        assert write(ledger, lambda c: records.count(c, "withdrawn")) == 1
        assert [block for block in receiver.blocks if block == 7] == [7], "one hash of a block, ever"
        assert receiver.blocks[-1] == 1001, "it was delivered"


@pytest.mark.parametrize(
    ("found", "expected"),
    [(Finality.FINAL, "delivered"), (Finality.AWAITED, "pending"), (Finality.REORGANIZED, "withdrawn")],
)
async def test_a_payload_leaves_only_when_its_block_is_final(
    ledger: InlineLedger,
    receiver: ReceiverDouble,
    autojump_clock: trio.testing.MockClock,
    found: Finality,
    expected: str,
) -> None:
    questions: list[tuple[int, bytes | None]] = []

    async def guard(block: int, block_hash: bytes | None) -> Finality:
        questions.append((block, block_hash))
        return found

    queue(ledger, 1)
    async with emitting(ledger, receiver, guard):
        await trio.sleep(20)
        assert states(ledger) == [expected]
        assert len(receiver.sent) == (expected == "delivered")
        assert questions[0] == (1001, None)
        withdrawn = receiver.metrics.registry.get_sample_value("engram_relay_withdrawn_total")
        assert withdrawn == (expected == "withdrawn")


class Counting:
    """The ledger, and how many transactions it was given to write."""

    holds = True

    def __init__(self, ledger: InlineLedger) -> None:
        self._ledger = ledger
        self.writes = 0
        self.read = ledger.read

    async def write(self, transaction: Callable[[Any], Any]) -> Any:
        self.writes += 1
        return await self._ledger.write(transaction)


async def test_payloads_of_a_final_block_cost_one_look_and_one_transaction_each(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    questions: list[int] = []

    async def guard(block: int, block_hash: bytes | None) -> Finality:
        questions.append(block)
        await trio.sleep(0.01)
        return Finality.FINAL

    for stream in range(3):
        for part in range(20):
            nodes = {SIGNER.hotkey: NodeMemory(vectors=part)}
            found = memory_payload(nodes, netuid=stream, block=7, source=f"nodes{part}", round_ts=stream)
            write(
                ledger,
                partial(records.enqueue, signer=SIGNER.hotkey, payload=found, now=TrioClock().now(), block_hash=b"h"),
            )
    counting = Counting(ledger)
    async with emitting(counting, receiver, guard):  # type: ignore[arg-type]
        await trio.sleep(1)
        assert len(receiver.sent) == 60
        assert questions == [7]
        assert counting.writes <= 60 + 10, "an outcome is written together with the next claim"


async def test_a_block_that_is_not_final_holds_up_no_stream_whose_block_is(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    depth = 7
    score = {"0": MinerScore(1.0, None, 1.0)}

    async def guard(block: int, block_hash: bytes | None) -> Finality:
        return Finality.FINAL if block <= depth else Finality.AWAITED

    for netuid, blocks in ((1, (7, 9)), (2, (8,)), (3, (5, 6, 7))):
        for block in blocks:
            found = scores_payload(score, netuid=netuid, block=block, uid=netuid, round_ts=block)
            write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=found, now=TrioClock().now()))
    async with emitting(ledger, receiver, guard):
        await trio.sleep(5)
        assert sorted(receiver.blocks) == [5, 6, 7, 7]
        depth = 9
        await trio.sleep(2.5)
        assert sorted(receiver.blocks) == [5, 6, 7, 7, 8, 9]


async def test_a_dead_letter_that_is_retried_is_sent_again(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    receiver.next_outcome = lambda attempt: Answered(400)
    queue(ledger, 1)
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(1)
        receiver.next_outcome = lambda attempt: Answered(200)
        write(ledger, lambda c: records.dlq_retry(c, 1, TrioClock().now()))
        ref.tell(OutboxGrew())
        await trio.sleep(1)
        assert states(ledger) == ["delivered", "discarded"]
        assert receiver.sent[0] == receiver.sent[2]


async def test_an_unknown_outcome_is_logged_as_such_and_sent_again_with_the_same_key(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    receiver.next_outcome = lambda attempt: Unknown("cut off") if attempt == 1 else Answered(200)
    queue(ledger, 1)
    async with emitting(ledger, receiver):
        await trio.sleep(15)
        assert log_of(ledger) == ["unknown", "ok"]
        assert receiver.sent[0].signed_hash == receiver.sent[1].signed_hash


async def test_a_receiver_that_hangs_delays_nobody_who_asks_for_the_status(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    receiver.hangs_s = 1_000.0
    queue(ledger, 1)
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(1)
        before = trio.current_time()
        assert (await status(ref)).outbox_pending == 1
        assert trio.current_time() == before


async def test_a_process_that_ends_during_an_attempt_sends_the_same_bytes_after_its_restart(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    receiver.hangs_s = 1_000.0
    queue(ledger, 1)
    async with emitting(ledger, receiver):
        await trio.sleep(1)
    assert states(ledger) == ["sending"]
    receiver.hangs_s = 0.0
    async with emitting(ledger, receiver):
        await trio.sleep(15)
    assert receiver.sent[0] == receiver.sent[1]
    assert log_of(ledger) == ["unknown", "ok"]
    assert states(ledger) == ["delivered"]


async def test_an_attempt_under_way_may_end_before_the_emitter_stops(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    receiver.hangs_s = 3.0
    queue(ledger, 1, 2)
    async with emitting(ledger, receiver):
        await trio.sleep(1)
    assert trio.current_time() == pytest.approx(3.0)
    assert states(ledger) == ["delivered", "pending"]
    assert log_of(ledger) == ["ok"]


@may_crash(RuntimeError)
async def test_a_crash_of_the_emitter_loses_nothing(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    def crash(attempt: int) -> Outcome:
        if attempt == 1:
            raise RuntimeError("injected")
        return Answered(200)

    receiver.next_outcome = crash
    queue(ledger, 1, 2)
    async with emitting(ledger, receiver) as ref:
        await trio.sleep(30)
        assert states(ledger) == ["delivered", "delivered"]
        assert (await status(ref)).total_ok == 2


async def test_without_a_receiver_it_is_off_and_says_so(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    queue(ledger, 1)
    async with emitting(ledger, None) as ref:
        ref.tell(OutboxGrew())
        await trio.sleep(1_000)
        found = await status(ref)
        assert (found.enabled, found.outbox_pending) == (False, 1)
        assert log_of(ledger) == []


async def test_old_entries_are_forgotten_while_it_runs(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    queue(ledger, 1)
    async with emitting(ledger, receiver):
        await trio.sleep(1)
        assert states(ledger) == ["delivered"]
        write(ledger, lambda c: c.execute(update(relay_outbox).values(updated_at=1.0)))
        await trio.sleep(3_601)
        assert states(ledger) == []


HOUR = 3_600.0


def hour(at: float, attempt: int) -> Outcome:
    """A receiver's bad hour: gone, flapping, slow answers that are lost, refusing for the moment, then well."""
    if at < 600:
        return DOWN
    if at < 1_200:
        return DOWN if int(at / 30) % 2 else Answered(200)
    if at < 1_800:
        return Unknown("the answer was lost") if attempt % 2 else Answered(200)
    if at < 2_400:
        return Answered((429, 500, 401, 404, 503)[attempt % 5], retry_after_s=30.0 if attempt % 5 == 0 else None)
    return Unknown("garbage") if at < 2_700 and attempt % 3 == 0 else Answered(200)


async def test_after_an_hour_of_every_fault_each_payload_is_delivered_once_and_in_order(
    ledger: InlineLedger, autojump_clock: trio.testing.MockClock
) -> None:
    """What was taken is what a receiver would hold: it counts a lost answer's payload, and each payload once."""
    receiver = ReceiverDouble()
    held: dict[int, list[tuple[int, str]]] = {}
    refused: set[int] = set()

    class Taking:
        async def submit(self, signed: Signed) -> Outcome:
            document = json.loads(signed.body)
            await trio.sleep(0.5)
            outcome = await receiver.submit(signed)
            if document.get("kind") == "gap":
                return outcome
            if document["block"] % 17 == 0:
                refused.add(document["block"])
                return Answered(400) if outcome == Answered(200) else outcome
            if outcome == Answered(200) or isinstance(outcome, Unknown):
                entries = held.setdefault(document["netuid"], [])
                if (entry := (document["block"], signed.signed_hash)) not in entries:
                    entries.append(entry)
            return outcome

    receiver.next_outcome = lambda attempt: hour(trio.current_time(), attempt)
    score, queued = {"0": MinerScore(1.0, None, 1.0)}, list[int]()
    async with emitting(ledger, Taking()) as ref:
        for number in range(120):
            payload = scores_payload(score, netuid=number % 4, block=1 + number, uid=5, round_ts=number)
            write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=payload, now=TrioClock().now()))
            queued.append(1 + number)
            ref.tell(OutboxGrew())
            await trio.sleep(HOUR / 120)
        await trio.sleep(HOUR)
        found = await status(ref)
    taken = [block for entries in held.values() for block, _ in entries]
    parked = write(ledger, lambda c: [entry.block for entry in records.dlq_list(c, 1_000)])
    assert sorted(taken + parked) == queued, "each is with the receiver or parked, none twice"
    assert refused <= set(parked)
    assert (found.outbox_pending, found.dlq_abandoned) == (0, len(parked))
    for entries in held.values():
        blocks = [block for block, _ in entries]
        assert blocks == sorted(blocks)
    hashes = {block: digest for entries in held.values() for block, digest in entries}
    assert len(hashes) == len(taken), "no two hashes for one block"


async def test_a_backlog_of_old_lines_is_forgotten_at_once(
    ledger: InlineLedger, receiver: ReceiverDouble, autojump_clock: trio.testing.MockClock
) -> None:
    line = {"outbox_id": 1, "output_hash": "ab", "block": 1, "status": "ok", "http_status": 200, "at": -1e9}
    lines = [line] * (2 * records.PURGED_AT_ONCE + 5)
    write(ledger, lambda c: c.execute(relay_log.insert(), lines))
    async with emitting(ledger, receiver):
        await trio.sleep(1)
        assert log_of(ledger) == []
