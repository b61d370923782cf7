"""An endpoint that hangs costs its timeout once; what was learnt of one is shared by all who ask it."""

from functools import partial
from random import Random

import pytest
import trio

from engram.chain.errors import EndpointBusy, EndpointUnreachable
from engram.chain.model import EndpointHealth
from engram.chain.read.commitments import read_commitments
from engram.chain.read.endpoint_health import HANG_S, after_failure
from engram.chain.read.node import RpcCall
from engram.chain.read.view import open_view
from engram.chain.read.watched import LATE_S, WatchedEndpoint, preferred, watch
from engram.clock import TrioClock
from tests.fakes.chain import unreachable
from tests.fakes.living_chain import LivingChain

Clock = trio.testing.MockClock
TIMEOUT_S = 15.0
HEAD = [RpcCall("chain_getFinalizedHead")]


def chains(count: int) -> list[LivingChain]:
    made = [LivingChain(f"endpoint {place}") for place in range(count)]
    for chain in made:
        chain.seal_at_look = False
    return made


def hang(chain: LivingChain) -> None:
    chain.delay_s, chain.down = TIMEOUT_S, unreachable(chain.name)


def answer(chain: LivingChain) -> None:
    chain.delay_s, chain.down = 0.0, None


async def a_whole_command(nodes: tuple[WatchedEndpoint, ...]) -> None:
    """Every stage that the commands have: a head, metadata, the head held, storage, maps, a metagraph."""
    view = await open_view(nodes)
    assert await view.storage("SubtensorModule", "Tempo", 450) == 10
    await read_commitments(view, 450)
    assert len((await view.metagraph(450, 0.0)).neurons) == 256


@pytest.mark.parametrize(("count", "hung"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (5, 0), (5, 1)])
async def test_a_hung_endpoint_costs_a_command_its_timeout_at_most_once(
    autojump_clock: Clock, count: int, hung: int
) -> None:
    made = chains(count)
    hang(made[hung])
    nodes = watch(made, TrioClock(), Random(7))
    began_s = trio.current_time()
    await a_whole_command(nodes)
    took_s = trio.current_time() - began_s
    # With a third endpoint two others agree, and the one that hangs is not waited for at all.
    assert took_s < (TIMEOUT_S + 1 if count == 2 else 2.0)
    began_s = trio.current_time()
    await a_whole_command(nodes)
    assert trio.current_time() - began_s < 1.0


async def test_two_that_agree_stand_in_for_a_view_whose_endpoint_hangs(autojump_clock: Clock) -> None:
    made = chains(3)
    nodes = watch(made, TrioClock(), Random(7))
    view = await open_view(nodes)
    hang(made[0])
    began_s = trio.current_time()
    assert await view.storage("SubtensorModule", "Tempo", 450) == 10
    assert trio.current_time() - began_s < 1.0


async def test_of_healthy_endpoints_two_are_asked_and_no_third(autojump_clock: Clock) -> None:
    made = chains(3)
    await a_whole_command(watch(made, TrioClock(), Random(7)))
    assert [chain.asked == [] for chain in made] == [False, False, True]


async def test_one_that_hung_is_not_asked_while_another_can_be_and_is_asked_again_later(autojump_clock: Clock) -> None:
    made = chains(2)
    one, _ = watch(made, TrioClock(), Random(7))
    hang(made[0])
    with pytest.raises(EndpointUnreachable, match="endpoint 0: no answer"):
        await one.ask(HEAD)
    answer(made[0])
    with pytest.raises(EndpointUnreachable, match="not asked again for now, after: endpoint 0: no answer") as refused:
        await one.ask(HEAD)
    assert (refused.value.may_have_arrived, made[0].asked) == (False, [])
    await trio.sleep(HANG_S)
    assert await one.ask(HEAD) == [made[0].hash(made[0].head)]
    assert not one.is_late


async def test_the_last_one_is_asked_whatever_it_did(autojump_clock: Clock) -> None:
    made = chains(2)
    nodes = watch(made, TrioClock(), Random(7))
    for chain, node in zip(made, nodes, strict=True):
        hang(chain)
        with pytest.raises(EndpointUnreachable):
            await node.ask(HEAD)
    for chain, node in zip(made, nodes, strict=True):
        answer(chain)
        assert await node.ask(HEAD) == [chain.hash(chain.head)]


async def test_one_that_refuses_at_once_is_asked_again(autojump_clock: Clock) -> None:
    made = chains(2)
    one, _ = watch(made, TrioClock(), Random(7))
    made[0].down = unreachable()
    with pytest.raises(EndpointUnreachable):
        await one.ask(HEAD)
    answer(made[0])
    assert len(await one.ask(HEAD)) == 1


async def test_one_that_is_busy_is_left_alone_for_as_long_as_it_asked(autojump_clock: Clock) -> None:
    made = chains(2)
    one, _ = watch(made, TrioClock(), Random(7))
    made[0].down = EndpointBusy("endpoint 0: HTTP 429", 30.0)
    with pytest.raises(EndpointBusy):
        await one.ask(HEAD)
    answer(made[0])
    with pytest.raises(EndpointUnreachable, match="HTTP 429"):
        await one.ask(HEAD)
    await trio.sleep(40)
    assert len(await one.ask(HEAD)) == 1


async def test_one_that_was_given_up_for_others_is_asked_last_for_a_while(autojump_clock: Clock) -> None:
    made = chains(2)
    one, other = watch(made, TrioClock(), Random(7))
    made[0].delay_s = 10.0
    with trio.move_on_after(1.0):
        await one.ask(HEAD)
    assert preferred([one, other]) == [other, one]
    await trio.sleep(LATE_S)
    assert preferred([one, other]) == [one, other]


async def test_what_one_asker_learns_holds_for_another_of_the_process(autojump_clock: Clock) -> None:
    made = chains(2)
    healths = [EndpointHealth() for _ in made]
    rng = Random(7)
    watching = partial(watch, made, TrioClock(), rng, healths=healths, set_aside=partial(after_failure, rng=rng))
    hang(made[0])
    first, again = watching()[0], watching()[0]
    with pytest.raises(EndpointUnreachable):
        await first.ask(HEAD)
    assert healths[0].failures == 1
    began_s = trio.current_time()
    with pytest.raises(EndpointUnreachable, match="not asked again"):
        await again.ask(HEAD)
    assert trio.current_time() == began_s
