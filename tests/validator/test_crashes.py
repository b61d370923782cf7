"""A validator that dies before or after any commit, or around any request, goes on as if it had not."""

from pathlib import Path

import pytest

from engram.validator.model import PlantState, RoundState
from engram.validator.records import plants as plant_records
from engram.validator.records import rounds as round_records
from engram.validator.records import standings as miner_records
from tests.sampling import sample
from tests.validator.benches import NETUID, Bench, key, over
from tests.validator.toy_miners import Keeps

ROUNDS = 3


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


async def run(bench: Bench, rounds: int) -> None:
    """Rounds until so many are closed, from wherever the ledger stands."""
    await bench.rounds.recover()
    while True:
        last = await bench.ledger.read(lambda c: round_records.last_round(c, NETUID, RoundState.CLOSED))
        if last is not None and last.id >= rounds:
            return
        await bench.hold()


CASES = [(moment, commit) for commit in range(1, 54) for moment in ("before", "after")]


@pytest.mark.parametrize(("moment", "commit"), sample("validator-crashes", CASES, 10))
async def test_a_crash_around_a_commit_changes_no_score_and_plants_nothing_twice(
    tmp_path: Path, moment: str, commit: int
) -> None:
    miner = Keeps(key(1))
    died = False
    async with over([miner], planted=8) as bench:
        count = 0

        def kill() -> None:
            nonlocal count
            count += 1
            if count == commit:
                raise Killed

        if moment == "before":
            bench.ledger.before_commit = kill
        else:
            bench.ledger.after_commit = kill
        try:
            await run(bench, ROUNDS)
        except* Killed:
            died = True
        bench.ledger.before_commit = bench.ledger.after_commit = None
        if died:
            again = Bench(bench.ledger, [miner], planted=8, seed=2)
            again.clock.advance(bench.clock.now() - again.clock.now())
            again.block = bench.block
            await run(again, ROUNDS)
            await again.http.aclose()
        known = await bench.ledger.read(lambda c: miner_records.known(c, key(1).public_key))
        assert known is not None
        assert known.standing.ema == pytest.approx(1.0, abs=0.03)
        rounds = await bench.ledger.read(lambda c: round_records.some_rounds(c, NETUID, 20))
        assert [each.state for each in rounds] == [RoundState.CLOSED] * ROUNDS
        assert known.standing.rounds in (ROUNDS - 1, ROUNDS)
        held = await bench.ledger.read(lambda c: plant_records.plants(c, key(1).public_key, (PlantState.HELD,)))
        assert {plant.cid for plant in held} <= set(miner.records)
        mine = await bench.ledger.read(lambda c: plant_records.plants(c, key(1).public_key, tuple(PlantState)))
        assert set(miner.records) <= {plant.cid for plant in mine}
