"""Rankings are proposed and co-signed as scores are: by the weights that each validator has set itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.relay import is_signed
from engram.relay.quorum import evidence, records
from engram.relay.quorum.model import CandidateState, OwnRanking, Tolerance, Verdict
from engram.relay.quorum.proposals import MalformedProposal, read_proposal
from engram.relay.quorum.rules import WEIGHT_NOISE, judge, ranking_differences
from engram.relay.rules import ranking_payload
from tests.relay.quorum.test_quorum import queued
from tests.relay.quorum.test_rules import TERMS, TWO, known
from tests.relay.quorum.validators import (
    FIRST_BLOCK,
    HASH,
    NOW,
    TEMPO,
    WEIGHTS,
    Subnet,
    proposal,
    ranking,
    ranking_proposal,
)
from tests.validator.benches import NETUID, key
from tests.xeris.test_judging import resigned

pytestmark = pytest.mark.rules

LIE = {7: 0.5, 9: 0.5}
EPOCH_BLOCKS = TEMPO + 1


@pytest.fixture
def subnet(tmp_path: Path) -> Iterator[Subnet]:
    subnet = Subnet(folder=tmp_path)
    yield subnet
    subnet.close()


async def test_the_ranking_of_one_leaves_with_the_signatures_of_the_others(subnet: Subnet) -> None:
    proposer, second, third = subnet.validators
    for each in subnet.validators:
        each.offer()
        each.offer_ranking()
    subnet.turn_of(0)
    await proposer.proposing.look()
    scores, ranked = sorted(queued(proposer), key=lambda body: str(body.get("kind", "")))
    assert "kind" not in scores, "scores stay the original's"
    assert (ranked["kind"], ranked["schema_version"]) == ("ranking", "engram-v2")
    for bundle in (scores, ranked):
        signers = {each["hotkey"] for each in bundle.pop("cosignatures")}  # type: ignore[attr-defined]  # JSON
        assert signers == {second.keypair.ss58, third.keypair.ss58}
        assert is_signed(bundle)
    assert {each.candidate("ranking").state for each in (second, third)} == {CandidateState.SETTLED}
    left = third.ledger.write_now(lambda c: records.bundles(c, 5))
    assert {(each.kind, each.signers) for each in left} == {("scores", 3), ("ranking", 3)}
    subnet.turn_of(1)
    await second.proposing.look()
    assert queued(second) == [], "of an epoch one ranking leaves"


async def test_a_ranking_by_other_weights_gets_no_signature_and_the_evidence_names_it(subnet: Subnet) -> None:
    liar, second, third = subnet.validators
    liar.offer_ranking(LIE)
    for each in (second, third):
        each.offer_ranking()
    subnet.turn_of(0)
    await liar.proposing.look()
    assert queued(liar) == []
    for judging in (second, third):
        (found,) = judging.ledger.write_now(evidence.newest)
        assert (found.kind, found.proposer, found.verdict) == ("ranking", liar.keypair.ss58, "differs")
        assert [(each.uid, each.field, each.proposed, each.highest) for each in found.differences] == [
            ("9", "weight", 0.5, 0.1)
        ]
        assert is_signed(json.loads(bytes(found.document)))
    subnet.turn_of(1)
    await second.proposing.look()
    (bundle,) = queued(second)
    assert [each["hotkey"] for each in bundle["cosignatures"]] == [third.keypair.ss58]  # type: ignore[attr-defined]


async def test_a_miner_under_another_hotkey_is_not_vouched_for(subnet: Subnet) -> None:
    proposer, second, third = subnet.validators
    proposer.offer_ranking(hotkeys=20)
    for each in (second, third):
        each.offer_ranking()
    subnet.turn_of(0)
    await proposer.proposing.look()
    (found,) = second.ledger.write_now(evidence.newest)
    assert [(each.uid, each.field) for each in found.differences] == [("7", "hotkey"), ("9", "hotkey")]


async def test_who_has_set_no_weights_lately_says_so_and_is_asked_again(subnet: Subnet) -> None:
    proposer, judging, third = subnet.validators
    subnet.away = {third.keypair.public_key}
    proposer.offer_ranking()
    subnet.turn_of(0)
    await proposer.proposing.look()
    assert proposer.candidate("ranking").state is CandidateState.PROPOSED
    judging.offer_ranking(block=FIRST_BLOCK - 2 * EPOCH_BLOCKS)
    await proposer.proposing.look()
    assert queued(proposer) == [], "weights of two epochs ago say nothing"
    judging.offer_ranking(block=FIRST_BLOCK - EPOCH_BLOCKS)
    await proposer.proposing.look()
    assert len(queued(proposer)) == 1


async def test_scores_and_ranking_of_one_block_are_signed_side_by_side_and_each_once(subnet: Subnet) -> None:
    proposer, judging, _ = subnet.validators
    judging.offer_ranking()
    subnet.turn_of(0)
    own = proposer.keypair.public_key
    assert (await judging.cosigner.judge(own, proposal(proposer.keypair)))[0].verdict is Verdict.SIGNED
    assert (await judging.cosigner.judge(own, ranking_proposal(proposer.keypair)))[0].verdict is Verdict.SIGNED
    nearly = ranking_proposal(proposer.keypair, {7: 0.89, 9: 0.11})
    judging.restart()
    judged, signature = await judging.cosigner.judge(own, nearly)
    assert (judged.verdict, signature) == (Verdict.EQUIVOCATION, None)


async def test_alone_a_ranking_leaves_with_an_empty_list_of_others() -> None:
    subnet = Subnet(1, quorum=1)
    (alone,) = subnet.validators
    alone.offer_ranking()
    await alone.proposing.look()
    (bundle,) = queued(alone)
    assert (bundle["kind"], bundle["cosignatures"]) == ("ranking", [])
    subnet.close()


def test_a_ranking_is_judged_by_the_rankings_that_were_set_here_alone() -> None:
    proposed = ranking_proposal(key(1))
    own = OwnRanking(1, ranking(WEIGHTS).ranking)
    for changed, verdict in (
        ({"rankings": [own], "readings": []}, Verdict.SIGNED),
        ({"rankings": []}, Verdict.NOT_MEASURED),
        ({"rankings": [OwnRanking(1, ranking(LIE).ranking)]}, Verdict.DIFFERS),
        ({"rankings": [own], "signed": "ab"}, Verdict.SIGNED_ANOTHER),
        ({"rankings": [own], "caller": TWO}, Verdict.OTHER_SIGNER),
    ):
        assert judge(proposed, known(**changed), TERMS).verdict is verdict


def own(*weights: dict[int, float]) -> list[OwnRanking]:
    return [OwnRanking(number, ranking(each).ranking) for number, each in enumerate(weights)]


@pytest.mark.parametrize(
    ("proposed", "set_here", "fields"),
    [
        ({7: 0.6, 9: 0.4}, [{7: 0.5, 9: 0.5}], []),
        ({7: 0.74, 9: 0.26}, [{7: 0.5, 9: 0.5}], []),
        ({7: 0.76, 9: 0.24}, [{7: 0.5, 9: 0.5}], ["weight", "weight"]),
        ({7: 0.75, 9: 0.25}, [{7: 0.5, 9: 0.5}, {7: 0.9, 9: 0.1}], []),
        ({7: 0.995, 9: 0.005}, [{7: 1.0}], []),
        ({7: 0.98, 9: 0.02}, [{7: 1.0}], ["weight"]),
        ({7: 1.0}, [{7: 0.99, 9: 0.01}], []),
        ({7: 1.0}, [{7: 0.9, 9: 0.1}], ["weight"]),
        ({7: 1.0}, [{7: 0.9, 9: 0.1}, {7: 1.0}], []),
        ({}, [{7: 1.0}], ["weight"]),
        ({}, [{}], []),
    ],
)
def test_each_weight_has_its_tolerance_around_those_that_were_set(
    proposed: dict[int, float], set_here: list[dict[int, float]], fields: list[str]
) -> None:
    found = ranking_differences(ranking(proposed).ranking, own(*set_here), Tolerance())
    assert [each.field for each in found] == fields


WEIGHED = st.dictionaries(st.integers(0, 12), st.floats(0.01, 1.0), min_size=1, max_size=8)


@given(WEIGHED, WEIGHED, st.floats(0, 1))
def test_what_was_set_here_is_vouched_for_and_a_wider_tolerance_refuses_no_more(
    one: dict[int, float], other: dict[int, float], wider: float
) -> None:
    proposed, strict = ranking(one).ranking, Tolerance(weight=0.0)
    assert ranking_differences(proposed, own(one), strict) == []
    assert ranking_differences(proposed, own(one, other), strict) == []
    found = {each.uid for each in ranking_differences(proposed, own(other), Tolerance(weight=wider))}
    assert found <= {each.uid for each in ranking_differences(proposed, own(other), strict)}


def test_the_smallest_weight_is_no_reason_to_refuse_a_ranking() -> None:
    many = dict.fromkeys(range(200), 1.0)
    fewer = {uid: weight for uid, weight in many.items() if uid != 3}
    assert ranking_differences(ranking(fewer).ranking, own(many), Tolerance(weight=0.0)) == []
    assert WEIGHT_NOISE > 1 / 200


def document(**changed: Any) -> bytes:
    """A signed ranking after a change; its signature holds."""
    payload = json.loads(ranking_proposal(key(1)).document)
    return json.dumps(resigned(payload | changed, key(1))).encode()


BEST = json.loads(ranking_proposal(key(1)).document)["ranking"]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"kind": "memory"}, "is none of scores, ranking"),
        ({"schema_version": "engram-v1"}, "schema_version of ranking is 'engram-v1', not engram-v2"),
        ({"kind": "scores", "schema_version": "engram-v1"}, "has that output and no other"),
        ({"scores": {}}, "has that output and no other"),
        ({"ranking": BEST[::-1]}, "ranks count from 1"),
        ({"ranking": BEST[:1]}, "output_hash is not the hash of the ranking"),
        ({"ranking": [BEST[0] | {"weight": 2.0}]}, "not a signed payload"),
        ({"reason": "mine"}, "not a signed payload"),
    ],
)
def test_what_is_no_ranking_is_malformed(changed: dict[str, Any], text: str) -> None:
    assert read_proposal(document(), HASH.hex()).kind == "ranking"
    with pytest.raises(MalformedProposal, match=text):
        read_proposal(document(**changed), HASH.hex())


def test_two_kinds_of_one_epoch_are_two_candidates(subnet: Subnet) -> None:
    validator = subnet.validators[0]
    assert validator.offer()
    assert validator.offer_ranking(LIE)
    assert validator.offer_ranking(), "the last before it is proposed counts"
    shown = validator.ledger.write_now(lambda c: records.summaries(c, 5))
    assert [each.kind for each in shown] == ["scores", "ranking"]
    assert (
        validator.candidate("ranking").output_hash
        == ranking_payload(
            {(uid, key(uid).ss58): weight for uid, weight in WEIGHTS.items()},
            netuid=NETUID,
            block=FIRST_BLOCK,
            uid=1,
            round_ts=NOW,
        ).output_hash
    )
