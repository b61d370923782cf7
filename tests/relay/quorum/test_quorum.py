"""Proposing and co-signing among three validators, through their ledgers."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from engram.hotkeys import ss58
from engram.relay import MinerScore, is_signed
from engram.relay.finality import Finality
from engram.relay.quorum import records
from engram.relay.quorum.model import CandidateState, Verdict
from engram.relay.quorum.proposals import MalformedProposal
from engram.relay.tables import relay_outbox
from tests.relay.quorum.validators import EPOCH, FIRST_BLOCK, HASH, SCORES, TEMPO, Subnet, Validator, proposal
from tests.validator.benches import key

LIE = {**SCORES, "9": MinerScore(1.0, 10.0, 1.0)}


@pytest.fixture
def subnet(tmp_path: Path) -> Iterator[Subnet]:
    subnet = Subnet(folder=tmp_path)
    yield subnet
    subnet.close()


def queued(validator: Validator) -> list[dict[str, object]]:
    bodies = validator.ledger.write_now(lambda c: c.scalars(select(relay_outbox.c.signed)).all())
    return [json.loads(body) for body in bodies]


async def test_scores_whose_weights_were_refused_leave_all_the_same_and_say_so_to_the_operator(subnet: Subnet) -> None:
    proposer, *others = subnet.validators
    for each in others:
        each.offer()
    proposer.offer(audit="the chain has refused the weights of epoch 7: TooFast")
    subnet.turn_of(0)
    await proposer.proposing.look()
    assert len(queued(proposer)) == 1
    (shown,) = proposer.ledger.write_now(lambda c: records.summaries(c, 5))
    assert (shown.state, shown.reason) == ("bundled", "the chain has refused the weights of epoch 7: TooFast")


async def test_the_scores_of_one_leave_with_the_signatures_of_the_others(subnet: Subnet) -> None:
    proposer, second, third = subnet.validators
    for each in subnet.validators:
        each.offer()
    subnet.turn_of(0)
    await second.proposing.look()
    assert queued(second) == [], "it is the turn of another"
    await proposer.proposing.look()
    (bundle,) = queued(proposer)
    signers = {each["hotkey"] for each in bundle.pop("cosignatures")}  # type: ignore[attr-defined]  # JSON
    assert signers == {second.keypair.ss58, third.keypair.ss58}
    assert is_signed(bundle)
    assert proposer.candidate().state is CandidateState.BUNDLED
    assert proposer.hints == 2, "before the commit and after it"
    assert second.candidate().state is CandidateState.SETTLED, "of an epoch one bundle leaves"
    subnet.turn_of(1)
    await second.proposing.look()
    assert queued(second) == []


async def test_a_lie_does_not_get_through_the_others_go_on_and_the_evidence_names_it(subnet: Subnet) -> None:
    liar, second, third = subnet.validators
    liar.offer(LIE)
    second.offer(block=FIRST_BLOCK + 1)
    subnet.turn_of(0)
    await liar.proposing.look()
    await liar.proposing.look()
    assert queued(liar) == []
    for judge in (second, third):
        (found,) = judge.ledger.write_now(records.evidence)
        assert (found.proposer, found.judge, found.verdict) == (liar.keypair.ss58, judge.keypair.ss58, "differs")
        assert [(each.uid, each.field, each.proposed, each.highest) for each in found.differences] == [
            ("9", "recall", 1.0, 0.1),
            ("9", "latency_ms", 10.0, None),
        ]
        assert is_signed(json.loads(bytes(found.document))), "nobody but the proposer can have signed it"
    assert {each.judge for each in liar.ledger.write_now(records.evidence)} == {
        second.keypair.ss58,
        third.keypair.ss58,
    }, "the proposer sees who refused, once each"
    subnet.turn_of(1)
    await second.proposing.look()
    (bundle,) = queued(second)
    assert {each["hotkey"] for each in bundle["cosignatures"]} == {third.keypair.ss58, liar.keypair.ss58}  # type: ignore[attr-defined]


async def test_a_proposer_that_is_away_is_passed_over(subnet: Subnet) -> None:
    away, second, third = subnet.validators
    subnet.away = {away.keypair.public_key}
    second.offer()
    subnet.turn_of(0)
    await second.proposing.look()
    assert second.candidate().state is CandidateState.WAITING
    subnet.turn_of(1)
    await second.proposing.look()
    (bundle,) = queued(second)
    assert [each["hotkey"] for each in bundle["cosignatures"]] == [third.keypair.ss58]  # type: ignore[attr-defined]


async def test_a_cosigner_that_was_away_is_asked_again_and_too_few_end_short(subnet: Subnet) -> None:
    proposer, second, third = subnet.validators
    subnet.away = {second.keypair.public_key, third.keypair.public_key}
    proposer.offer()
    subnet.turn_of(0)
    await proposer.proposing.look()
    assert (proposer.candidate().state, queued(proposer)) == (CandidateState.PROPOSED, [])
    subnet.block += 2 * (TEMPO + 1)
    await proposer.proposing.look()
    ended = proposer.candidate()
    assert (ended.state, ended.reason) == (CandidateState.SHORT, "1 have signed")
    assert proposer.metrics.registry.get_sample_value("engram_relay_candidates_total", {"state": "short"}) == 1
    proposer.offer(block=subnet.block)
    subnet.away = {third.keypair.public_key}
    second.readings = [type(second.readings[0])(subnet.block, SCORES)]
    count = len(subnet.keys)
    while queued(proposer) == [] and count:
        await proposer.proposing.look()
        subnet.block, count = subnet.block + subnet.terms.turn_blocks, count - 1
    assert len(queued(proposer)) == 1


async def test_alone_scores_leave_with_an_empty_list_of_others() -> None:
    subnet = Subnet(1, quorum=1)
    (alone,) = subnet.validators
    alone.offer()
    await alone.proposing.look()
    (bundle,) = queued(alone)
    assert bundle["cosignatures"] == []
    subnet.close()


@pytest.mark.parametrize(
    ("finality", "state"),
    [(Finality.AWAITED, CandidateState.WAITING), (Finality.REORGANIZED, CandidateState.WITHDRAWN)],
)
async def test_nothing_is_signed_of_a_block_that_is_not_final(
    subnet: Subnet, finality: Finality, state: CandidateState
) -> None:
    proposer = subnet.validators[0]
    proposer.offer()
    subnet.finality[HASH] = finality
    subnet.turn_of(0)
    await proposer.proposing.look()
    assert proposer.candidate().state is state
    assert proposer.candidate().signed is None
    judged, signature = await subnet.validators[1].cosigner.judge(
        proposer.keypair.public_key, proposal(proposer.keypair)
    )
    wanted = Verdict.NOT_FINAL if finality is Finality.AWAITED else Verdict.REORGANIZED
    assert (judged.verdict, signature) == (wanted, None)


async def test_the_chain_is_not_read_for_a_proposal_of_who_is_no_validator(subnet: Subnet) -> None:
    judge, stranger = subnet.validators[1], key(77)
    asked: list[int] = []

    async def guard(block: int, block_hash: bytes | None) -> Finality:
        asked.append(block)
        return Finality.FINAL

    judge.cosigner._ports = msgspec.structs.replace(judge.cosigner._ports, guard=guard)
    judged, _ = await judge.cosigner.judge(stranger.public_key, proposal(stranger))
    assert (judged.verdict, asked) == (Verdict.NO_PERMIT, [])
    judged, _ = await judge.cosigner.judge(stranger.public_key, proposal(subnet.keys[0]))
    assert (judged.verdict, asked) == (Verdict.OTHER_SIGNER, [])
    await judge.cosigner.judge(subnet.keys[0].public_key, proposal(subnet.keys[0]))
    assert asked == [FIRST_BLOCK]


async def test_a_second_output_of_one_block_is_evidence_also_after_a_restart(subnet: Subnet) -> None:
    proposer, judge, _ = subnet.validators
    subnet.turn_of(0)
    judged, signature = await judge.cosigner.judge(proposer.keypair.public_key, proposal(proposer.keypair))
    assert (judged.verdict, signature is not None) == (Verdict.SIGNED, True)
    judge.restart()
    nearly = {**SCORES, "7": MinerScore(0.91, 120.0, 1.0)}
    judged, signature = await judge.cosigner.judge(proposer.keypair.public_key, proposal(proposer.keypair, nearly))
    assert (judged.verdict, signature) == (Verdict.EQUIVOCATION, None)
    (found,) = judge.ledger.write_now(lambda c: records.evidence(c, proposer=proposer.keypair.ss58))
    assert found.verdict == "equivocation"


async def test_no_second_output_of_a_block_is_signed_whoever_proposes_it(subnet: Subnet) -> None:
    proposer, judge, third = subnet.validators
    subnet.turn_of(0)
    await judge.cosigner.judge(proposer.keypair.public_key, proposal(proposer.keypair))
    judge.restart()
    nearly = {**SCORES, "7": MinerScore(0.91, 120.0, 1.0)}
    subnet.turn_of(2)
    judged, signature = await judge.cosigner.judge(third.keypair.public_key, proposal(third.keypair, nearly))
    assert (judged.verdict, signature) == (Verdict.SIGNED_ANOTHER, None)
    judge.offer(nearly)
    subnet.turn_of(1)
    await judge.proposing.look()
    assert judge.candidate().state is CandidateState.WITHDRAWN, "nor one of its own"


async def test_a_bundle_that_lacks_signatures_or_permits_settles_nothing(subnet: Subnet) -> None:
    proposer, judge, _ = subnet.validators
    judge.offer(block=FIRST_BLOCK + 1)
    alone = proposal(proposer.keypair)
    with pytest.raises(MalformedProposal, match="1 validators have signed, at least 2 must"):
        await judge.cosigner.note(alone, frozenset({proposer.keypair.public_key}))
    with pytest.raises(MalformedProposal, match="no validator permit"):
        await judge.cosigner.note(alone, frozenset({proposer.keypair.public_key, bytes(32)}))
    assert judge.candidate().state is CandidateState.WAITING
    assert await judge.cosigner.note(alone, frozenset(each.public_key for each in subnet.keys[:2]))
    settled = judge.candidate()
    assert settled.state is CandidateState.SETTLED
    assert settled.reason == f"the bundle of {ss58.encode(alone.proposer)} has left"
    (left,) = judge.ledger.write_now(lambda c: records.bundles(c, 5))
    assert (left.epoch, left.signers, left.proposer) == (EPOCH, 2, proposer.keypair.ss58)
