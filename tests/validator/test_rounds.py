"""How a round goes on after it was cut off, what of it is kept, and the child that finds vectors and truths."""

from pathlib import Path

import pytest
import trio
from sqlalchemy import func, select

from config.model import MinerSettings
from engram.memory.embed.hash_embedder import hash_vector
from engram.validator.model import PlantState, RoundState
from engram.validator.records import plants as plant_records
from engram.validator.records import rounds as round_records
from engram.validator.records import standings as miner_records
from engram.validator.tables import families, planted, questions, signers
from engram.validator.workbench import Candidate, Draft, Workbench
from tests.fakes.responder import Answer, Asked
from tests.validator.benches import NETUID, Bench, key, over
from tests.validator.toy_miners import Keeps


class Stalls(Keeps):
    """Answers so many questions of a round, then waits until it is let go on."""

    def __init__(self, number: int, answers: int) -> None:
        super().__init__(key(number))
        self.left = answers
        self.armed = False
        self.reached = trio.Event()
        self.gate = trio.Event()

    async def answer(self, asked: Asked) -> Answer | None:
        if self.armed:
            if self.left == 0:
                self.reached.set()
                await self.gate.wait()
            self.left -= 1
        return await super().answer(asked)


async def test_a_process_that_is_stopped_within_a_round_takes_no_score_from_a_miner_it_had_not_finished_with() -> None:
    quick, slow = Keeps(key(1)), Stalls(2, answers=2)
    async with over([quick, slow]) as bench:
        await bench.plant()
        slow.armed = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rounds.hold, bench.metagraph())
            await slow.reached.wait()
            nursery.cancel_scope.cancel()
        slow.armed = False
        slow.gate.set()
        left = await bench.ledger.read(lambda c: round_records.last_round(c, NETUID))
        assert left is not None
        assert left.state is RoundState.OPEN
        await bench.rounds.recover()
        known = await bench.ledger.read(miner_records.all_known)
        assert [known[each.keypair.public_key].standing.ema for each in (quick, slow)] == pytest.approx(
            [1, 1], abs=0.03
        )
        assert [known[each.keypair.public_key].standing.rounds for each in (quick, slow)] == [1, 1]


async def count(bench: Bench, *query: object) -> int:
    return await bench.ledger.read(lambda c: c.scalar(select(func.count()).where(*query)) or 0)  # type: ignore[arg-type]


async def test_vectors_are_kept_no_longer_than_they_are_needed() -> None:
    async with over([Keeps(key(1))], planted_rounds=3) as bench:
        for _ in range(4):
            await bench.hold()
        assert await count(bench, questions.c.id > 0) > 0
        assert await count(bench, questions.c.vector.is_not(None)) == 0
        assert await count(bench, planted.c.state == "deleted") > 0
        assert await count(bench, planted.c.state == "deleted", planted.c.vector.is_not(None)) == 0
        assert await count(bench, planted.c.state == "held", planted.c.vector.is_(None)) == 0


async def test_what_is_over_for_long_is_removed_and_what_still_has_to_be_deleted_keeps_its_signer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plant_records, "ENDED_ROUNDS", 2)
    miner = Keeps(key(1))
    async with over([miner], planted_rounds=3) as bench:
        seen: set[bytes] = set()
        for _ in range(14):
            await bench.hold()
            seen |= set(await bench.ledger.read(lambda c: c.execute(select(signers.c.public_key)).scalars().all()))
        left = await count(bench, signers.c.public_key.is_not(None))
        assert left < len(seen) / 2
        assert await count(bench, families.c.until_round < 14 - 3 - 2) == 0
        assert await count(bench, planted.c.state == "deleted", planted.c.delete_round < 14 - 2) == 0
        live = await bench.ledger.read(lambda c: plant_records.plants(c, key(1).public_key, plant_records.LIVE))
        seeds = [await bench.ledger.read(lambda c, p=plant: plant_records.seed_of(c, p.signer)) for plant in live]  # type: ignore[misc]
        assert live
        assert None not in seeds
        assert PlantState.LOST not in {each.state for each in live}


async def test_the_child_gives_vectors_and_the_nearest_records_of_each_question_s_own_candidates(
    tmp_path: Path,
) -> None:
    first = [Candidate(f"a{n}", hash_vector(f"note {n} on the harbor", 384)) for n in range(12)]
    second = [Candidate("b", hash_vector("the mill", 384))]
    bench = Workbench(MinerSettings(embedder="hash"), tmp_path)
    drafts = [Draft("note 3 on the harbor", first), Draft("the harbor", first), Draft("the mill", second)]
    done = await bench(["a text"], drafts)
    assert done.vectors == [hash_vector("a text", 384)]
    assert [each.vector for each in done.truths] == [hash_vector(each.text, 384) for each in drafts]
    assert done.truths[0].cids[0] == "a3"
    assert [len(each.cids) for each in done.truths] == [10, 10, 1]
    assert [each.planted for each in done.truths] == [10, 10, 1]
    assert done.truths[2].cids == ["b"]
