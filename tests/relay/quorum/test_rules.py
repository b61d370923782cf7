"""Whose turn it is, what differs, and what is said of a proposal: the tables of engram/relay/quorum/rules.py."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.chain.epochs import Epoch
from engram.relay import MinerScore
from engram.relay.finality import Finality
from engram.relay.quorum import rules
from engram.relay.quorum.model import QuorumTerms, Reading, Tolerance, Verdict
from engram.relay.quorum.rules import HEADS_DIFFER, KnownHere, Subnet, differences, judge, may_propose, turn_at
from tests.relay.quorum.validators import FIRST_BLOCK, SCORES, proposal
from tests.validator.benches import NETUID, key

pytestmark = pytest.mark.rules

ONE, TWO, THREE = (key(number).public_key for number in (1, 2, 3))
TERMS = QuorumTerms(netuid=NETUID)
PROPOSAL = proposal(key(1))


def subnet(block: int = FIRST_BLOCK, index: int = 0, holders: tuple[bytes, ...] = (ONE, TWO, THREE)) -> Subnet:
    return Subnet(block=block, epoch=Epoch(index, FIRST_BLOCK, FIRST_BLOCK + 99), holders=holders)


def known(**changed: Any) -> KnownHere:
    given: dict[str, Any] = {
        "caller": ONE,
        "subnet": subnet(),
        "epoch_settled": False,
        "proposer_signed": None,
        "finality": Finality.FINAL,
        "readings": [Reading(FIRST_BLOCK, SCORES)],
        "signed": None,
    }
    return KnownHere(**given | changed)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, Verdict.SIGNED),
        ({"signed": PROPOSAL.output_hash, "proposer_signed": PROPOSAL.output_hash}, Verdict.SIGNED),
        ({"caller": TWO}, Verdict.OTHER_SIGNER),
        ({"subnet": None}, Verdict.CHAIN_UNKNOWN),
        ({"subnet": subnet(holders=(TWO, THREE))}, Verdict.NO_PERMIT),
        ({"subnet": subnet(holders=())}, Verdict.NO_PERMIT),
        ({"proposer_signed": "ab", "epoch_settled": True}, Verdict.EQUIVOCATION),
        ({"epoch_settled": True}, Verdict.SETTLED),
        ({"subnet": subnet(FIRST_BLOCK + 15)}, Verdict.NOT_ITS_TURN),
        ({"subnet": subnet(FIRST_BLOCK + 9 + HEADS_DIFFER)}, Verdict.SIGNED),
        ({"subnet": subnet(FIRST_BLOCK + 10 + HEADS_DIFFER)}, Verdict.NOT_ITS_TURN),
        ({"subnet": subnet(FIRST_BLOCK + 30 - HEADS_DIFFER)}, Verdict.SIGNED),
        ({"finality": Finality.AWAITED}, Verdict.NOT_FINAL),
        ({"finality": Finality.REORGANIZED}, Verdict.REORGANIZED),
        ({"proposer_held_permit": False}, Verdict.NO_PERMIT),
        ({"held_permit": False}, Verdict.NO_OWN_PERMIT),
        ({"readings": []}, Verdict.NOT_MEASURED),
        ({"readings": [Reading(FIRST_BLOCK + 151, SCORES)]}, Verdict.NOT_MEASURED),
        ({"readings": [Reading(FIRST_BLOCK + 150, SCORES)]}, Verdict.SIGNED),
        ({"readings": [Reading(FIRST_BLOCK, {**SCORES, "7": MinerScore(0.5, 120.0, 1.0)})]}, Verdict.DIFFERS),
        ({"signed": "ab"}, Verdict.SIGNED_ANOTHER),
    ],
)
def test_a_proposal_is_judged_by_the_first_row_that_applies(changed: dict[str, Any], verdict: Verdict) -> None:
    judged = judge(PROPOSAL, known(**changed), TERMS)
    assert judged.verdict is verdict, judged.reason
    assert bool(judged.reason) is (verdict is not Verdict.SIGNED)


def test_a_proposal_for_another_subnet_is_refused() -> None:
    assert judge(PROPOSAL, known(), QuorumTerms(netuid=1)).verdict is Verdict.OTHER_SUBNET


def test_the_table_of_verdicts_is_the_one_that_is_served() -> None:
    rows = re.findall(r"\| `(\w+)` +\| (\d+) +\|", rules.__doc__ or "")
    assert {Verdict(word): int(status) for word, status in rows} == dict(rules.STATUS)
    assert set(rules.STATUS) == set(Verdict)


@pytest.mark.parametrize(
    ("proposed", "measured", "field"),
    [
        (MinerScore(0.75, 100.0, 1.0), [MinerScore(0.5, 100.0, 1.0)], None),
        (MinerScore(0.76, 100.0, 1.0), [MinerScore(0.5, 100.0, 1.0)], "recall"),
        (MinerScore(0.24, 100.0, 1.0), [MinerScore(0.5, 100.0, 1.0)], "recall"),
        (MinerScore(0.5, 100.0, 0.4), [MinerScore(0.5, 100.0, 1.0)], "proof_rate"),
        (MinerScore(0.5, 600.0, 1.0), [MinerScore(0.5, 100.0, 1.0)], None),
        (MinerScore(0.5, 601.0, 1.0), [MinerScore(0.5, 100.0, 1.0)], "latency_ms"),
        (MinerScore(0.5, None, 1.0), [MinerScore(0.5, 100.0, 1.0)], "latency_ms"),
        (MinerScore(0.5, 100.0, 1.0), [MinerScore(0.5, None, 1.0)], "latency_ms"),
        (MinerScore(0.5, None, 1.0), [MinerScore(0.5, None, 1.0)], None),
        (MinerScore(0.5, None, 1.0), [MinerScore(0.5, 100.0, 1.0), MinerScore(0.5, None, 1.0)], None),
        (MinerScore(0.5, 100.0, 0.5), [MinerScore(0.0, None, 0.0), MinerScore(1.0, 90.0, 1.0)], None),
    ],
)
def test_each_field_has_its_tolerance_around_all_that_was_measured(
    proposed: MinerScore, measured: list[MinerScore], field: str | None
) -> None:
    found = differences({"7": proposed}, [Reading(1, {"7": each}) for each in measured], Tolerance())
    assert [each.field for each in found] == ([] if field is None else [field])


def test_a_difference_names_what_was_proposed_and_what_was_measured() -> None:
    near = [Reading(1, {"7": MinerScore(0.5, None, 1.0)}), Reading(2, {"7": MinerScore(0.6, None, 1.0)})]
    (found,) = differences({"7": MinerScore(1.0, None, 1.0)}, near, Tolerance())
    assert (found.uid, found.field, found.proposed) == ("7", "recall", 1.0)
    assert (found.lowest, found.highest, found.tolerance) == (0.5, 0.6, 0.25)


def test_a_tenth_of_the_miners_may_be_known_to_one_side_alone() -> None:
    ten = {str(uid): MinerScore(1.0, None, 1.0) for uid in range(10)}
    nine = {uid: score for uid, score in ten.items() if uid != "3"}
    eight = {uid: score for uid, score in nine.items() if uid != "4"}
    assert differences(nine, [Reading(1, ten)], Tolerance()) == []
    assert differences(ten, [Reading(1, nine)], Tolerance()) == []
    for proposed, measured in ((eight, ten), (ten, eight)):
        found = differences(proposed, [Reading(1, measured)], Tolerance())
        assert [(each.uid, each.field) for each in found] == [("3", "uid"), ("4", "uid")]


SCORE = st.builds(
    MinerScore,
    st.floats(0, 1),
    st.none() | st.floats(0, 10_000),
    st.floats(0, 1),
)
MANY = st.dictionaries(st.integers(0, 12).map(str), SCORE, max_size=8)


def test_it_is_nobody_s_turn_where_nobody_holds_a_permit() -> None:
    assert turn_at(subnet(holders=()), FIRST_BLOCK, 10) is None


@given(MANY, MANY)
def test_what_was_measured_here_is_always_vouched_for(one: dict[str, MinerScore], other: dict[str, MinerScore]) -> None:
    strict = Tolerance(recall=0, proof_rate=0, latency_ms=0, missing=0)
    assert differences(one, [Reading(1, one)], strict) == []
    both = {uid: one[uid] for uid in one.keys() & other.keys()}
    lenient = msgspec.structs.replace(strict, missing=1.0)
    assert differences(both, [Reading(1, one), Reading(2, other)], lenient) == []


@given(MANY, MANY, st.floats(0, 1))
def test_a_wider_tolerance_never_refuses_more(
    proposed: dict[str, MinerScore], measured: dict[str, MinerScore], wider: float
) -> None:
    strict = differences(proposed, [Reading(1, measured)], Tolerance())
    lenient = Tolerance(recall=0.25 + wider, proof_rate=0.5 + wider, latency_ms=500 + wider, missing=0.1 + wider)
    found = {(each.uid, each.field) for each in differences(proposed, [Reading(1, measured)], lenient)}
    assert found <= {(each.uid, each.field) for each in strict}


@given(st.integers(0, 10_000), st.integers(1, 64), st.integers(1, 100))
def test_in_every_epoch_each_validator_has_its_turn_and_no_two_at_once(index: int, count: int, turn: int) -> None:
    holders = tuple(bytes([number]) for number in range(count))
    there = subnet(index=index, holders=holders)
    turns = [turn_at(there, FIRST_BLOCK + number * turn, turn) for number in range(count)]
    assert sorted(each for each in turns if each is not None) == sorted(holders)
    for own in holders:
        own_turn = there.block == FIRST_BLOCK and turns[0] == own
        assert may_propose(there, own, msgspec.structs.replace(TERMS, turn_blocks=turn)) is own_turn


def test_alone_a_validator_needs_no_turn() -> None:
    assert may_propose(subnet(), THREE, msgspec.structs.replace(TERMS, quorum=1))
    assert not may_propose(subnet(), THREE, TERMS)
