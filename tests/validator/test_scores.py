"""What each kind of miner scores, over real sockets."""

from pathlib import Path

import pytest

from engram.validator import reports
from engram.validator.model import Kind, PlantState
from engram.validator.records import plants as plant_records
from engram.validator.records import standings as miner_records
from tests.validator.benches import NETUID, Bench, key, over, public_file, write_file
from tests.validator.toy_miners import Drops, Keeps, KeepsHashes, Relays, ServesPublicFile


async def last_scores(bench: Bench) -> dict[int, reports.MinerScore]:
    return {each.uid: each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID))}


async def weight(bench: Bench, miner: Keeps) -> float:
    """What its weight is made of now."""
    return (await bench.weights())[miner.keypair.public_key]


@pytest.fixture(params=[True, False], ids=["shared by default", "not shared"])
def shares(request: pytest.FixtureRequest) -> bool:
    """Whether uids share scores; the miners here all listen on one address."""
    given: bool = request.param
    return given


async def test_a_miner_that_stores_reaches_one(shares: bool) -> None:
    async with over([Keeps(key(1))], share_scores=shares) as bench:
        for _ in range(3):
            await bench.hold()
        scores = await last_scores(bench)
        assert scores[1].recall == 1.0
        assert scores[1].proof_rate == 1.0
        assert scores[1].score == pytest.approx(1.0, abs=0.02)
        assert scores[1].ema == pytest.approx(1.0, abs=0.05)
        assert await weight(bench, bench.miners[0]) == scores[1].ema


async def test_one_that_serves_only_the_public_file_stays_below_six_tenths_and_is_slashed(
    tmp_path: Path, shares: bool
) -> None:
    shared = public_file()
    path = write_file(tmp_path / "truth.jsonl", shared)
    cheat = ServesPublicFile(key(2))
    cheat.records = {each.cid: each.vector_bytes for each in shared}
    async with over([Keeps(key(1)), cheat], shared=shared, ground_truth=path, planted=10, share_scores=shares) as bench:
        for _ in range(3):
            await bench.hold()
            scores = await last_scores(bench)
            assert scores[2].score is None or scores[2].score <= 0.6
        explained = await bench.ledger.read(lambda c: reports.explain(c, NETUID, 2, 3))
        assert explained is not None
        planted = [(each.planted, each.truth) for asked in explained.rounds for each in asked.questions]
        assert any(5 <= number < right for number, right in planted), "some right answers were public"
        assert scores[1].score == pytest.approx(1.0, abs=0.02), "who stores was given the file, too"
        scores = await last_scores(bench)
        assert await weight(bench, bench.miners[0]) == scores[1].ema
        assert scores[2].slashed_until_block is not None
        assert scores[2].slashed_until_block > bench.block
        assert await weight(bench, cheat) == 0.0


async def test_one_that_keeps_only_hashes_proves_nothing(shares: bool) -> None:
    hashes = KeepsHashes(key(2))
    async with over([hashes, Keeps(key(1))], share_scores=shares) as bench:
        await bench.hold()
        await bench.hold()
        scores = await last_scores(bench)
        assert scores[1].proof_rate == 0.0
        assert scores[1].score is not None
        assert scores[1].score <= 0.3
        assert scores[1].slashed_until_block is not None
        assert await weight(bench, hashes) == 0.0


async def test_one_that_relays_to_a_miner_that_does_not_cooperate_proves_nothing(shares: bool) -> None:
    other = Keeps(key(1))
    relay = Relays(key(2), other=other)
    async with over([relay, other], share_scores=shares) as bench:
        await bench.hold()
        await bench.hold()
        scores = await last_scores(bench)
        assert scores[2].proof_rate == 1.0
        assert scores[2].slashed_until_block is None
        assert scores[1].proof_rate == 0.0
        assert scores[1].slashed_until_block is not None
        assert (await weight(bench, relay), await weight(bench, other)) == (0.0, scores[2].ema)
        assert scores[2].ema > 0.8


async def test_one_that_drops_what_is_older_than_a_round_is_slashed(shares: bool) -> None:
    drops = Drops(key(2))
    async with over([drops], planted_rounds=20, share_scores=shares) as bench:
        for _ in range(6):
            await bench.plant()
            drops.forget()
            bench.block += 50
            await bench.rounds.hold(bench.metagraph())
        known = await bench.ledger.read(lambda c: miner_records.known(c, drops.keypair.public_key))
        assert known is not None
        assert known.standing.slashes >= 1
        scores = await last_scores(bench)
        assert scores[1].recall is not None
        assert scores[1].recall < 0.7
        assert scores[1].score is not None
        assert scores[1].score <= 0.7
        assert await weight(bench, drops) == 0.0


async def test_two_uids_of_one_operator_share_one_score() -> None:
    one, other = Keeps(key(1)), Keeps(key(2))
    async with over([one, other, Keeps(key(3))], coldkeys={1: 7, 2: 7}, share_scores=True) as bench:
        # All three listen, and prove, at one address here, so that the address alone would join them.
        await bench.hold()
        await bench.hold()
        scores = await last_scores(bench)
        assert scores[1].group_of == scores[2].group_of == 1
        shared, own = scores[1].shared_score, scores[1].score
        assert shared is not None
        assert own is not None
        assert shared < own / 1.9


async def test_planted_records_go_to_one_miner_each_and_are_never_signed_by_the_validator() -> None:
    one, other = Keeps(key(1)), Keeps(key(2))
    async with over([one, other]) as bench:
        await bench.hold()
        await bench.hold()
        assert one.came
        assert not {cid for cid, _, _ in one.came} & {cid for cid, _, _ in other.came}
        own = bench.rounds._keypair.ss58
        assert own not in {signer for _, signer, _ in one.came + other.came}
        assert own in one.askers
        assert set(one.askers) - {own}


async def test_planted_records_are_deleted_by_their_signers_when_their_rounds_are_over() -> None:
    miner = Keeps(key(1))
    async with over([miner], planted_rounds=3) as bench:
        for _ in range(6):
            await bench.hold()
        await bench.gardener.tend_once()
        deleted = await bench.ledger.read(
            lambda c: plant_records.plants(c, miner.keypair.public_key, (PlantState.DELETED,))
        )
        assert deleted
        assert {plant.cid for plant in deleted} <= set(miner.deleted)
        assert not {plant.cid for plant in deleted} & set(miner.records)


async def test_no_question_is_asked_of_which_fewer_than_five_right_answers_are_planted(tmp_path: Path) -> None:
    """A public file whose records are as near to the questions as the planted ones would else be most of the truth."""
    starts = ("What do we know about {}?", "Everything on {} and {0}", "notes about {}", "What did {} say about")
    shared = public_file(40, facts=[start.replace("{0}", "it") for start in starts])
    path = write_file(tmp_path / "truth.jsonl", shared)
    async with over([Keeps(key(1))], shared=shared, ground_truth=path, queries=3) as bench:
        for _ in range(4):
            await bench.hold()
        explained = await bench.ledger.read(lambda c: reports.explain(c, NETUID, 1, 4))
        assert explained is not None
        queries = [[one for one in each.questions if one.kind == Kind.QUERY] for each in explained.rounds]
        assert any(queries)
        assert min(one.planted for each in queries for one in each) >= 5
        assert any(len(each) < 3 for each in queries), "some were left out"
        for each, asked in zip(explained.rounds, queries, strict=True):
            assert asked or not each.questions, "nor is a miner scored by proofs alone"
        assert (await last_scores(bench))[1].ema == pytest.approx(1.0, abs=0.02)
