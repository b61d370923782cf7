import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.relay.canonical import canonical_json
from engram.relay.model import Answered, EntryState, MinerScore, NodeMemory, Outcome, SignedRoot, Unknown, Unreachable
from engram.relay.rules import (
    Blame,
    Door,
    RetryPolicy,
    after,
    backoff_s,
    blame,
    decide,
    describe,
    log_status,
    memory_of,
    memory_payload,
    nonce,
    output_hash,
    scores_payload,
    signed_hash,
    stable_nodes,
    stable_scores,
)
from engram.relay.signer import PayloadSigner

pytestmark = pytest.mark.rules

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "engram" / "vectors.json").read_text())
SCORES = {
    "0": MinerScore(0.95, 120.5, 0.9),
    "2": MinerScore(0.1234567, None, 0.7),
    "10": MinerScore(1.0, 95.00049, 1.0),
}
POLICY = RetryPolicy()
ROOT = SignedRoot(form="keyed-1", namespace="__public__", root_hex="ab" * 32, count=1, at_ms=2, signature="0x12")


def test_scores_are_hashed_as_the_original_does() -> None:
    assert stable_scores(SCORES).decode() == VECTORS["relay_stable_scores"]
    assert output_hash(stable_scores(SCORES)) == VECTORS["relay_output_hash"]


def test_a_round_becomes_the_payload_of_the_original() -> None:
    payload = scores_payload(SCORES, netuid=450, block=1000, uid=5, round_ts=1_700_000_000.5)
    encoded = msgspec.json.encode(payload)
    assert json.loads(encoded) == VECTORS["relay_payload"]
    assert list(json.loads(encoded)) == list(VECTORS["relay_payload"])
    assert signed_hash(json.loads(encoded)) == VECTORS["relay_signed"]["signed_hash"]


def test_a_payload_is_signed_as_the_original_does() -> None:
    def fake(message: bytes) -> bytes:
        return hashlib.sha256(message).digest()

    payload = scores_payload(SCORES, netuid=450, block=1000, uid=5, round_ts=1_700_000_000.5)
    signed = PayloadSigner("5FakeHotkey", fake).sign(msgspec.json.encode(payload))
    assert json.loads(signed.body) == VECTORS["relay_signed"]
    assert list(json.loads(signed.body)) == list(VECTORS["relay_signed"])
    assert signed.signed_hash == VECTORS["relay_signed"]["signed_hash"]


def test_what_signing_adds_is_not_part_of_what_is_signed() -> None:
    assert signed_hash(VECTORS["relay_signed"]) == signed_hash(VECTORS["relay_payload"])


def test_a_memory_payload_bears_the_same_envelope_as_scores() -> None:
    nodes = {"5Node": NodeMemory(vectors=3, proof_rate=0.12345678, p50_latency_ms=1.23456, uptime_pct=99.5)}
    payload = memory_payload(nodes, netuid=450, block=7, source="gateway", round_ts=1.5)
    document = json.loads(msgspec.json.encode(payload))
    assert list(document) == [
        "schema_version", "kind", "netuid", "block", "round_ts", "output_hash", "nonce", "nodes"
    ]  # fmt: skip
    assert (document["kind"], document["nonce"]) == ("memory", "7:gateway:1500")
    stable = stable_nodes(nodes)
    assert document["output_hash"] == hashlib.sha256(stable).hexdigest()
    assert json.loads(stable)["5Node"] == {
        "vectors": 3,
        "root_hex": None,
        "queries_today": None,
        "p50_latency_ms": 1.235,
        "proof_rate": 0.123457,
        "uptime_pct": 99.5,
    }


def test_nonces_name_block_source_and_millisecond() -> None:
    assert nonce(1000, 5, 1_700_000_000_500) == "1000:5:1700000000500"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_not_is_not_hashed(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"x": value})


@pytest.mark.parametrize(
    ("attempts", "outcome", "state", "left"),
    [
        (1, Answered(200), EntryState.DELIVERED, 1),
        (10, Answered(204), EntryState.DELIVERED, 10),
        (1, Answered(400), EntryState.ABANDONED, 1),
        (1, Answered(299), EntryState.DELIVERED, 1),
        (1, Answered(300), EntryState.PENDING, 0),
        (1, Answered(301), EntryState.PENDING, 0),
        (1, Answered(422), EntryState.ABANDONED, 1),
        (1, Answered(408), EntryState.PENDING, 1),
        (1, Answered(409), EntryState.ABANDONED, 1),
        (1, Answered(410), EntryState.ABANDONED, 1),
        (1, Answered(413), EntryState.ABANDONED, 1),
        *((1, Answered(status), EntryState.PENDING, 0) for status in (401, 402, 403, 404, 405, 415)),
        (1, Answered(425), EntryState.PENDING, 1),
        (1, Answered(426), EntryState.PENDING, 0),
        (1, Answered(499), EntryState.PENDING, 0),
        (9, Answered(500), EntryState.PENDING, 9),
        (10, Answered(500), EntryState.ABANDONED, 10),
        (10, Answered(429, 5.0), EntryState.ABANDONED, 10),
        (9, Unknown("late"), EntryState.PENDING, 9),
        (10, Unknown("late"), EntryState.ABANDONED, 10),
        (1, Unreachable("down"), EntryState.PENDING, 0),
        (10, Unreachable("down"), EntryState.PENDING, 9),
    ],
)
def test_what_becomes_of_an_entry(attempts: int, outcome: Outcome, state: EntryState, left: int) -> None:
    decision = decide(attempts, outcome, 100.0, POLICY, Random(1))
    assert (decision.state, decision.attempts) == (state, left)
    assert decision.next_attempt_at >= 100.0


MAYBE = [*(Answered(code) for code in (408, 425, 429, 500, 502, 503, 504, 599)), Unknown("closed")]


@pytest.mark.parametrize("outcome", MAYBE)
def test_what_may_be_the_receivers_fault_uses_up_an_attempt_only_where_others_pass_meanwhile(outcome: Outcome) -> None:
    assert blame(outcome) is Blame.EITHER
    for attempts in (1, 10):
        decision = decide(attempts, outcome, 100.0, POLICY, Random(1), others_pass=False)
        assert (decision.state, decision.attempts) == (EntryState.PENDING, attempts - 1)
        assert decision.next_attempt_at >= 110.0
    assert decide(10, outcome, 100.0, POLICY, Random(1), others_pass=True).state is EntryState.ABANDONED


@pytest.mark.parametrize("outcome", MAYBE)
def test_a_receiver_in_doubt_gets_something_else_at_once_and_is_held_back_when_that_fails_too(outcome: Outcome) -> None:
    doubted = after(Door(), outcome, 100.0, POLICY, Random(1))
    assert (doubted.is_open, doubted.is_doubted, doubted.shut, doubted.opens_at) == (False, True, 0, 100.0)
    held = after(doubted, outcome, 100.1, POLICY, Random(1))
    assert (held.is_doubted, held.shut) == (True, 1)
    assert (doubted.repeats_first, held.repeats_first) == (False, True)
    assert 110.0 <= held.opens_at <= 112.1
    assert after(held, outcome, 100.2, POLICY, Random(1)) == held, "it was under way"
    assert after(held, outcome, 120.0, POLICY, Random(1)).shut == 2
    assert after(held, Unreachable("down"), 120.0, POLICY, Random(1)).is_doubted
    assert not after(held, Answered(403), 120.0, POLICY, Random(1)).is_doubted, "no payload is to blame for that"
    for well in (Answered(200), Answered(422)):
        assert after(held, well, 101.0, POLICY, Random(1)) == Door()


def test_an_unreachable_receiver_never_uses_up_an_attempt() -> None:
    attempts = 0
    for _ in range(1_000):
        decision = decide(attempts + 1, Unreachable("down"), 0.0, POLICY, Random(1))
        attempts = decision.attempts
        assert decision.state is EntryState.PENDING
    assert attempts == 0


def test_ten_attempts_and_no_more() -> None:
    attempts = 0
    while True:
        attempts += 1
        decision = decide(attempts, Answered(503), 0.0, POLICY, Random(attempts))
        if decision.state is EntryState.ABANDONED:
            break
    assert attempts == 10
    assert decision.reason == "the receiver answered 503"


@given(failures=st.integers(0, 100_000), seed=st.integers())
def test_waits_double_from_ten_to_three_hundred_seconds(failures: int, seed: int) -> None:
    wait_s = backoff_s(failures, POLICY, Random(seed))
    base_s = min(300.0, 10.0 * 2.0 ** min(failures, 10))
    assert 10.0 <= wait_s <= 300.0
    assert 0.8 * base_s <= wait_s <= 1.2 * base_s


def test_waits_are_spread() -> None:
    rng = Random(1)
    assert len({backoff_s(3, POLICY, rng) for _ in range(50)}) == 50


@given(asked_s=st.floats(0, 1e9), seed=st.integers())
def test_what_the_receiver_asks_for_is_waited_for_within_an_hour(asked_s: float, seed: int) -> None:
    decision = decide(1, Answered(429, asked_s), 0.0, POLICY, Random(seed))
    assert min(asked_s, 3_600.0) <= decision.next_attempt_at <= 3_600.0
    assert decision.next_attempt_at >= 10.0


@pytest.mark.parametrize(
    ("outcome", "word", "text"),
    [
        (Answered(201), "ok", "the receiver answered 201"),
        (Answered(299), "ok", "the receiver answered 299"),
        (Answered(300), "http_300", "the receiver answered 300"),
        (Answered(503), "http_503", "the receiver answered 503"),
        (Unreachable("refused"), "error", "receiver unreachable: refused"),
        (Unknown("cut off"), "unknown", "outcome unknown: cut off"),
    ],
)
def test_outcomes_are_told_apart_in_the_log(outcome: Outcome, word: str, text: str) -> None:
    assert (log_status(outcome), describe(outcome)) == (word, text)


@pytest.mark.parametrize("outcome", [Unreachable("x" * 1_000), Unknown("x" * 1_000)])
def test_a_reason_that_quotes_the_receiver_is_kept_short(outcome: Outcome) -> None:
    decision = decide(1, outcome, 0.0, POLICY, Random(1))
    assert len(decision.reason) == 200
    assert decision.reason.endswith("x…")


def test_nodes_with_roots_make_a_payload_of_the_second_schema_and_each_part_of_a_root_is_hashed() -> None:
    def hashed(root: SignedRoot | None) -> str:
        nodes = {"5Node": NodeMemory(vectors=3, root=root)}
        payload = memory_payload(nodes, netuid=450, block=7, source="gateway", round_ts=1.5)
        assert payload.schema_version == "engram-v2"
        return payload.output_hash

    changes: list[dict[str, Any]] = [{"root_hex": "cd" * 32}, {"count": 2}, {"at_ms": 3}, {"signature": "0x34"}]
    others = [msgspec.structs.replace(ROOT, **change) for change in [*changes, {"certificate": "c"}]]
    assert len({hashed(root) for root in [None, ROOT, *others]}) == 7
    without = memory_payload({"5Node": NodeMemory(vectors=3)}, netuid=450, block=7, source="gateway", round_ts=1.5)
    assert (without.schema_version, b'"root"' in msgspec.json.encode(without)) == ("engram-v1", False)


def test_what_a_node_tells_is_taken_only_where_it_is_a_number() -> None:
    told = {"vectors": 12, "queries_today": True, "p50_latency_ms": "fast", "proof_rate": 1, "uptime_pct": -1.0}
    assert memory_of(told, ROOT) == NodeMemory(vectors=12, root_hex=ROOT.root_hex, proof_rate=1.0, root=ROOT)
    assert memory_of({"vectors": -1, "queries_today": 2.5, "proof_rate": False}) == NodeMemory(root=None)


@pytest.mark.parametrize(("number", "is_taken"), [(0, True), (2**53 - 1, True), (2**53, False), (-1, False)])
def test_numbers_are_taken_from_zero_to_what_a_double_holds_exactly(number: int, is_taken: bool) -> None:
    taken = memory_of({"vectors": number, "uptime_pct": number})
    assert (taken.vectors, taken.uptime_pct) == ((number, float(number)) if is_taken else (None, None))
