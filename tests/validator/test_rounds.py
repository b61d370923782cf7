"""How a round goes on after it was cut off, what of it is kept, and the child that finds vectors and truths."""

import time
from pathlib import Path

import pytest
import trio
from sqlalchemy import func, select

from config.model import MinerSettings
from engram.memory.embed.hash_embedder import hash_vector
from engram.validator.errors import GroundTruthInvalid
from engram.validator.ground_truth import read_file
from engram.validator.model import SEEDS, PlantState, RoundState
from engram.validator.records import asking as asking_records
from engram.validator.records import plants as plant_records
from engram.validator.records import rounds as round_records
from engram.validator.records import standings as miner_records
from engram.validator.tables import families, planted, questions, signers
from engram.validator.workbench import Candidate, Draft, Workbench
from tests.fakes.responder import Answer, Asked
from tests.validator.benches import NETUID, Bench, key, over, public_file, write_file
from tests.validator.toy_miners import Keeps, _nonce


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


async def test_the_ground_truth_file_is_seeded_to_every_miner_and_counts_from_when_it_was_taken(tmp_path: Path) -> None:
    shared = public_file(60)
    path = write_file(tmp_path / "truth.jsonl", shared)
    one, other = Keeps(key(1)), Keeps(key(2))
    async with over([one, other], shared=shared, ground_truth=path) as bench:
        await bench.plant()
        public = {each.cid for each in shared}
        assert [len(public & set(each.records)) for each in (one, other)] == [25, 25]
        assert {one.signers[cid] for cid in public & set(one.records)} == {bench.rounds._keypair.ss58}
        holdings = await bench.ledger.read(lambda c: asking_records.held(c, [one.keypair.public_key], 1, 0.0))
        (holding,) = holdings.values()
        assert holding.seeded == public & set(one.records)
        assert not {each.cid for each in holding.records} & public
        for _ in range(3):
            await bench.hold()
        assert public <= set(one.records)
        assert len(one.came) == len({cid for cid, _, _ in one.came}), "each of them once"
        assert await count(bench, planted.c.vector.is_not(None), planted.c.family_id == SEEDS) == 0
        known = await bench.ledger.read(miner_records.all_known)
        assert [each.standing.ema for each in known.values()] == pytest.approx([1, 1], abs=0.03)
        assert not public & set(one.deleted)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2: "),
        ('{"text": "a"}', "line 2: Object missing required field `embedding`"),
        ('{"text": "a", "embedding": [1e39]}', "line 2: "),
        ('{"text": "a", "embedding": ["x"]}', "line 2: "),
    ],
)
def test_a_ground_truth_file_that_is_none_is_named_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text('{"text": "a", "embedding": [1.0]}\n' + line + "\n")
    with pytest.raises(GroundTruthInvalid) as raised:
        read_file(path)
    assert f"{path}, {reason}" in str(raised.value)
    with pytest.raises(GroundTruthInvalid, match="No such file"):
        read_file(tmp_path / "none")


async def test_the_child_gives_vectors_and_the_nearest_records_of_each_question_s_own_candidates(
    tmp_path: Path,
) -> None:
    first = [Candidate(f"a{n}", hash_vector(f"note {n} on the harbor", 384)) for n in range(12)]
    second = [Candidate("b", hash_vector("the mill", 384))]
    path = write_file(tmp_path / "truth.jsonl", public_file(3, 384))
    seeded = frozenset({read_file(path)[1].cid})
    bench = Workbench(MinerSettings(embedder="hash"), tmp_path, str(path))
    about = [each.cid for each in first]
    drafts = [
        Draft("note 3 on the harbor", first, about),
        Draft("the harbor", first, about),
        Draft("the mill", second, ["b", *seeded], seeded),
    ]
    done = await bench(["a text"], drafts)
    assert done.vectors == [hash_vector("a text", 384)]
    assert [each.vector for each in done.truths] == [hash_vector(each.text, 384) for each in drafts]
    assert done.truths[0].cids[0] == "a3"
    assert [len(each.cids) for each in done.truths] == [10, 10, 2]
    assert [each.planted for each in done.truths] == [10, 10, 1]
    assert done.truths[2].cids == ["b", *seeded]


class Punctual(Keeps):
    """Refuses requests that are not stamped with about the time that it is."""

    async def answer(self, asked: Asked) -> Answer | None:
        if abs(_nonce(asked.body) / 1000 - time.time()) > 30.0:
            return 401, {"content-type": "application/json"}, b'{"error": "stale"}'
        return await super().answer(asked)


class Shifted:
    """The machine's clock, set wrong by some seconds."""

    off_s = 86_400.0

    def now(self) -> float:
        return time.time() + self.off_s

    def monotonic(self) -> float:
        return trio.current_time()


async def test_a_clock_that_is_set_back_costs_no_miner_a_round_more() -> None:
    """Stamps that only ever rose would have every miner refuse every request for a day, and be slashed for it."""
    miner, clock = Punctual(key(1)), Shifted()
    async with over([miner]) as bench:
        bench.gardener._garden.client._clock = clock
        await bench.hold()
        assert miner.records == {}, "our clock was wrong"
        clock.off_s = 0.0
        for _ in range(2):
            done = await bench.hold()
        (result,) = await bench.ledger.read(lambda c: round_records.results(c, done.id))
        assert (result.recall, result.proof_rate) == (1.0, 1.0)


async def test_what_was_to_be_planted_before_the_clock_was_set_back_is_planted() -> None:
    miner = Keeps(key(1))
    async with over([miner]) as bench:
        await bench.rounds.prepare(bench.metagraph())
        bench.clock.jump(-7 * 86_400.0)
        await bench.gardener.tend_once()
        assert miner.records


async def test_a_round_that_no_miner_answers_changes_no_score_and_slashes_nobody() -> None:
    """A validator whose network was down for two rounds had slashed a whole subnet for a day."""
    miners = [Keeps(key(number)) for number in range(1, 7)]
    async with over(miners) as bench:
        first = await bench.hold()
        before = await bench.ledger.read(miner_records.all_known)
        respond = [miner.responder._answer for miner in miners]

        async def hang_up(asked: Asked) -> None:
            return None

        for miner in miners:
            miner.responder._answer = hang_up
        for _ in range(3):
            assert (await bench.hold()).state is RoundState.ABANDONED
        after = await bench.ledger.read(miner_records.all_known)
        assert {hotkey: each.standing for hotkey, each in after.items()} == {
            hotkey: each.standing for hotkey, each in before.items()
        }
        miners[0].responder._answer = respond[0]
        await bench.plant()
        for _ in range(5):  # until what they do not take is given up
            bench.clock.advance(40.0)
            await bench.gardener.tend_once()
        last = await bench.rounds.hold(bench.metagraph())
        assert (first.state, last.state) == (RoundState.CLOSED, RoundState.CLOSED), "one answers: the others are away"
        standings = await bench.ledger.read(miner_records.all_known)
        assert standings[key(1).public_key].standing.slashes == 0
        assert standings[key(2).public_key].standing.ema < before[key(2).public_key].standing.ema
        assert [each.id for each in bench.closed] == [first.id, last.id]
