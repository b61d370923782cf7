"""A validator that dies before or after any commit, or around any request, goes on as if it had not."""

from pathlib import Path

import pytest

from engram.validator import gardening
from engram.validator.miner_client import cid_of
from engram.validator.model import Plant, PlantState, RoundState
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


COMMITS = 51
"""Of a life without a crash."""
CASES = [(moment, commit) for commit in range(1, COMMITS + 1) for moment in ("before", "after")]


async def test_a_life_without_a_crash_has_as_many_commits_as_there_are_crashes() -> None:
    async with over([Keeps(key(1))], planted=8) as bench:
        count = 0

        def note() -> None:
            nonlocal count
            count += 1

        bench.ledger.before_commit = note
        await run(bench, ROUNDS)
        assert count == COMMITS


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
        assert died, f"commit {commit} never came"
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


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("commit", range(1, 10))
async def test_a_crash_between_two_batches_of_vectors_leaves_only_the_rest_to_be_embedded(
    monkeypatch: pytest.MonkeyPatch, moment: str, commit: int
) -> None:
    monkeypatch.setattr(gardening, "DRAFTED_AT_ONCE", 1)
    monkeypatch.setattr(gardening, "VECTORS_AT_ONCE", 3)
    miners = [Keeps(key(number)) for number in (1, 2, 3)]
    async with over(miners, planted=8) as bench:
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
        with pytest.raises(Killed):
            await bench.rounds.prepare(bench.metagraph())
        bench.ledger.before_commit = bench.ledger.after_commit = None
        noted = len(await planted(bench, PlantState.READY))
        written = max(0, commit - len(miners) - (moment == "before"))
        assert noted == min(3 * written, len(await planted(bench, *PlantState))), "three to a commit, after the drafts"
        again = Bench(bench.ledger, miners, planted=8, seed=2)
        again.clock.advance(bench.clock.now() - again.clock.now())
        await again.rounds.prepare(again.metagraph())
        ready = await planted(bench, PlantState.READY)
        assert len(again.embeds.texts) == len(ready) - noted
        assert len(ready) == len(await planted(bench, *PlantState)), "none is left without a vector"
        assert all(each.cid == cid_of(each.text, each.vector) for each in ready)
        assert {each.planted_round for each in ready} == {1}
        assert {each.hotkey for each in ready} == {miner.keypair.public_key for miner in miners}
        await again.http.aclose()


async def planted(bench: Bench, *states: PlantState) -> list[Plant]:
    hotkeys = [miner.keypair.public_key for miner in bench.miners]
    read = [
        await bench.ledger.read(lambda c, h=hotkey: plant_records.plants(c, h, states))  # type: ignore[misc]
        for hotkey in hotkeys
    ]
    return [each for found in read for each in found]
