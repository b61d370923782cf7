"""Proposing and co-signing among three validators, through their ledgers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from engram.hotkeys import ss58
from engram.ledger import LedgerUnavailable
from engram.relay import MinerScore, is_signed
from engram.relay.finality import Finality
from engram.relay.quorum import evidence, records
from engram.relay.quorum.model import CandidateState, Verdict
from engram.relay.quorum.proposals import MalformedProposal
from engram.relay.quorum.proposing import ACCEPTED_WITHIN_S, BUNDLE_WAITS
from engram.relay.quorum.subnet_now import Peer
from engram.relay.tables import relay_outbox
from tests.relay.quorum.validators import EPOCH, FIRST_BLOCK, HASH, SCORES, TEMPO, Directly, Subnet, Validator, proposal
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
        (found,) = judge.ledger.write_now(evidence.newest)
        assert (found.proposer, found.judge, found.verdict) == (liar.keypair.ss58, judge.keypair.ss58, "differs")
        assert [(each.uid, each.field, each.proposed, each.highest) for each in found.differences] == [
            ("9", "recall", 1.0, 0.1),
            ("9", "latency_ms", 10.0, None),
        ]
        assert is_signed(json.loads(bytes(found.document))), "nobody but the proposer can have signed it"
    assert {each.judge for each in liar.ledger.write_now(evidence.newest)} == {
        second.keypair.ss58,
        third.keypair.ss58,
    }, "the proposer sees who refused, once each"
    subnet.turn_of(1)
    await second.proposing.look()
    (bundle,) = queued(second)
    assert {each["hotkey"] for each in bundle["cosignatures"]} == {third.keypair.ss58, liar.keypair.ss58}  # type: ignore[attr-defined]


@pytest.mark.parametrize("quorum", [1, 2])
async def test_who_held_no_permit_at_the_block_of_its_output_withdraws_it_says_why_and_signs_nothing(
    quorum: int,
) -> None:
    """A receiver refuses it for good: a dead letter in the place of an epoch that another can still relay."""
    subnet = Subnet(3, quorum=quorum)
    proposer, second, _ = subnet.validators
    for each in subnet.validators:
        each.offer()
    subnet.held[FIRST_BLOCK] = frozenset(each.public_key for each in subnet.keys[1:])
    subnet.turn_of(0)
    with capture_logs() as logged:
        await proposer.proposing.look()
    found = proposer.candidate()
    reason = f"this validator held no permit at block {FIRST_BLOCK}"
    assert (found.state, found.reason, found.signed) == (CandidateState.WITHDRAWN, reason, None)
    assert [line["reason"] for line in logged if line["log_level"] == "error"] == [reason]
    assert queued(proposer) == []
    subnet.turn_of(1)
    await second.proposing.look()
    (bundle,) = queued(second)
    assert proposer.keypair.ss58 not in {each["hotkey"] for each in bundle["cosignatures"]}  # type: ignore[attr-defined]
    subnet.close()


async def test_who_has_lost_its_permit_lets_its_output_go_with_its_epoch_and_says_why() -> None:
    subnet = Subnet(3)
    proposer = subnet.validators[0]
    proposer.offer()
    subnet.without_permit = {proposer.keypair.public_key}
    subnet.turn_of(0)
    await proposer.proposing.look()
    assert (proposer.candidate().state, queued(proposer)) == (CandidateState.WAITING, [])
    subnet.block += 3 * (TEMPO + 1)
    await proposer.proposing.look()
    found = proposer.candidate()
    assert (found.state, found.reason) == (
        CandidateState.MISSED,
        "it was never proposed: this validator holds no permit",
    )
    subnet.close()


async def test_a_signature_that_the_ledger_does_not_take_is_asked_for_again(
    subnet: Subnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposer = subnet.validators[0]
    proposer.offer()
    subnet.turn_of(0)
    ask = Directly.ask

    def refuse() -> None:
        raise LedgerUnavailable("the disk is full")

    async def fill_the_disk(self: Directly, *asked: Any) -> Any:
        opinion = await ask(self, *asked)
        proposer.ledger.before_commit = refuse
        return opinion

    monkeypatch.setattr(Directly, "ask", fill_the_disk)
    await proposer.proposing.look()
    proposer.ledger.before_commit = None
    assert (proposer.candidate().state, queued(proposer)) == (CandidateState.PROPOSED, [])
    monkeypatch.undo()
    await proposer.proposing.look()
    assert len(queued(proposer)) == 1


async def test_a_bundle_that_a_full_outbox_refuses_is_counted_once_and_leaves_when_there_is_room(
    subnet: Subnet,
) -> None:
    proposer, *_ = subnet.validators
    proposer.bound = 0
    proposer.restart()
    proposer.offer()
    subnet.turn_of(0)

    def counted() -> float | None:
        return proposer.metrics.registry.get_sample_value("engram_relay_not_queued_total", {"reason": BUNDLE_WAITS})

    for _ in range(3):
        await proposer.proposing.look()
        assert (queued(proposer), counted()) == ([], 1.0)
    assert proposer.candidate().state is CandidateState.PROPOSED
    proposer.proposing._ports = msgspec.structs.replace(proposer.proposing._ports, bound=1)
    await proposer.proposing.look()
    assert (len(queued(proposer)), counted()) == (1, 1.0)


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


async def test_a_bundle_that_is_announced_and_withheld_settles_its_epoch_for_a_while_alone(subnet: Subnet) -> None:
    liar, second, third = subnet.validators
    for each in subnet.validators:
        each.offer()
    subnet.turn_of(0)
    await liar.proposing.look()
    subnet.accepted = set()
    subnet.turn_of(1)
    await second.proposing.look()
    assert second.candidate().state is CandidateState.SETTLED, "it may be on its way"
    subnet.clock.advance(ACCEPTED_WITHIN_S)
    for each in (third, second):
        await each.proposing.look()
    (bundle,) = queued(second)
    assert third.keypair.ss58 in {each["hotkey"] for each in bundle["cosignatures"]}  # type: ignore[attr-defined]
    assert third.candidate().reason == f"the bundle of {second.keypair.ss58} has left"
    subnet.accepted.add(str(bundle["signed_hash"]))
    await Directly(liar).announce_bundle(Peer(third.keypair.public_key, ""), json.dumps(queued(liar)[0]).encode())
    subnet.clock.advance(ACCEPTED_WITHIN_S)
    for _ in range(2):
        await third.proposing.look()
    assert third.candidate().state is CandidateState.SETTLED, "the receiver shows it"


async def test_who_withheld_a_bundle_cannot_announce_it_again(subnet: Subnet) -> None:
    liar, second, _ = subnet.validators
    subnet.turn_of(0)
    liar.offer()
    await liar.proposing.look()
    second.offer()
    subnet.accepted = set()
    subnet.clock.advance(ACCEPTED_WITHIN_S)
    await second.proposing.look()
    await Directly(liar).announce_bundle(Peer(second.keypair.public_key, ""), json.dumps(queued(liar)[0]).encode())
    assert second.candidate().state is CandidateState.WAITING
    subnet.accepted = None
    await second.proposing.look()
    assert second.candidate().state is CandidateState.WAITING, "nor is it believed while the receiver is away"


async def test_while_the_receiver_cannot_be_asked_what_was_announced_is_believed(subnet: Subnet) -> None:
    proposer, second, _ = subnet.validators
    for each in (proposer, second):
        each.offer()
    subnet.turn_of(0)
    await proposer.proposing.look()
    subnet.clock.advance(ACCEPTED_WITHIN_S)
    await second.proposing.look()
    assert second.candidate().state is CandidateState.SETTLED


async def test_only_those_that_held_a_permit_at_the_block_sign(subnet: Subnet) -> None:
    proposer, second, third = subnet.validators
    proposer.offer()
    subnet.turn_of(0)
    await proposer.cosigner.judge(second.keypair.public_key, proposal(second.keypair))
    late = third.keypair.public_key
    subnet.held[FIRST_BLOCK] = frozenset(each.public_key for each in subnet.keys) - {late}
    judged, signature = await third.cosigner.judge(proposer.keypair.public_key, proposal(proposer.keypair))
    assert (judged.verdict, signature) == (Verdict.NO_OWN_PERMIT, None)
    subnet.turn_of(2)
    judged, signature = await second.cosigner.judge(late, proposal(third.keypair))
    assert (judged.verdict, signature) == (Verdict.NO_PERMIT, None)
    subnet.turn_of(0)
    await proposer.proposing.look()
    (bundle,) = queued(proposer)
    assert [each["hotkey"] for each in bundle["cosignatures"]] == [second.keypair.ss58]  # type: ignore[attr-defined]


async def test_a_signature_that_was_kept_of_one_without_a_permit_then_is_not_sent(subnet: Subnet) -> None:
    """Two have signed while it was not known who held a permit; for one of them the bundle would be refused."""
    proposer, _, third = subnet.validators
    proposer.bound = 0
    proposer.restart()
    proposer.offer()
    subnet.turn_of(0)
    await proposer.proposing.look()
    assert len(proposer.candidate().cosignatures) == 2
    subnet.held[FIRST_BLOCK] = frozenset({proposer.keypair.public_key, third.keypair.public_key})
    proposer.proposing._ports = msgspec.structs.replace(proposer.proposing._ports, bound=1)
    await proposer.proposing.look()
    (bundle,) = queued(proposer)
    assert [each["hotkey"] for each in bundle["cosignatures"]] == [third.keypair.ss58]  # type: ignore[attr-defined]


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
    (found,) = judge.ledger.write_now(lambda c: evidence.newest(c, proposer=proposer.keypair.ss58))
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
