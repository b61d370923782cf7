"""Endpoints that began again elsewhere: on another fork, or at an older block. What is reported, and the way out."""

from collections.abc import Callable

import pytest
import trio

from engram.chain import Replaced
from tests.chain.test_actor import live, syncing
from tests.fakes.chain import ChainDouble, rehotkeyed, unreachable

Clock = trio.testing.MockClock
RESET_S = 600.0


def on_another_fork(chain: ChainDouble) -> None:
    chain.reorganise(1090)


def at_an_older_block(chain: ChainDouble) -> None:
    chain.reorganise(1)
    chain.head = 20


def on_another_fork_that_stands(chain: ChainDouble) -> None:
    chain.reorganise(1100)


ELSEWHERE = [on_another_fork, at_an_older_block]
Elsewhere = Callable[[ChainDouble], None]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
async def test_the_only_endpoint_that_began_again_elsewhere_is_not_followed_and_the_message_says_the_way_out(
    autojump_clock: Clock, nursery: trio.Nursery, elsewhere: Elsewhere
) -> None:
    chain = ChainDouble()
    nursery.start_soon(live, chain)
    async with syncing([chain]) as running:
        held = running.subnets.get(450)
        elsewhere(chain)
        await trio.sleep(3_600)
        assert running.subnets.get(450) is held
        error = running.subnets.status().error
        assert "it is the only endpoint" in error
        assert "until this process restarts, or chain.reset_after_s is set" in error


@pytest.mark.parametrize("elsewhere", [*ELSEWHERE, on_another_fork_that_stands])
async def test_the_only_endpoint_is_followed_after_the_time_that_is_set(
    autojump_clock: Clock, nursery: trio.Nursery, elsewhere: Elsewhere
) -> None:
    chain = ChainDouble()
    async with syncing([chain], reset_after_s=RESET_S) as running:
        held = running.subnets.get(450)
        assert held is not None
        elsewhere(chain)
        chain.metagraphs["0xc201"] = rehotkeyed(held.neurons[7].hotkey, bytes(range(32)))
        if elsewhere is not on_another_fork_that_stands:
            nursery.start_soon(live, chain)
        await trio.sleep(RESET_S - 30)
        assert running.subnets.get(450) is held
        assert f"after chain.reset_after_s ({RESET_S:g} s)" in running.subnets.status().error
        await trio.sleep(200)
        found = running.subnets.get(450)
        assert found is not None
        assert "0x" + found.block_hash.hex() == chain.hash(found.block)
        assert found.block >= chain.head - 1
        assert any(isinstance(change, Replaced) and change.uid == 7 for change in running.changes)
        if elsewhere is not on_another_fork_that_stands:
            await trio.sleep(120)
            assert running.subnets.status().error == ""
            assert not running.subnets.status().stalled


async def test_a_chain_that_stands_still_is_no_other_chain(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    async with syncing([chain], reset_after_s=RESET_S) as running:
        held = running.subnets.get(450)
        await trio.sleep(2 * RESET_S)
        assert running.subnets.get(450) is held
        assert "the finalized head is stalled at block 1100" in running.subnets.status().error


async def test_an_endpoint_that_lags_behind_for_a_while_is_no_other_chain(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    chain = ChainDouble()
    async with syncing([chain], reset_after_s=RESET_S) as running:
        chain.head -= 10
        nursery.start_soon(live, chain)
        blocks = []
        for _ in range(30):
            await trio.sleep(12)
            blocks.append(running.block or 0)
        assert blocks == sorted(blocks)
        assert blocks[-1] > 1100


async def test_of_two_endpoints_both_must_have_begun_again_at_the_same(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    one, two = ChainDouble("one"), ChainDouble("two")
    async with syncing([one, two], reset_after_s=RESET_S) as running:
        held = running.subnets.get(450)
        at_an_older_block(one)
        two.down = unreachable("two")
        nursery.start_soon(live, one, two)
        await trio.sleep(3 * RESET_S)
        assert running.subnets.get(450) is held
        assert "followed if two endpoints have it after" in running.subnets.status().endpoints["one"].last_error
        two.down = None
        await trio.sleep(300)
        assert running.subnets.get(450) is held
        two.forks, two.head = list(one.forks), one.head
        await trio.sleep(300)
        found = running.subnets.get(450)
        assert found is not None
        assert "0x" + found.block_hash.hex() == one.hash(found.block)
        assert found.block >= one.head - 1
