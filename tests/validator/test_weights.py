"""Weights on the chain's double: when they are due, that they are set once an epoch, what a crash leaves."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy.exc import IntegrityError

from config.model import ValidatorSettings
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import InclusionWait
from engram.validator.due import Due
from engram.validator.model import SentState
from engram.validator.records import standings as miner_records
from tests.fakes.living_chain import NETUID
from tests.validator.setters import QUICK, Setter, setting


async def test_weights_are_the_normalized_averages(tmp_path: Path) -> None:
    async with setting(tmp_path) as at:
        await at.score({1: 1.0, 2: 0.5, 3: 0.0})
        assert await at.look() is Due.SET
        assert at.weights() == {1: 65_535, 2: 32_768}
        (sent,) = await at.sent()
        assert sent.state is SentState.SET
        assert [each.state for each in at.settled] == [SentState.SET]


async def test_weights_are_set_once_an_epoch_however_often_it_looks(tmp_path: Path) -> None:
    async with setting(tmp_path) as at:
        await at.score({1: 1.0})
        for _ in range(5):
            await at.look()
        assert len({sent.epoch for sent in await at.sent()}) == len(await at.sent())


async def test_nothing_is_set_before_one_whole_round_of_this_start(tmp_path: Path) -> None:
    async with setting(tmp_path) as at:
        await at.score({1: 1.0}, boot="the start before")
        assert await at.look() is Due.NO_ROUND
        assert await at.sent() == []


@pytest.mark.parametrize("scores", [{1: 0.0, 2: 0.0}, {1: math.inf}, {1: math.inf, 2: 0.0}])
@pytest.mark.parametrize("share_scores", [True, False])
async def test_scores_of_zero_or_no_finite_number_set_nothing(
    tmp_path: Path, scores: dict[int, float], share_scores: bool
) -> None:
    async with setting(tmp_path, share_scores=share_scores) as at:
        await at.score(scores)
        assert await at.look() is Due.NO_SCORES
        assert await at.sent() == []


async def test_a_score_that_is_no_finite_number_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async with setting(tmp_path) as at:
        await at.score({1: math.inf, 2: 0.5, 3: 1.0})
        assert await at.look() is Due.SET
        assert at.weights() == {2: 32_768, 3: 65_535}


async def test_an_average_that_is_no_number_is_never_written(tmp_path: Path) -> None:
    async with setting(tmp_path) as at:
        await at.score({1: 1.0})
        with pytest.raises(IntegrityError, match="ema"):
            await at.score({1: math.nan})
        known = await at.ledger.read(miner_records.all_known)
        assert [each.standing.ema for each in known.values()] == [1.0]


async def test_a_dry_run_writes_down_what_it_would_send_and_sends_nothing(tmp_path: Path) -> None:
    async with setting(tmp_path, dry_run=True) as at:
        await at.score({1: 1.0, 2: 1.0})
        assert await at.look() is Due.DUE
        assert await at.look() is Due.DUE
        (sent, *more) = await at.sent()
        assert sent.state is SentState.DRY_RUN
        assert sent.weights == {1: 0.5, 2: 0.5}
        assert "author_submitExtrinsic" not in at.chain.asked
        assert len({each.epoch for each in (sent, *more)}) == len((sent, *more))


async def test_a_validator_of_an_older_version_than_the_subnet_wants_stops(tmp_path: Path) -> None:
    async with setting(tmp_path, version=0) as at:
        at.chain.put(7, "SubtensorModule", "WeightsVersionKey", NETUID)
        await at.score({1: 1.0})
        metagraph = at.subnets.get(NETUID)
        assert metagraph is not None
        newer = msgspec.structs.replace(metagraph.parameters, weights_version=7)
        at.subnets.publish(msgspec.structs.replace(metagraph, parameters=newer), ())
        assert await at.setter.look() is Due.OUTDATED


async def test_an_extrinsic_that_is_lost_is_sent_again_only_when_it_can_no_longer_arrive(tmp_path: Path) -> None:
    async with setting(tmp_path, sender=None) as at:
        at.setter._ports = msgspec.structs.replace(
            at.setter._ports, sender=Sender([at.chain], waiting=InclusionWait(0.001, 0.05))
        )
        at.chain.drop_submissions = True
        await at.score({1: 1.0})
        await at.look()
        (sent,) = await at.sent()
        assert sent.state is SentState.UNKNOWN
        assert await at.look() in (Due.SET, Due.UNSETTLED)
        assert len(await at.sent()) == 1
        at.chain.drop_submissions = False
        at.setter._ports = msgspec.structs.replace(at.setter._ports, sender=Sender([at.chain], waiting=QUICK))
        for _ in range(70):
            at.chain.seal()
        await at.look()
        states = [each.state for each in await at.sent()]
        assert states[-1] is SentState.LOST
        assert states[0] is SentState.SET


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_crash_between_intent_and_outcome_never_sets_twice_in_an_epoch(tmp_path: Path, arrived: bool) -> None:
    async with setting(tmp_path) as at:
        await at.score({1: 1.0})
        crash: Callable[..., Any] = at.setter._outcome

        async def crashed(*given: Any) -> Any:
            if arrived:
                await crash(*given)
            raise KeyboardInterrupt

        at.setter._outcome = crashed  # type: ignore[method-assign,assignment]
        with pytest.raises(KeyboardInterrupt):
            await at.look()
        (sent,) = await at.sent()
        assert sent.state is SentState.INTENT
        again = Setter(at.ledger, at.chain, tmp_path)
        before = at.chain.asked.count("author_submitExtrinsic")
        at.chain.seal_at_look = False
        assert await again.look() in (Due.SET, Due.UNSETTLED)
        assert at.chain.asked.count("author_submitExtrinsic") == before
        (sent,) = await again.sent()
        assert sent.state is (SentState.SET if arrived else SentState.INTENT)


async def test_a_hotkey_that_was_replaced_since_the_round_gets_nothing(tmp_path: Path) -> None:
    async with setting(tmp_path) as at:
        await at.score({1: 1.0, 2: 1.0})
        metagraph = at.subnets.get(NETUID)
        assert metagraph is not None
        old = metagraph.neurons[1].hotkey
        at.chain.metagraphs["0xc201"] = lambda scale: scale.replace(old, bytes(range(32)))
        assert await at.look() is Due.SET
        assert at.weights() == {2: 65_535}


async def test_a_miner_on_the_blacklist_gets_no_weight_whatever_its_average(tmp_path: Path) -> None:
    async with setting(tmp_path) as at:
        await at.score({1: 1.0, 2: 0.5})
        metagraph = at.subnets.get(NETUID)
        assert metagraph is not None
        listed = metagraph.neurons[1].hotkey
    async with setting(tmp_path, blacklist=frozenset({listed})) as at:
        await at.score({1: 1.0, 2: 0.5})
        assert await at.look() is Due.SET
        assert at.weights() == {2: 65_535}


def test_a_validator_sends_nothing_to_the_chain_until_it_is_told_to() -> None:
    assert ValidatorSettings().dry_run is True
