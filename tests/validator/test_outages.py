"""Planted records through an outage of their miner: all are deleted once it is back, and it loses nothing by it."""

from collections.abc import Sequence

import pytest
from trio.testing import MockClock

from engram.hotkeys import Keypair
from engram.ledger import open_inline
from engram.validator import reports
from engram.validator.model import Plant, PlantState
from engram.validator.records import asking as asking_records
from engram.validator.records import plants as plant_records
from engram.validator.tables import signers
from tests.fakes.responder import Answer, Asked
from tests.validator.benches import NETUID, Bench, key, over
from tests.validator.networks import Network
from tests.validator.toy_miners import Keeps

NOWHERE = "http://127.0.0.1:9"
"""The discard port: nobody listens."""
ALL = tuple(PlantState)


async def plants(bench: Bench, *states: PlantState) -> list[Plant]:
    return await bench.ledger.read(lambda c: plant_records.plants(c, key(1).public_key, states or ALL))


async def recall(bench: Bench) -> float | None:
    found = {each.uid: each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID))}
    return found[1].recall


async def pass_time(bench: Bench, seconds: float, step_s: float = 5.0) -> None:
    for _ in range(int(seconds / step_s)):
        bench.clock.advance(step_s)
        await bench.gardener.tend_once()


async def uncertain(bench: Bench) -> set[str]:
    hotkey = key(1).public_key
    found = await bench.ledger.read(lambda c: asking_records.held(c, [hotkey], 1, bench.clock.now()))
    return {each.cid for each in found[hotkey].uncertain}


async def test_a_record_is_deleted_after_an_outage_however_long_it_was_and_costs_the_miner_no_recall() -> None:
    miner = Keeps(key(1))
    async with over([miner], planted_rounds=4, timeout_s=0.5) as bench:
        for _ in range(6):
            await bench.hold()
        for outage_s in (600.0, 6 * 3_600.0):
            await bench.hold()
            url, miner.url = miner.url, NOWHERE
            await bench.rounds.prepare(bench.metagraph())
            await pass_time(bench, outage_s, outage_s / 100)
            assert await plants(bench, PlantState.DELETING), "it had records whose rounds were over"
            assert await plants(bench, PlantState.LOST) == []
            miner.url = url
            for _ in range(7):
                await bench.hold()
                assert await recall(bench) == 1.0
            bench.clock.advance(3_600.0)
            await bench.gardener.tend_once()
            assert {plant.cid for plant in await plants(bench, PlantState.DELETED)} <= set(miner.deleted)
            assert set(miner.records) == {plant.cid for plant in await plants(bench, PlantState.HELD)}
            assert await plants(bench, PlantState.DELETING, PlantState.LOST) == []


async def test_a_miner_that_does_not_answer_is_asked_to_delete_ever_more_seldom() -> None:
    miner = Keeps(key(1))
    async with over([miner], planted_rounds=3, timeout_s=0.5) as bench:
        for _ in range(4):
            await bench.hold()
        miner.url = NOWHERE
        await bench.rounds.prepare(bench.metagraph())
        await pass_time(bench, 60.0, 0.5)
        tried = {plant.attempts for plant in await plants(bench, PlantState.DELETING)}
        assert tried
        assert max(tried) <= 7, "1 + 4 + 9 + … seconds"


class Refuses(Keeps):
    """Answers deletions with an error."""

    refusing = True

    async def answer(self, asked: Asked) -> Answer | None:
        if asked.method == "DELETE" and self.refusing:
            return 503, {}, b"too busy"
        return await super().answer(asked)


async def test_a_deletion_that_is_refused_is_tried_again() -> None:
    miner = Refuses(key(1))
    async with over([miner], planted_rounds=3) as bench:
        for _ in range(4):
            await bench.hold()
        await pass_time(bench, 30.0)
        waiting = {plant.cid for plant in await plants(bench, PlantState.DELETING)}
        assert waiting
        miner.refusing = False
        await pass_time(bench, 120.0)
        assert waiting <= set(miner.deleted)
        assert await plants(bench, PlantState.DELETING) == []


async def test_a_deletion_is_given_up_after_a_week_and_the_record_counts_as_one_that_may_be_there() -> None:
    miner = Refuses(key(1))
    async with over([miner], planted_rounds=3, planted=4) as bench:
        for _ in range(4):
            await bench.hold()
        began = bench.clock.now()
        while not (lost := await plants(bench, PlantState.LOST)):
            bench.clock.advance(1_800.0)
            await bench.gardener.tend_once()
            assert bench.clock.now() - began < 30 * 86_400
        assert bench.clock.now() - began > 4 * 86_400
        assert {plant.cid for plant in lost} <= await uncertain(bench)


async def test_the_records_of_a_hotkey_that_is_gone_are_given_up_at_once() -> None:
    staying, leaving = Keeps(key(2)), Keeps(key(1))
    async with over([staying, leaving], planted_rounds=3) as bench:
        for _ in range(4):
            await bench.hold()
        bench.miners = [staying]
        for _ in range(4):
            await bench.hold()
        left = await plants(bench, PlantState.HELD, PlantState.DELETING, PlantState.READY, PlantState.SENDING)
        assert left == []
        assert await plants(bench, PlantState.LOST)
        assert await uncertain(bench) == set()


class Swallows(Keeps):
    """Stores records, and never says so."""

    swallowing = True

    async def answer(self, asked: Asked) -> Answer | None:
        answer = await super().answer(asked)
        return None if asked.target == "/IngestSynapse" and self.swallowing else answer


async def given_up(bench: Bench) -> Sequence[Plant]:
    await bench.rounds.prepare(bench.metagraph())
    bench.clock.advance(601.0)
    for _ in range(200):
        bench.clock.advance(5.0)
        await bench.gardener.tend_once()
        if not await plants(bench, PlantState.READY, PlantState.SENDING):
            return await plants(bench, PlantState.REFUSED)
    raise AssertionError("records are still being sent")


async def test_a_record_that_arrived_though_no_answer_came_back_is_uncertain_and_deleted_when_it_can_be() -> None:
    miner = Swallows(key(1))
    async with over([miner], timeout_s=0.3) as bench:
        miner_deletes = miner.delete
        miner.delete = lambda body, signer: (503, {"error": "busy"})  # type: ignore[method-assign]
        refused = await given_up(bench)
        there = {plant.cid for plant in refused} & set(miner.records)
        assert there
        assert there <= await uncertain(bench)
        miner.delete = miner_deletes  # type: ignore[method-assign]
        await pass_time(bench, 3 * 3_600.0, 600.0)
        assert there <= set(miner.deleted)
        assert miner.records == {}
        assert await uncertain(bench) == set()
        assert len(await plants(bench, PlantState.REFUSED)) == len(refused), "it still counts as refused"


@pytest.mark.parametrize("rounds", [9, 30])
async def test_signers_are_kept_as_long_as_a_record_of_theirs_may_be_deleted(
    autojump_clock: MockClock, rounds: int
) -> None:
    miner = Refuses(key(1), url="http://127.0.0.1:1")
    bench = Bench(open_inline(), [miner], planted_rounds=3, planted=4)
    bench.client._http = Network([miner])  # type: ignore[assignment]
    for _ in range(rounds):
        await bench.hold()
    waiting = {plant.signer for plant in await plants(bench, PlantState.DELETING)}
    assert len(waiting) >= 5
    kept = await bench.ledger.read(lambda c: set(c.execute(signers.select()).scalars()))
    assert waiting <= kept
    miner.refusing = False
    bench.clock.advance(3_601.0)
    await pass_time(bench, 60.0)
    assert await plants(bench, PlantState.DELETING) == []


async def test_a_miner_that_deletes_nothing_does_not_make_ever_more_of_its_records_uncertain(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plant_records, "UNSURE_MOST", 12)
    miner = Refuses(Keypair.from_seed((1).to_bytes(32, "big")), url="http://127.0.0.1:1")
    bench = Bench(open_inline(), [miner], planted_rounds=3, planted=10)
    bench.client._http = Network([miner])  # type: ignore[assignment]
    for _ in range(8):
        await bench.hold()
    assert len(await plants(bench, PlantState.DELETING)) <= 12
    lost = await plants(bench, PlantState.LOST)
    assert lost
    assert not {plant.cid for plant in lost} & await uncertain(bench)
