"""The finality guard over chain endpoints."""

import pytest

from engram.chain.read.node import Json, RpcCall
from engram.clock import ManualClock
from engram.relay.chain_heads import ChainHeads
from engram.relay.finality import Finality
from tests.fakes.chain import ChainDouble, unreachable
from tests.fakes.living_chain import LivingChain


def living(lag: int = 2) -> LivingChain:
    chain = LivingChain()
    chain.seal_at_look = False
    chain.lag = lag
    for _ in range(10):
        chain.seal()
    return chain


def hash_at(chain: ChainDouble, number: int) -> bytes:
    return bytes.fromhex(chain.hash(number)[2:])


@pytest.mark.parametrize(
    ("below_best", "expected"), [(1, Finality.AWAITED), (2, Finality.AWAITED), (3, Finality.FINAL), (9, Finality.FINAL)]
)
async def test_a_block_is_final_three_below_the_best_head(below_best: int, expected: Finality) -> None:
    chain = living()
    block = chain.head - below_best
    assert await ChainHeads([chain], ManualClock())(block, hash_at(chain, block)) is expected


async def test_a_block_that_is_deep_but_not_finalized_is_awaited() -> None:
    chain = living(lag=8)
    block = chain.head - 5
    assert await ChainHeads([chain], ManualClock())(block, hash_at(chain, block)) is Finality.AWAITED


async def test_another_block_of_that_number_became_final() -> None:
    chain = living()
    assert await ChainHeads([chain], ManualClock())(chain.head - 5, bytes(32)) is Finality.REORGANIZED


async def test_an_endpoint_that_is_down_is_passed_over_and_without_any_nothing_goes() -> None:
    down, chain = living(), living()
    down.down = unreachable()
    block = chain.head - 5
    assert await ChainHeads([down, chain], ManualClock())(block, None) is Finality.FINAL
    assert await ChainHeads([down], ManualClock())(block, None) is Finality.AWAITED


@pytest.mark.parametrize(("synced", "headers"), [(None, 2), (2, 2), (3, 1)])
async def test_the_best_head_that_the_syncer_keeps_is_not_read_again_where_it_is_deep_enough(
    synced: int | None, headers: int
) -> None:
    chain, asked = living(), list[str]()
    answer, block = chain.answer, chain.head - 5

    def noted(call: RpcCall) -> Json:
        asked.append(call.method)
        return answer(call)

    chain.answer = noted  # type: ignore[method-assign]
    guard = ChainHeads([chain], ManualClock(), synced=lambda: None if synced is None else block + synced)
    assert await guard(block, hash_at(chain, block)) is Finality.FINAL
    assert asked.count("chain_getHeader") == headers


async def test_a_block_that_the_syncer_calls_deep_is_awaited_until_it_is_final() -> None:
    chain = living(lag=8)
    block = chain.head - 5
    guard = ChainHeads([chain], ManualClock(), synced=lambda: block + 100)
    assert await guard(block, hash_at(chain, block)) is Finality.AWAITED


async def test_the_heads_are_read_again_after_two_seconds() -> None:
    chain, clock = living(), ManualClock()
    guard = ChainHeads([chain], clock)
    block = chain.head - 1
    assert await guard(block, None) is Finality.AWAITED
    for _ in range(4):
        chain.seal()
    assert await guard(block, None) is Finality.AWAITED
    clock.advance(2.0)
    assert await guard(block, None) is Finality.FINAL
