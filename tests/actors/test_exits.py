"""SystemExit and KeyboardInterrupt that code raises: they end the system, and come out of it as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
import trio
from trio.testing import MockClock

from actors import ActorDown, ChildSpec, Context, Job, Registry, SupervisorSpec, open_system
from actors._interrupts import interrupt_in
from actors.testing import Journal, Probe
from tests.actors.interrupted import PLACES, Do, Doer
from tests.actors.messages import Boom
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

Make = Callable[[], BaseException]


def _grouped(kind: type[BaseException]) -> BaseException:
    return BaseExceptionGroup("g", [ValueError("x"), BaseExceptionGroup("inner", [kind(3)])])


WAYS: dict[str, Make] = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": lambda: KeyboardInterrupt(),
    "a SystemExit in a group": lambda: _grouped(SystemExit),
    "a KeyboardInterrupt in a group": lambda: _grouped(KeyboardInterrupt),
}


@may_crash(ValueError)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
async def test_an_exit_ends_the_system_and_comes_out_as_it_is(autojump_clock: MockClock, place: str, way: str) -> None:
    async def act() -> None:
        await trio.sleep(0.01)
        raise WAYS[way]()  # noqa: RSE102  # a factory of errors

    wanted = SystemExit if "SystemExit" in way else KeyboardInterrupt
    with trio.fail_after(60), pytest.raises(wanted):
        await PLACES[place](act)


@pytest.mark.parametrize("way", WAYS)
async def test_an_exit_in_a_nursery_of_a_handler_ends_the_system(autojump_clock: MockClock, way: str) -> None:
    async def act() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(_raises, WAYS[way])

    wanted = SystemExit if "SystemExit" in way else KeyboardInterrupt
    for place in ("handler", "aside", "job", "block"):
        with trio.fail_after(60), pytest.raises(wanted):
            await PLACES[place](act)


async def _raises(make: Make) -> NoReturn:
    await trio.sleep(1)
    raise make()


async def test_an_exit_in_a_listener_ends_the_system_and_cuts_off_no_report(autojump_clock: MockClock) -> None:
    def listen(event: object) -> None:
        if type(event).__name__ == "Stopped":
            raise SystemExit(3)

    async def short(context: Context) -> None:
        context.ready()
        await trio.sleep(1)

    with trio.fail_after(60), pytest.raises(SystemExit):
        async with open_system(SupervisorSpec("root", [ChildSpec("a", lambda: Job(short), restart="transient")])) as s:
            s.events.add_listener(listen)
            await trio.sleep_forever()


async def test_an_exit_comes_out_although_the_block_fails_by_it(autojump_clock: MockClock) -> None:
    async def act() -> None:
        raise SystemExit(3)

    registry = Registry()
    with pytest.raises(SystemExit) as caught:
        async with open_system(SupervisorSpec("root", [ChildSpec("a", Doer, name="a")]), registry=registry):
            try:
                await registry.ref(Doer, "a").call(Do(act))
            except ActorDown:
                raise ValueError("the block's own") from None
    assert caught.value.code == 3


async def test_an_exit_is_seen_at_once_however_long_the_stop_hook_takes(autojump_clock: MockClock) -> None:
    async def exits() -> None:
        raise SystemExit(3)

    registry = Registry()
    journal: Journal[object] = Journal()
    children = [
        ChildSpec("a", lambda: Doer(on_stop=trio.sleep_forever), name="a", shutdown=7.0),
        ChildSpec("b", lambda: Probe(journal)),
    ]
    began = trio.current_time()
    with pytest.raises(SystemExit):
        async with open_system(SupervisorSpec("root", children), registry=registry):
            registry.ref(Doer, "a").tell(Do(exits))
            await trio.sleep(1)
            assert [reason.kind for reason in journal.stops] == ["shutdown"]
            await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(7.0)


async def test_a_second_ctrl_c_kills_what_the_first_one_stops(autojump_clock: MockClock) -> None:
    async def stubborn(context: Context) -> None:
        context.ready()
        try:
            await trio.sleep_forever()
        finally:
            with context.cleanup():
                await trio.sleep_forever()

    began = trio.current_time()
    with pytest.raises(KeyboardInterrupt):
        async with open_system(
            SupervisorSpec("root", [ChildSpec("a", lambda: Job(stubborn), shutdown="infinity")])
        ) as s:
            s.interrupted(KeyboardInterrupt())
            await trio.sleep(5)
            assert s.root.state.phase.value == "stopping"
            s.interrupted(KeyboardInterrupt())
    assert trio.current_time() - began == 5.0


def _chained(error: BaseException, *, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


INTERRUPT = KeyboardInterrupt()
FOUND: list[tuple[BaseException, bool, BaseException | None]] = [
    (INTERRUPT, False, INTERRUPT),
    (ValueError(), True, None),
    (BaseExceptionGroup("g", [ValueError(), INTERRUPT]), False, INTERRUPT),
    (BaseExceptionGroup("g", [SystemExit(), INTERRUPT]), False, INTERRUPT),
    (_chained(ValueError(), cause=INTERRUPT), True, INTERRUPT),
    (_chained(ValueError(), cause=INTERRUPT), False, None),
    (_chained(ValueError(), cause=SystemExit(2)), True, None),
    (BaseExceptionGroup("g", [_chained(ValueError(), cause=INTERRUPT)]), True, INTERRUPT),
]


@pytest.mark.parametrize(("error", "replaced", "found"), FOUND)
def test_interrupts_are_found_in_groups_and_behind_what_replaced_them(
    error: BaseException, replaced: bool, found: BaseException | None
) -> None:
    assert interrupt_in(error, replaced=replaced) is found


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert interrupt_in(one, replaced=True) is None
