"""A miner that avoids being asked loses what it has earned, and nobody loses for what is not its own doing."""

import pytest

from engram.validator import relaying, reports
from engram.validator.model import RoundState
from engram.validator.records import standings as miner_records
from engram.validator.standing import Standing
from tests.validator.benches import NETUID, Bench, key, over
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
