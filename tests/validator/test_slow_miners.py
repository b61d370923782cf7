"""Miners that hang cost the others nothing, however many they are. Over a network in memory, by virtual time."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engram.ledger import open_inline
from engram.validator import reports
from engram.validator.model import RoundState
from engram.validator.records import plants as plant_records
from tests.validator.benches import NETUID, Bench, key
from tests.validator.networks import Network
from tests.validator.toy_miners import Keeps

TIMEOUT_S = 15.0


def bench_of(honest: int, hanging: int, **changed: Any) -> tuple[Bench, Network, list[Keeps]]:
    miners = [Keeps(key(number), url=f"http://127.0.0.1:{number}") for number in range(1, honest + hanging + 1)]
    bench = Bench(open_inline(), miners, timeout_s=TIMEOUT_S, **changed)
    network = Network(miners)
    bench.client._http = network  # type: ignore[assignment]
    return bench, network, miners


async def scores(bench: Bench) -> dict[int, reports.MinerScore]:
    return {each.uid: each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID))}


async def outcomes(bench: Bench, uid: int) -> set[str]:
    explained = await bench.ledger.read(lambda c: reports.explain(c, NETUID, uid, 1))
    assert explained is not None
    return {each.outcome for each in explained.rounds[0].questions}


async def test_hanging_miners_do_not_keep_a_round_from_the_others(autojump_clock: MockClock) -> None:
    bench, network, miners = bench_of(3, 12, concurrency=4, deadline_s=120.0)
    await bench.hold()
    await bench.plant()
    network.hanging = set(miners[3:])
    began = trio.current_time()
    assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.CLOSED
    assert trio.current_time() - began < 60.0, "each was given up after two questions, and waited for at one time"
    found = await scores(bench)
    assert [found[uid].score for uid in (1, 2, 3)] == pytest.approx([1, 1, 1], abs=0.02)
    assert {found[uid].score for uid in range(4, 16)} == {0.0}
    assert await outcomes(bench, 4) == {"unreachable"}


async def test_a_miner_whose_turn_our_own_deadline_took_is_not_scored(autojump_clock: MockClock) -> None:
    bench, network, miners = bench_of(0, 4, concurrency=1, deadline_s=3.0)
    await bench.plant()
    network.hanging = set(miners)
    assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.CLOSED
    found = await scores(bench)
    assert sorted(str(each.score) for each in found.values()) == ["0.0", "None", "None", "None"]
    for uid, each in found.items():
        assert await outcomes(bench, uid) == ({"unasked"} if each.score is None else {"late"})
        assert each.rounds == (0 if each.score is None else 1)


async def test_a_miner_that_our_own_deadline_cut_off_is_not_scored_by_half_of_its_questions(
    autojump_clock: MockClock,
) -> None:
    bench, _, miners = bench_of(2, 0, concurrency=1, deadline_s=3.0)
    await bench.hold()
    await bench.plant()
    for miner in miners:
        miner.delay_s = 0.35
    assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.CLOSED
    found = await scores(bench)
    (cut_off,) = [uid for uid, each in found.items() if each.score is None]
    assert await outcomes(bench, cut_off) == {"answered", "unasked"}
    assert found[cut_off].ema == pytest.approx(1.0, abs=0.02)


async def test_hanging_miners_do_not_keep_records_from_the_others(autojump_clock: MockClock) -> None:
    bench, network, miners = bench_of(3, 24, concurrency=2)
    network.hanging = set(miners[3:])
    await bench.rounds.prepare(bench.metagraph())
    bench.clock.advance(601.0)
    began = trio.current_time()
    await bench.gardener.tend_once()
    assert max(network.reached[miner] - began for miner in miners[:3]) < 30.0
    assert trio.current_time() - began < 60.0


async def test_records_for_miners_that_hang_are_given_up_within_a_round(autojump_clock: MockClock) -> None:
    """Else they would pile up, and the newest would never be refused, nor sent."""
    bench, network, miners = bench_of(0, 1)
    network.hanging = set(miners)
    await bench.rounds.prepare(bench.metagraph())
    bench.clock.advance(601.0)
    began = trio.current_time()
    while set(await bench.ledger.read(plant_records.count_planted)) != {"refused"}:
        before = trio.current_time()
        await bench.gardener.tend_once()
        bench.clock.advance(trio.current_time() - before + 0.5)
        assert trio.current_time() - began < 600.0


async def test_no_miner_is_waited_for_longer_than_its_time_in_one_pass(autojump_clock: MockClock) -> None:
    bench, _, (slow, _) = bench_of(2, 0)
    slow.delay_s = TIMEOUT_S - 1.0
    await bench.rounds.prepare(bench.metagraph())
    bench.clock.advance(601.0)
    began = trio.current_time()
    await bench.gardener.tend_once()
    assert trio.current_time() - began < 45.0


async def test_records_of_a_miner_that_has_no_address_any_more_wait_for_nothing(autojump_clock: MockClock) -> None:
    bench, network, (gone, stays) = bench_of(2, 0)
    await bench.rounds.prepare(bench.metagraph())
    gone.url = ""
    await bench.rounds.prepare(bench.metagraph())
    network.reached.clear()  # what it lists was read
    bench.clock.advance(601.0)
    for _ in range(2):
        await bench.gardener.tend_once()
    for miner, state in ((gone, "lost"), (stays, "held")):
        hotkey = miner.keypair.public_key
        assert set(await bench.ledger.read(lambda c, h=hotkey: plant_records.count_planted(c, h))) == {state}  # type: ignore[misc]
    assert set(network.reached) == {stays}
