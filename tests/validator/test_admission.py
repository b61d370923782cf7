"""Miners that admit registered keys alone, and who claim to: which records come by the validator's own key."""

import json

import pytest

from engram.hotkeys import Keypair
from engram.validator import reports
from engram.validator.model import Known, PlantState
from engram.validator.records import plants as plant_records
from engram.validator.records import standings as miner_records
from engram.validator.records.admissions import REFUSING_ROUNDS
from tests.fakes.responder import Answer, Asked
from tests.validator.benches import NETUID, OWN, Bench, key, over
from tests.validator.toy_miners import Keeps


class Admits(Keeps):
    """Takes records of the validator's key, and refuses as many others as it may."""

    def __init__(self, keypair: Keypair, refusals: float = float("inf")) -> None:
        super().__init__(keypair)
        self.refusals = refusals
        self.refused: set[str] = set()

    async def answer(self, asked: Asked) -> Answer | None:
        signer = json.loads(asked.body)["hotkey"]
        if asked.target == "/IngestSynapse" and signer != OWN.ss58 and self.refusals > 0:
            self.refusals -= 1
            self.refused.add(signer)
            return 401, {}, b'{"error": "not registered"}'
        return await super().answer(asked)


async def known(bench: Bench) -> Known:
    found = await bench.ledger.read(lambda c: miner_records.known(c, key(1).public_key))
    assert found is not None
    return found


def signers(miner: Keeps) -> set[str]:
    return {signer for _, signer, _ in miner.came}


async def test_a_miner_that_refuses_one_key_never_sees_the_validator_s_key_on_a_record() -> None:
    miner = Admits(key(1), refusals=1)
    async with over([miner]) as bench:
        for _ in range(REFUSING_ROUNDS + 1):
            await bench.hold()
            assert not (await known(bench)).registered_only
        assert OWN.ss58 not in signers(miner)
        assert len(miner.came) > REFUSING_ROUNDS * 10


async def test_a_miner_that_refuses_some_keys_in_each_round_never_sees_it_either() -> None:
    miner = Admits(key(1))
    async with over([miner]) as bench:
        for _ in range(REFUSING_ROUNDS + 2):
            miner.refusals = 2
            await bench.hold()
        assert OWN.ss58 not in signers(miner)


async def test_one_that_refuses_every_other_key_round_after_round_gets_its_records_by_the_validator_s() -> None:
    miner = Admits(key(1))
    async with over([miner]) as bench:
        for _ in range(REFUSING_ROUNDS - 1):
            await bench.hold()
            assert not (await known(bench)).registered_only
            assert miner.came == []
        for _ in range(2):
            await bench.hold()
            assert (await known(bench)).registered_only
        assert signers(miner) == {OWN.ss58}
        (score,) = await bench.ledger.read(lambda c: reports.scores(c, NETUID))
        assert score.score == pytest.approx(1.0, abs=0.02)
        assert score.ema == score.score, "what it refused before it was known for that costs it nothing"


async def test_a_marked_miner_is_tried_with_a_fresh_key_each_round_and_loses_the_mark_once_it_admits_one() -> None:
    miner = Admits(key(1))
    async with over([miner], planted_rounds=3) as bench:
        for _ in range(REFUSING_ROUNDS + 1):
            await bench.hold()
        assert (await known(bench)).registered_only
        refused = set(miner.refused)
        await bench.hold()
        assert len(miner.refused - refused) == 1
        miner.refusals, came = 0, len(miner.came)
        await bench.hold()
        assert not (await known(bench)).registered_only
        assert {signer for _, signer, _ in miner.came[came + 1 :]} & (signers(miner) - {OWN.ss58})
        came = len(miner.came)
        for _ in range(5):
            await bench.hold()
        assert OWN.ss58 not in {signer for _, signer, _ in miner.came[came:]}
        lost = await bench.ledger.read(lambda c: plant_records.plants(c, key(1).public_key, (PlantState.LOST,)))
        assert lost == [], "each record is deleted by the key that stored it"
        deleted = await bench.ledger.read(lambda c: plant_records.plants(c, key(1).public_key, (PlantState.DELETED,)))
        assert {plant.signer == OWN.public_key for plant in deleted} == {True, False}
