"""Which questions a round asks: one that is not worth asking is replaced, and none counts on what is uncertain."""

import struct
from collections.abc import Sequence
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.memory.embed.hash_embedder import hash_vector
from engram.validator import reports, scoring
from engram.validator.model import Kind, PlantState
from engram.validator.records import plants as plant_records
from engram.validator.workbench import Candidate, Done, Draft, Truth
from engram.validator.workbench_child import truth
from tests.validator.benches import NETUID, Bench, key, over, public_file
from tests.validator.toy_miners import Keeps


async def score(bench: Bench, uid: int = 1) -> reports.MinerScore:
    return next(each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID)) if each.uid == uid)


async def asked(bench: Bench, uid: int = 1) -> list[reports.ExplainedQuestion]:
    explained = await bench.ledger.read(lambda c: reports.explain(c, NETUID, uid, 1))
    assert explained is not None
    return explained.rounds[0].questions


async def queries(bench: Bench) -> list[reports.ExplainedQuestion]:
    return [each for each in await asked(bench) if each.kind == Kind.QUERY]


class Spoils:
    """Finds that of the first questions too few right answers are planted."""

    def __init__(self, bench: Bench, first: int) -> None:
        self.embeds, self.left = bench.embeds, first

    async def __call__(self, texts: Sequence[str], drafts: Sequence[Draft]) -> Done:
        done = await self.embeds(texts, drafts)
        poor, self.left = self.left, max(0, self.left - len(drafts))
        truths = [
            msgspec.structs.replace(each, planted=4) if place < poor else each for place, each in enumerate(done.truths)
        ]
        return Done(done.vectors, truths)


async def test_questions_of_which_too_little_is_planted_are_replaced_by_others() -> None:
    async with over([Keeps(key(1))], queries=4) as bench:
        await bench.plant()
        bench.rounds._embeds = Spoils(bench, first=3)
        await bench.rounds.hold(bench.metagraph())
        found = await queries(bench)
        assert len({each.about for each in found}) == len(found) == 4
        assert sorted(each.own_key for each in found) == [False, False, True, True]
        assert min(each.planted for each in found) >= 5


async def test_a_miner_of_whom_nothing_can_be_asked_is_asked_for_no_proofs_either_and_keeps_its_standing() -> None:
    async with over([Keeps(key(1))], queries=4) as bench:
        await bench.hold()
        bench.rounds._embeds = Spoils(bench, first=10**6)
        await bench.hold()
        assert await asked(bench) == []
        found = await score(bench)
        assert (found.score, found.rounds) == (None, 1)


async def test_records_that_arrive_while_a_round_is_drawn_push_no_right_answer_out() -> None:
    class SendsMeanwhile:
        def __init__(self, bench: Bench) -> None:
            self.bench, self.sent = bench, False

        async def __call__(self, texts: Sequence[str], drafts: Sequence[Draft]) -> Done:
            if drafts and not self.sent:
                self.sent = True
                self.bench.clock.advance(55.0)
            await self.bench.gardener.tend_once()
            return await self.bench.embeds(texts, drafts)

    miner = Keeps(key(1))
    async with over([miner], queries=8, planted=40) as bench:
        await bench.hold()
        await bench.rounds.prepare(bench.metagraph())
        bench.clock.advance(300.0)
        await bench.gardener.tend_once()
        before = len(miner.came)
        bench.rounds._embeds = SendsMeanwhile(bench)
        await bench.rounds.hold(bench.metagraph())
        assert len(miner.came) > before
        assert any(each.truth < 10 for each in await queries(bench)), "some were near enough to push others out"
        assert (await score(bench)).recall == 1.0


async def test_records_that_are_to_be_deleted_but_may_still_be_there_push_no_right_answer_out() -> None:
    class Undeletable(Keeps):
        def delete(self, body: dict[str, object], signer: str) -> object:
            return 200, {"no": "answer"}  # and it stays

    miner = Undeletable(key(1))
    async with over([miner], queries=6, planted=30, planted_rounds=3) as bench:
        for _ in range(3):
            await bench.hold()
        await bench.plant()
        mine = await bench.ledger.read(lambda c: plant_records.plants(c, key(1).public_key, (PlantState.DELETING,)))
        assert mine
        await bench.rounds.hold(bench.metagraph())
        assert any(each.truth < 10 for each in await queries(bench))
        assert (await score(bench)).recall == 1.0
        assert not {each.cid for each in mine} & {each.about for each in await asked(bench)}, "nor are they challenged"


def candidate(text: str) -> Candidate:
    return Candidate(text, hash_vector(text, 64))


NOTES = [f"note {number} on the harbor" for number in range(12)]
QUESTION = hash_vector("note 3 on the harbor", 64)


def test_a_truth_is_the_ten_nearest_without_what_uncertain_records_could_push_out() -> None:
    sure = [candidate(text) for text in NOTES]
    near, far = candidate("note 3 on the harbor again"), candidate("a recipe for onion soup")
    plain = truth(QUESTION, sure, NOTES)
    assert (len(plain.cids), plain.planted) == (10, 10)
    assert truth(QUESTION, sure, NOTES, uncertain=[far]) == plain
    assert truth(QUESTION, sure, NOTES, uncertain=[near, far]) == Truth(QUESTION, plain.cids[:9], 9)
    again = [Candidate(str(number), QUESTION) for number in range(10)]
    assert truth(QUESTION, sure, NOTES, uncertain=again) == Truth(QUESTION, [], 0)
    assert truth(QUESTION, [], NOTES, uncertain=[near]) == Truth(QUESTION, [], 0)


def test_a_truth_ends_with_what_the_question_is_about() -> None:
    sure = [candidate(text) for text in NOTES]
    order = truth(QUESTION, sure, NOTES).cids
    assert truth(QUESTION, sure, order[2:5]) == Truth(QUESTION, order[:5], 5)
    assert truth(QUESTION, sure, [*order[:7], order[8]]) == Truth(QUESTION, order[:7], 7)
    assert truth(QUESTION, sure, []) == Truth(QUESTION, [], 0)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 20), st.integers(0, 20))
def test_whoever_holds_all_that_is_sure_has_the_truth_among_its_first_ten_whatever_else_it_holds(
    seed: int, sure: int, uncertain: int
) -> None:
    rng = Random(seed)

    def drawn(name: str) -> Candidate:
        return Candidate(name, struct.pack("<4f", *(rng.gauss(0, 1) for _ in range(4))))

    held, maybe = [drawn(f"sure {number}") for number in range(sure)], [drawn(f"maybe {n}") for n in range(uncertain)]
    question = struct.pack("<4f", *(rng.gauss(0, 1) for _ in range(4)))
    found = truth(question, held, [each.cid for each in held], uncertain=maybe)
    holds = held + rng.sample(maybe, rng.randint(0, uncertain))
    answer = truth(question, holds, [each.cid for each in holds]).cids
    assert scoring.recall(answer, found.cids) == (1.0 if found.cids else 0.0)


def test_public_records_count_among_the_right_answers_but_not_as_planted() -> None:
    shared = public_file(20, facts=["note {} on the harbor"])
    held, public = [candidate(text) for text in NOTES[:6]], {each.cid for each in shared}
    found = truth(QUESTION, held, [*NOTES, *public], shared, public)
    assert len(found.cids) == 10
    assert 0 < found.planted < 10
    not_yet = truth(QUESTION, held, NOTES, shared)
    assert len(not_yet.cids) < 6, "anyone may have given the miner what we have not"
    assert len(not_yet.cids) == not_yet.planted
