"""How much is kept of refusals, and of what others have signed, whatever one validator proposes."""

import pytest
from sqlalchemy import func, select

from engram.relay import MinerScore
from engram.relay.quorum import evidence
from engram.relay.quorum.model import Verdict
from engram.relay.quorum.proposals import MalformedProposal
from engram.relay.tables import relay_signatures
from tests.relay.quorum.validators import FIRST_BLOCK, SCORES, TEMPO, Subnet, Validator, proposal


def lie(number: int) -> dict[str, MinerScore]:
    return {**SCORES, "9": MinerScore(1.0, 10.0 + number, 1.0)}


async def refused(subnet: Subnet, judge: Validator, of: int, number: int, block: int = FIRST_BLOCK) -> Verdict:
    keypair = subnet.validators[of].keypair
    judged, _ = await judge.cosigner.judge(keypair.public_key, proposal(keypair, lie(number), block))
    return judged.verdict


@pytest.mark.parametrize("bound", ["rows", "bytes"])
async def test_no_flood_of_one_proposer_displaces_what_names_another_nor_outgrows_its_bound(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    subnet = Subnet()
    judge = subnet.validators[1]
    subnet.turn_of(2)
    assert await refused(subnet, judge, 2, 0) is Verdict.DIFFERS
    monkeypatch.setattr(evidence, "KEPT_OF_ONE", 3 if bound == "rows" else 100)
    monkeypatch.setattr(evidence, "BYTES_OF_ONE", 10**6 if bound == "rows" else 2_500)
    subnet.turn_of(0)
    for number in range(9):
        assert await refused(subnet, judge, 0, number, FIRST_BLOCK + number) is Verdict.DIFFERS
    flood, other = subnet.keys[0].ss58, subnet.keys[2].ss58
    kept = judge.ledger.write_now(evidence.newest)
    of_flood = [each.block for each in kept if each.proposer == flood]
    assert of_flood[0] == FIRST_BLOCK + 8, "the newest"
    assert 1 <= len(of_flood) <= 3
    assert [each.proposer for each in kept].count(other) == 1
    subnet.close()


async def test_one_equivocation_a_kind_and_block_is_kept_and_outlives_other_refusals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subnet = Subnet()
    judge = subnet.validators[1]
    subnet.turn_of(0)
    assert await refused(subnet, judge, 0, 0) is Verdict.DIFFERS
    for number in range(1, 5):
        assert await refused(subnet, judge, 0, number) is Verdict.EQUIVOCATION
    assert [each.verdict for each in judge.ledger.write_now(evidence.newest)] == ["equivocation", "differs"]
    monkeypatch.setattr(evidence, "KEPT_OF_ONE", 2)
    for number in range(1, 5):
        await refused(subnet, judge, 0, number, FIRST_BLOCK + number)
    assert [each.verdict for each in judge.ledger.write_now(evidence.newest)] == ["differs", "equivocation"]
    subnet.close()


async def test_what_others_sign_of_blocks_far_away_is_not_remembered() -> None:
    subnet = Subnet()
    proposer, judge, _ = subnet.validators
    subnet.turn_of(0)
    far = FIRST_BLOCK + 4 * (TEMPO + 1)

    def remembered() -> int:
        return judge.ledger.write_now(lambda c: c.scalar(select(func.count()).select_from(relay_signatures))) or 0

    for block in range(far, far + 5):
        await refused(subnet, judge, 0, 0, block)
    assert remembered() == 0
    with pytest.raises(MalformedProposal, match="is far from block"):
        keys = frozenset(each.public_key for each in subnet.keys[:2])
        await judge.cosigner.note(proposal(proposer.keypair, block=far), keys)
    await refused(subnet, judge, 0, 0)
    assert remembered() == 1
    subnet.close()
