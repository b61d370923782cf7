import json
from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import select

from engram.ledger import InlineLedger, open_inline
from engram.relay import (
    EntryState,
    NodeMemory,
    NoSuchEntry,
    NotAbandoned,
    NotWaiting,
    is_signed,
    memory_payload,
    records,
    scores_payload,
)
from engram.relay.model import Answered, Enqueued, Entry, MinerScore, Outcome, Payload, Unknown
from engram.relay.negotiation import ORIGINAL, Terms
from engram.relay.rules import Decision, RetryPolicy, decide, ranking_payload
from engram.relay.tables import relay_log, relay_outbox
from tests.relay.samples import KEYPAIR, KEYRING, NOW, SIGNER, payload, queue, rng, write

pytestmark = pytest.mark.rules


@pytest.fixture
def ledger() -> Iterator[InlineLedger]:
    ledger = open_inline()
    yield ledger
    ledger.close()


def claim(ledger: InlineLedger, now: float = NOW) -> Entry | None:
    return next(iter(write(ledger, lambda connection: records.claim(connection, now, KEYRING.sign))), None)


def decision(entry: Entry, outcome: Outcome, now: float = NOW) -> Decision:
    return decide(entry.attempts, outcome, now, RetryPolicy(), rng())


def attempt(ledger: InlineLedger, outcome: Outcome, now: float = NOW) -> Entry:
    entry = claim(ledger, now)
    assert entry is not None
    assert write(ledger, lambda c: records.settle(c, entry, outcome, decision(entry, outcome, now), now))
    return entry


def states(ledger: InlineLedger) -> list[str]:
    return list(write(ledger, lambda c: c.scalars(select(relay_outbox.c.state).order_by(relay_outbox.c.id)).all()))


def abandoned(ledger: InlineLedger, number: int = 1) -> Entry:
    """A dead letter, whose gap marker went out."""
    queue(ledger, number)
    entry = attempt(ledger, Answered(400))
    assert attempt(ledger, Answered(200)).kind == "gap"
    return entry


def test_entries_are_claimed_in_the_order_they_were_queued(ledger: InlineLedger) -> None:
    queue(ledger, 3, 1, 2)
    blocks = [attempt(ledger, Answered(200)).block for _ in range(3)]
    assert blocks == [1003, 1001, 1002]
    assert claim(ledger) is None


def test_the_same_nonce_is_queued_once(ledger: InlineLedger) -> None:
    queue(ledger, 1)
    assert write(ledger, lambda c: records.enqueue(c, payload(1), NOW, signer=SIGNER.hotkey)) is Enqueued.KNOWN
    scores = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=450, block=1, uid=5, round_ts=NOW)
    assert write(ledger, lambda c: records.enqueue(c, scores, NOW, signer=SIGNER.hotkey)) is Enqueued.QUEUED
    assert len(states(ledger)) == 2


def test_the_outbox_is_bounded(ledger: InlineLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.relay.records.outbox.OPEN_BOUND", 2)
    queue(ledger, 1, 2)
    assert write(ledger, lambda c: records.enqueue(c, payload(3), NOW, signer=SIGNER.hotkey)) is Enqueued.REFUSED
    assert len(states(ledger)) == 2
    attempt(ledger, Answered(200))
    queue(ledger, 3)


def test_dead_letters_take_no_room_of_those_that_wait(ledger: InlineLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 of them silently ended the relay."""
    monkeypatch.setattr("engram.relay.records.outbox.OPEN_BOUND", 2)
    abandoned(ledger, 1)
    abandoned(ledger, 2)
    queue(ledger, 3, 4)
    assert states(ledger) == ["abandoned", "delivered", "abandoned", "delivered", "pending", "pending"]
    assert write(ledger, lambda c: records.enqueue(c, payload(5), NOW, signer=SIGNER.hotkey)) is Enqueued.REFUSED


def test_an_entry_is_signed_once_and_every_attempt_sends_the_same_bytes(ledger: InlineLedger) -> None:
    queue(ledger, 1)
    first = attempt(ledger, Answered(500))
    second = claim(ledger, NOW + 20)
    assert second is not None
    assert (second.signed, second.signed_hash) == (first.signed, first.signed_hash)
    assert (first.attempts, second.attempts) == (1, 2)
    assert is_signed(json.loads(first.signed or b""))


def test_an_entry_that_waits_for_its_time_holds_back_its_own_stream_alone(ledger: InlineLedger) -> None:
    queue(ledger, 1, 2)
    attempt(ledger, Answered(503))
    assert claim(ledger) is None
    scores = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=450, block=1, uid=5, round_ts=NOW)
    write(ledger, lambda c: records.enqueue(c, scores, NOW, signer=SIGNER.hotkey))
    other = claim(ledger)
    assert other is not None
    assert other.kind == "scores"
    due_at = write(ledger, records.next_attempt_at)
    assert due_at is not None
    assert due_at >= NOW + 10
    (again,) = write(ledger, lambda c: records.claim(c, NOW + 13, KEYRING.sign, room=5))
    assert again.block == 1001, "the other stream has an entry under way"


def test_a_wall_clock_that_went_back_holds_nothing_up(ledger: InlineLedger) -> None:
    queue(ledger, 1, now=NOW + 100 * 86_400)
    assert claim(ledger, NOW) is not None


def test_an_outcome_is_written_once(ledger: InlineLedger) -> None:
    queue(ledger, 1)
    entry = attempt(ledger, Answered(200))
    late = Unknown("late")
    assert write(ledger, lambda c: records.settle(c, entry, late, decision(entry, late), NOW)) is False
    assert states(ledger) == ["delivered"]
    assert len(write(ledger, lambda c: c.execute(select(relay_log)).all())) == 1


def test_what_was_being_sent_when_the_process_ended_is_unknown_and_tried_again(ledger: InlineLedger) -> None:
    queue(ledger, 1)
    assert claim(ledger) is not None
    assert len(write(ledger, lambda c: records.interrupted(c, decision, NOW))) == 1
    assert states(ledger) == ["pending"]
    entry, lines = write(ledger, lambda c: records.dlq_show(c, 1))
    assert entry.attempts == 1
    assert [line.status for line in lines] == ["unknown"]
    assert write(ledger, lambda c: records.interrupted(c, decision, NOW)) == []


def test_dead_letters_are_listed_shown_retried_and_discarded(ledger: InlineLedger) -> None:
    one, two = abandoned(ledger, 1), abandoned(ledger, 2)
    assert [entry.id for entry in write(ledger, records.dlq_list)] == [one.id, two.id]
    assert [entry.id for entry in write(ledger, lambda c: records.dlq_list(c, 10, one.id))] == [two.id]
    shown, lines = write(ledger, lambda c: records.dlq_show(c, one.id))
    assert (shown.state, shown.last_reason) == (EntryState.ABANDONED, "the receiver answered 400")
    assert [(line.status, line.http_status) for line in lines] == [("http_400", 400)]
    write(ledger, lambda c: records.dlq_retry(c, one.id, NOW))
    write(ledger, lambda c: records.dlq_discard(c, two.id, NOW))
    assert states(ledger) == ["pending", "delivered", "discarded", "delivered"]
    again = claim(ledger)
    assert again is not None
    assert (again.attempts, again.signed) == (1, one.signed)


def test_all_dead_letters_are_retried_at_once(ledger: InlineLedger) -> None:
    abandoned(ledger, 1)
    abandoned(ledger, 2)
    assert list(write(ledger, lambda c: records.dlq_retry_all(c, NOW))) == [1, 3]
    assert states(ledger) == ["pending", "delivered", "pending", "delivered"]
    assert [attempt(ledger, Answered(200)).block for _ in range(2)] == [1001, 1002]


def test_only_dead_letters_are_retried_or_discarded(ledger: InlineLedger) -> None:
    queue(ledger, 1)
    with pytest.raises(NotAbandoned, match="entry 1 is pending, not abandoned"):
        write(ledger, lambda c: records.dlq_retry(c, 1, NOW))
    with pytest.raises(NotAbandoned):
        write(ledger, lambda c: records.dlq_discard(c, 1, NOW))
    with pytest.raises(NoSuchEntry, match="no entry 9"):
        write(ledger, lambda c: records.dlq_show(c, 9))


def test_an_entry_that_waits_is_parked_behind_its_marker_and_its_marker_can_be_given_up(ledger: InlineLedger) -> None:
    queue(ledger, 1, 2)
    attempt(ledger, Answered(503))
    write(ledger, lambda c: records.dlq_park(c, 1, NOW))
    parked, _ = write(ledger, lambda c: records.dlq_show(c, 1))
    assert (parked.state, parked.last_reason) == (EntryState.ABANDONED, "parked by the operator")
    (marker,) = write(ledger, lambda c: records.due(c, NOW))
    assert (marker.kind, marker.block) == ("gap", 1001), "at once, however long the entry was to wait"
    write(ledger, lambda c: records.dlq_park(c, marker.id, NOW))
    counted = write(ledger, records.count_by_state)
    assert (counted["pending"], counted["abandoned"], counted["discarded"]) == (1, 1, 1)
    sent = claim(ledger)
    assert sent is not None
    assert sent.block == 1002
    with pytest.raises(NotWaiting, match="entry 2 is sending, not pending: try again in a moment"):
        write(ledger, lambda c: records.dlq_park(c, sent.id, NOW))
    with pytest.raises(NotWaiting, match="entry 1 is abandoned, not pending: nothing to do"):
        write(ledger, lambda c: records.dlq_park(c, 1, NOW))
    with pytest.raises(NoSuchEntry, match="no entry 9"):
        write(ledger, lambda c: records.dlq_park(c, 9, NOW))


def test_the_status_counts_what_waits_what_failed_and_what_went_out(ledger: InlineLedger) -> None:
    queue(ledger, 1, 2, 3, 4)
    delivered = attempt(ledger, Answered(200), NOW + 1)
    attempt(ledger, Answered(400), NOW + 2)
    attempt(ledger, Answered(503), NOW + 3)
    status = write(ledger, lambda c: records.status(c, enabled=True, failures_in_a_row=2))
    assert (status.outbox_pending, status.dlq_pending, status.dlq_abandoned) == (3, 1, 1), "a gap marker waits, too"
    assert (status.total_ok, status.total_failed) == (1, 2)
    assert (status.last_ok_hash, status.last_ok_at) == (delivered.output_hash, NOW + 1)
    assert (status.oldest_pending_at, status.failures_in_a_row, status.enabled) == (NOW + 2, 2, True)


def test_the_status_of_an_empty_outbox(ledger: InlineLedger) -> None:
    status = write(ledger, lambda c: records.status(c, enabled=False, failures_in_a_row=0))
    assert (status.outbox_pending, status.last_ok_hash, status.oldest_pending_at) == (0, None, None)


def test_delivered_entries_are_forgotten_after_a_week_and_dead_letters_never(ledger: InlineLedger) -> None:
    queue(ledger, 1)
    attempt(ledger, Answered(200))
    abandoned(ledger, 2)
    week = 7 * 86_400.0
    assert write(ledger, lambda c: records.purge(c, NOW + week - 1)) == 0
    assert write(ledger, lambda c: records.purge(c, NOW + 10 * week)) == 3, "as many lines of the log"
    assert states(ledger) == ["abandoned"]
    assert write(ledger, lambda c: records.dlq_show(c, 2))[1] == []


def test_counters_say_what_is_kept_in_every_state(ledger: InlineLedger) -> None:
    def counted() -> dict[str, int]:
        return {state: count for state, count in write(ledger, records.count_by_state).items() if count}

    queue(ledger, 1, 2, 3)
    attempt(ledger, Answered(200))
    assert counted() == {"pending": 2, "delivered": 1}
    parked = attempt(ledger, Answered(400))
    assert counted() == {"pending": 2, "delivered": 1, "abandoned": 1}, "a gap marker waits in its place"
    write(ledger, lambda c: records.dlq_discard(c, parked.id, NOW))
    assert counted() == {"pending": 2, "delivered": 1, "discarded": 1}
    (marker,) = write(ledger, lambda c: records.due(c, NOW))
    write(ledger, lambda c: records.withdraw(c, marker, "reorganized", NOW))
    assert counted() == {"pending": 1, "delivered": 1, "discarded": 1, "withdrawn": 1}
    assert write(ledger, lambda c: records.purge(c, NOW + 8 * 86_400.0)) == 3
    assert counted() == {"pending": 1}


def test_only_an_entry_that_may_leave_is_claimed(ledger: InlineLedger) -> None:
    queue(ledger, 1)
    (looked_at,) = write(ledger, lambda c: records.due(c, NOW))
    scores = scores_payload({"0": MinerScore(1.0, None, 1.0)}, netuid=450, block=1, uid=5, round_ts=NOW)
    write(ledger, lambda c: records.enqueue(c, scores, NOW - 1, signer=SIGNER.hotkey))
    assert (
        write(ledger, lambda c: records.claim(c, NOW, KEYRING.sign, may_leave=lambda entry: entry.id == looked_at.id))
        == []
    )
    other = claim(ledger)
    assert other is not None
    assert other.kind == "scores"
    (found,) = write(
        ledger, lambda c: records.claim(c, NOW, KEYRING.sign, may_leave=lambda entry: entry.id == looked_at.id)
    )
    assert found.id == looked_at.id


def test_one_entry_of_each_stream_is_claimed_as_far_as_there_is_room(ledger: InlineLedger) -> None:
    for number, netuid in enumerate((450, 451, 452, 450)):
        scores = scores_payload(
            {"0": MinerScore(1.0, None, 1.0)}, netuid=netuid, block=number, uid=5, round_ts=NOW + number
        )
        write(ledger, lambda c, s=scores, n=number: records.enqueue(c, s, NOW + n, signer=SIGNER.hotkey))  # type: ignore[misc]
    claimed = write(ledger, lambda c: records.claim(c, NOW + 9, KEYRING.sign, room=2))
    assert [entry.block for entry in claimed] == [0, 1]
    claimed = write(ledger, lambda c: records.claim(c, NOW + 9, KEYRING.sign, room=9))
    assert [entry.block for entry in claimed] == [2], "the first stream's second entry waits for its first"


def test_a_payload_leaves_in_the_form_that_its_receiver_takes(ledger: InlineLedger) -> None:
    nodes = {KEYPAIR.ss58: NodeMemory(vectors=3, root=None)}
    full = memory_payload(nodes, netuid=450, block=7, source="nodes0", round_ts=NOW)
    write(ledger, lambda c: records.enqueue(c, full, NOW, signer=SIGNER.hotkey))
    (entry,) = write(ledger, lambda c: records.claim(c, NOW, KEYRING.sign, terms=ORIGINAL))
    document = json.loads(entry.signed or b"")
    assert (document["schema_version"], document["output_hash"]) == ("engram-v1", entry.output_hash)
    assert entry.output_hash != full.output_hash
    assert "root" not in document["nodes"][KEYPAIR.ss58]
    assert is_signed(document)
    write(ledger, lambda c: records.settle(c, entry, Answered(503), decision(entry, Answered(503)), NOW))
    (again,) = write(
        ledger, lambda c: records.claim(c, NOW + 99, KEYRING.sign, terms=Terms({"memory": ("engram-v2",)}))
    )
    assert again.signed == entry.signed, "what was signed once is sent as it is"


def test_what_the_receiver_takes_in_no_form_is_parked_and_a_marker_that_it_does_not_take_is_discarded(
    ledger: InlineLedger,
) -> None:
    queue(ledger, 1, 2)
    terms = Terms({"scores": ("engram-v1",)})
    assert write(ledger, lambda c: records.claim(c, NOW, KEYRING.sign, room=5, terms=terms)) == []
    found = write(ledger, lambda c: c.execute(select(relay_outbox.c.kind, relay_outbox.c.state).order_by("id")).all())
    assert sorted(found) == [("gap", "discarded")] * 2 + [("memory", "abandoned")] * 2
    assert write(ledger, records.count_by_state) == {
        "pending": 0,
        "abandoned": 2,
        "delivered": 0,
        "discarded": 2,
        "withdrawn": 0,
    }
    reason = write(ledger, lambda c: records.dlq_list(c))[0].last_reason or ""
    assert reason == "the receiver takes no memory payload of this version, only scores (engram-v1)"
    write(ledger, lambda c: records.dlq_retry(c, 1, NOW))
    (entry,) = write(ledger, lambda c: records.claim(c, NOW, KEYRING.sign, terms=ORIGINAL))
    assert entry.block == 1001


@pytest.mark.parametrize("kind", ["scores", "ranking"])
def test_a_uid_that_changes_gives_a_key_no_second_signature_of_a_block(ledger: InlineLedger, kind: str) -> None:
    for uid, share in ((5, 1.0), (6, 0.5)):
        found: Payload = scores_payload({"0": MinerScore(share, None, 1.0)}, netuid=450, block=7, uid=uid, round_ts=NOW)
        if kind == "ranking":
            weights = {(0, KEYPAIR.ss58): share, (1, SIGNER.hotkey[::-1]): 1.0}
            found = ranking_payload(weights, netuid=450, block=7, uid=uid, round_ts=NOW)
        write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=found, now=NOW))
    attempt(ledger, Answered(200))
    assert claim(ledger) is None
    assert states(ledger) == ["delivered", "withdrawn"]


def test_the_payloads_of_one_round_of_nodes_are_each_signed(ledger: InlineLedger) -> None:
    for number in range(2):
        nodes = {KEYPAIR.ss58: NodeMemory(vectors=number)}
        part = memory_payload(nodes, netuid=450, block=7, source=f"nodes{number}", round_ts=NOW)
        write(ledger, partial(records.enqueue, signer=SIGNER.hotkey, payload=part, now=NOW))
        attempt(ledger, Answered(200))
    assert states(ledger) == ["delivered", "delivered"]
