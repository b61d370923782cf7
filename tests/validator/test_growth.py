"""What a validator writes down is bounded by the rounds that it keeps, whatever its miners and its chain do."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, update
from trio.testing import MockClock

from engram.ledger import open_inline
from engram.validator import gardening
from engram.validator.due import RETRY_BLOCKS, Due
from engram.validator.model import RoundState, SentState
from engram.validator.records import plants as plant_records
from engram.validator.records import retention
from engram.validator.records import rounds as round_records
from engram.validator.records import sent as weight_records
from engram.validator.records import standings as miner_records
from engram.validator.tables import (
    families,
    miners,
    planted,
    questions,
    round_miners,
    rounds,
    signers,
    weights_sent,
)
from tests.fakes.living_chain import NETUID as CHAIN_NETUID
from tests.validator.benches import NETUID, Bench, key
from tests.validator.networks import Network
from tests.validator.setters import SUBTENSOR, RuledChain, Setter, setting
from tests.validator.toy_miners import Keeps

TABLES = (miners, signers, families, planted, rounds, round_miners, questions)
KEPT = 10
"""Rounds, of all kinds."""


async def rows(bench: Bench) -> dict[str, int]:
    def count(connection: Connection) -> dict[str, int]:
        return {each.name: connection.scalar(select(func.count()).select_from(each)) or 0 for each in TABLES}

    return await bench.ledger.read(count)


def bench_of(*served: Keeps, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Network]:
    monkeypatch.setattr(plant_records, "ENDED_ROUNDS", KEPT)
    monkeypatch.setattr(gardening, "FAMILIES", 1)
    bench = Bench(open_inline(), served, planted=10, planted_rounds=24, keep_rounds=KEPT, queries=1, challenges=1)
    network = Network(served)
    bench.client._http = network  # type: ignore[assignment]
    return bench, network


def miner(number: int) -> Keeps:
    return Keeps(key(number), url=f"http://127.0.0.1:{number}")


async def hold(bench: Bench, count: int) -> None:
    for _ in range(count):
        await bench.hold()


async def test_miners_that_come_and_go_leave_nothing_behind(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = 20
    stays, *others = [miner(number) for number in range(1, 9)]
    bench, _ = bench_of(stays, *others, monkeypatch=monkeypatch)
    for passing in others:
        bench.miners = [stays, passing]
        await hold(bench, 3)
        hotkey = passing.keypair.public_key
        # As records of the ground-truth file are held: for good, until the hotkey is gone.
        await bench.ledger.write(
            lambda c, h=hotkey: c.execute(  # type: ignore[misc]
                update(planted).where(planted.c.hotkey == h, planted.c.state == "held").values(family_id=0)
            )
        )
        await bench.ledger.write(
            lambda c, h=hotkey: c.execute(  # type: ignore[misc]
                update(planted).where(planted.c.hotkey == h, planted.c.state == "held").values(delete_round=2**53)
            )
        )
    bench.miners = [stays]
    await hold(bench, 3 * KEPT)
    left = await bench.ledger.read(
        lambda c: {
            each.name: set(c.execute(select(each.c.hotkey).distinct()).scalars())
            for each in (miners, signers, families, planted, round_miners, questions)
        }
    )
    assert left == {name: {stays.keypair.public_key} for name in left}
    before = await rows(bench)
    await hold(bench, 2 * KEPT)
    for name, count in (await rows(bench)).items():
        assert count <= 1.5 * before[name] + seeds, name


async def test_a_slash_outlives_the_rounds_that_are_kept(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, leaves = miner(1), miner(2)
    bench, _ = bench_of(stays, leaves, monkeypatch=monkeypatch)
    await hold(bench, 2)
    slashed = update(miners).where(miners.c.hotkey == leaves.keypair.public_key).values(slashed_until_block=3_000)
    await bench.ledger.write(lambda c: c.execute(slashed))
    bench.miners = [stays]
    await hold(bench, 2 * KEPT)
    assert bench.block < 3_000
    assert leaves.keypair.public_key in await bench.ledger.read(miner_records.all_known)
    await hold(bench, 2 * KEPT)
    assert bench.block > 3_000
    assert leaves.keypair.public_key not in await bench.ledger.read(miner_records.all_known)


async def test_void_rounds_are_bounded_too_and_the_last_whole_one_is_kept(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = [miner(number) for number in range(1, 5)]
    bench, network = bench_of(*served, monkeypatch=monkeypatch)
    await hold(bench, KEPT)
    network.hanging = set(served)
    await hold(bench, 2 * KEPT)
    closed = await bench.ledger.read(lambda c: round_records.last_round(c, NETUID, RoundState.CLOSED))
    assert closed is not None
    results = await bench.ledger.read(lambda c: round_records.results(c, closed.id))
    assert {each.score is not None for each in results} == {True}
    before = await rows(bench)
    assert before["validator_rounds"] <= KEPT + 2
    await hold(bench, 2 * KEPT)
    for name, count in (await rows(bench)).items():
        assert count <= 1.5 * before[name], name


async def sent_rows(at: Setter) -> int:
    return await at.ledger.read(lambda c: c.scalar(select(func.count()).select_from(weights_sent)) or 0)


async def test_weights_are_forgotten_with_their_rounds_but_for_the_newest_that_may_be_on_the_chain(
    tmp_path: Path,
) -> None:
    async with setting(tmp_path, RuledChain) as at:
        for _ in range(12):
            await at.score({1: 1.0})
            assert await at.look() is Due.SET
            for _ in range(11):
                at.chain.seal()
        assert await sent_rows(at) > 8
        newest = await at.ledger.read(lambda c: round_records.last_round(c, CHAIN_NETUID))
        assert newest is not None
        number = newest.id
        await at.ledger.write(lambda c: retention.purge(c, CHAIN_NETUID, number, 1, 3, 24))
        assert {each.round_id for each in await at.sent()} <= set(range(number - 3, number + 1))
        last = (await at.sent())[0]
        for _ in range(5):
            await at.score({1: 1.0})
        await at.ledger.write(lambda c: retention.purge(c, CHAIN_NETUID, number + 5, 1, 3, 24))
        assert await at.sent() == [last]
        assert await at.ledger.read(lambda c: weight_records.last_sent_block(c, CHAIN_NETUID, _own(at))) == last.block


async def test_refusals_of_one_epoch_leave_one_row(tmp_path: Path) -> None:
    async with setting(tmp_path, lambda: RuledChain(tempo=300, last_step=1_100)) as at:
        at.chain.put(True, SUBTENSOR, "CommitRevealWeightsEnabled", CHAIN_NETUID)  # which the metagraph does not say
        await at.score({1: 1.0})
        for _ in range(6):
            assert await at.look() is Due.REFUSED
            for _ in range(RETRY_BLOCKS):
                at.chain.seal()
        assert at.counted == [SentState.REFUSED] * 6
        assert [each.state for each in await at.sent()] == [SentState.REFUSED] * 2


def _own(at: Setter) -> bytes:
    return at.setter._ports.keypair.public_key
