"""Several are asked in their turn; one that is slow is not waited for alone."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from engram.chain.read.hedging import HEDGE_S, hedged

Clock = trio.testing.MockClock
Ask = Callable[[], Awaitable[bool]]


def asking(started: list[str], name: str, takes_s: float, ends: bool | Exception) -> Ask:
    async def ask() -> bool:
        started.append(name)
        await trio.sleep(takes_s)
        if isinstance(ends, Exception):
            raise ends
        return ends

    return ask


async def test_an_answer_in_time_leaves_the_others_in_peace(autojump_clock: Clock) -> None:
    started: list[str] = []
    assert await hedged([asking(started, "a", HEDGE_S / 2, True), asking(started, "b", 0, True)])
    assert started == ["a"]


async def test_a_slow_one_is_joined_by_the_next_and_the_first_answer_ends_both(autojump_clock: Clock) -> None:
    started: list[str] = []
    began_s = trio.current_time()
    assert await hedged(
        [asking(started, "a", 15, True), asking(started, "b", 0.1, True), asking(started, "c", 0, True)]
    )
    assert started == ["a", "b"]
    assert trio.current_time() - began_s == pytest.approx(HEDGE_S + 0.1)


async def test_one_without_an_answer_makes_room_at_once(autojump_clock: Clock) -> None:
    started: list[str] = []
    began_s = trio.current_time()
    assert await hedged([asking(started, "a", 0, False), asking(started, "b", 0, True)])
    assert (started, trio.current_time() - began_s) == (["a", "b"], 0)


async def test_the_first_two_start_together(autojump_clock: Clock) -> None:
    started: list[str] = []
    asks = [asking(started, name, HEDGE_S / 2, name == "b") for name in "abc"]
    assert await hedged(asks, at_once=2)
    assert sorted(started) == ["a", "b"]


async def test_without_an_answer_all_are_waited_for(autojump_clock: Clock) -> None:
    started: list[str] = []
    began_s = trio.current_time()
    assert not await hedged([asking(started, "a", 15, False), asking(started, "b", 0, False)])
    assert (started, trio.current_time() - began_s) == (["a", "b"], 15)
    assert not await hedged([])


async def test_an_error_ends_the_others_and_is_raised_as_it_is(autojump_clock: Clock) -> None:
    began_s = trio.current_time()
    with pytest.raises(LookupError, match=r"^no$"):
        await hedged([asking([], "a", 15, True), asking([], "b", 0, LookupError("no"))])
    assert trio.current_time() - began_s == pytest.approx(HEDGE_S)
