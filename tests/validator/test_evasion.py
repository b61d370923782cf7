"""A miner that avoids being asked loses what it has earned, and nobody loses for what is not its own doing."""

from pathlib import Path
from typing import Any

import pytest

from engram.validator import relaying, reports, round_rules
from engram.validator.model import Offers, RoundState
from engram.validator.records import standings as miner_records
from engram.validator.standing import Standing
from tests.validator.benches import NETUID, Bench, key, over, public_file, write_file
from tests.validator.toy_miners import Keeps


async def standing_of(bench: Bench, number: int) -> Standing:
    known = await bench.ledger.read(lambda c: miner_records.known(c, key(number).public_key))
    assert known is not None
    return known.standing


async def test_a_miner_that_announces_no_address_any_more_fails_every_round_from_then_on() -> None:
    leaving, newcomer = Keeps(key(2)), Keeps(key(3))
    async with over([Keeps(key(1)), leaving, newcomer]) as bench:
        address, newcomer.url = newcomer.url, ""
        await bench.hold()
        assert (await standing_of(bench, 2)).ema == pytest.approx(1.0, abs=0.03)
        leaving.url = ""
        for held in (1, 2):
            assert (await bench.hold()).state is RoundState.CLOSED
            assert (await standing_of(bench, 2)).ema == pytest.approx(0.9**held, abs=0.03)
        assert (await standing_of(bench, 1)).ema == pytest.approx(1.0, abs=0.03)
        scores = {each.uid: each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID))}
        assert (scores[2].score, scores[2].reason) == (0.0, "announces no address")
        assert scores[3].score is None, "it was never scored, so it starts clean"
        last = (await bench.ledger.read(lambda c: relaying.readings(c, NETUID, bench.block, 0)))[0]
        assert set(last.scores) == {"1"}, "nothing was measured of it, so nothing is relayed"
        newcomer.url = address
        await bench.hold()
        assert (await standing_of(bench, 3)).ema == pytest.approx(1.0, abs=0.03)


async def test_a_void_round_costs_a_miner_without_an_address_nothing_either() -> None:
    miners = [Keeps(key(number)) for number in (1, 2, 3, 4)]
    async with over(miners) as bench:
        await bench.hold()
        for miner in miners:
            miner.url = "http://127.0.0.1:9"  # the discard port: nobody listens
        miners[3].url = ""
        assert (await bench.hold()).state is RoundState.ABANDONED
        assert (await standing_of(bench, 4)).ema == pytest.approx(1.0, abs=0.03)


class Chooses(Keeps):
    """Takes public records, and planted ones as long as it holds fewer than `most` of them."""

    most = 10**6
    public: frozenset[str] = frozenset()

    def ingest(self, body: dict[str, Any], signer: str) -> Any:
        before = dict(self.records)
        answer = super().ingest(body, signer)
        if answer["cid"] in self.public or len(self.records.keys() - self.public) <= self.most:
            return answer
        self.records = before
        return 507, {"error": "no room"}


@pytest.mark.parametrize("taken", [0, 4], ids=["nothing", "too few to be asked about"])
async def test_a_miner_that_stored_for_a_while_and_then_refuses_records_loses_within_a_few_rounds(
    tmp_path: Path, taken: int
) -> None:
    shared = public_file()
    path = write_file(tmp_path / "truth.jsonl", shared)
    cheat = Chooses(key(2), public=frozenset(each.cid for each in shared))
    async with over([Keeps(key(1)), cheat], shared=shared, ground_truth=path, planted_rounds=3) as bench:
        for _ in range(2):
            await bench.hold()
        assert (await standing_of(bench, 2)).ema == pytest.approx(1.0, abs=0.03)
        cheat.most = taken
        for _ in range(7):
            await bench.hold()
        assert (await standing_of(bench, 2)).ema < 0.7
        assert (await standing_of(bench, 1)).ema == pytest.approx(1.0, abs=0.03)


async def test_what_was_refused_in_a_void_round_counts_against_nobody() -> None:
    """A miner that is new when the validator's network fails is given its records at last in vain, and starts clean."""
    miners = [Keeps(key(number)) for number in (1, 2, 3, 4)]
    async with over(miners) as bench:
        newcomer, addresses = miners[3], [miner.url for miner in miners]
        newcomer.url = ""
        await bench.hold()
        for miner in miners:
            miner.url = "http://127.0.0.1:9"  # the discard port: nobody listens
        await bench.rounds.prepare(bench.metagraph())
        for _ in range(5):
            bench.clock.advance(601.0)
            await bench.gardener.tend_once()
        assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.ABANDONED
        for miner, address in zip(miners, addresses, strict=True):
            miner.url = address
        assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.CLOSED
        assert (await standing_of(bench, 4)).rounds == 0


@pytest.mark.parametrize(
    ("refused", "taken", "questioned", "fails"),
    [
        (0, 0, False, False),
        (0, 9, False, False),
        (1, 0, False, True),
        (1, 0, True, True),
        (5, 5, False, True),
        (4, 5, False, False),
        (9, 1, True, False),
    ],
)
def test_a_miner_fails_that_takes_nothing_or_is_not_asked_for_what_it_refuses(
    refused: int, taken: int, questioned: bool, fails: bool
) -> None:
    assert round_rules.is_evading(Offers(refused, taken), questioned=questioned) is fails
