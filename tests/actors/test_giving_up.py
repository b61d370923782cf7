"""A root that gives up is never lost, whatever the block of `open_system` does meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from actors import (
    Actor,
    ActorDown,
    ChildSpec,
    ExitReason,
    Intensity,
    Job,
    Registry,
    StartFailed,
    SupervisorSpec,
    System,
    SystemFailed,
    open_system,
)
from tests.actors.messages import Boom, Counter, Crash, Ping
from tests.crashes import may_crash

pytestmark = may_crash(Boom)


class SlowToStop(Counter):
    """Takes 3 s to stop."""

    async def on_stop(self, reason: ExitReason) -> None:
        await trio.sleep(3)


SPEC = SupervisorSpec(
    "root", [ChildSpec("slow", SlowToStop, name="slow"), ChildSpec("a", Counter, name="a")], intensity=Intensity(0, 1)
)


async def returns(_: System) -> None:
    await trio.sleep(1)


async def raises(_: System) -> None:
    await trio.sleep(1)
    raise ValueError("of the block")


async def raises_in_its_cleanup(_: System) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("of the block")


async def fails_by_it(system: System) -> None:
    await trio.sleep(1)
    await system.registry.ref(Counter, "a").call(Ping())


async def is_cancelled(_: System) -> None:
    await trio.sleep(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.sleep_forever()


async def kills(system: System) -> None:
    await trio.sleep(1)
    system.kill()
    await trio.sleep_forever()


async def stops(system: System) -> None:
    await trio.sleep(1)
    await system.stop()


BLOCKS: dict[Callable[[System], Awaitable[None]], type[Exception] | None] = {
    returns: None,
    raises: ValueError,
    raises_in_its_cleanup: ValueError,
    fails_by_it: ActorDown,
    is_cancelled: None,
    kills: None,
    stops: None,
}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
async def test_a_root_that_gives_up_is_told_whatever_the_block_does(
    autojump_clock: MockClock, block: Callable[[System], Awaitable[None]]
) -> None:
    with pytest.raises(SystemFailed) as caught:
        async with open_system(SPEC) as system:
            system.registry.ref(Counter, "a").tell(Crash("why"))
            await block(system)
    assert isinstance(caught.value.__cause__, Boom)
    notes = getattr(caught.value, "__notes__", [])
    wanted = BLOCKS[block]
    assert [wanted.__name__ in note for note in notes if wanted is not None] == ([] if wanted is None else [True])


async def test_a_root_that_gives_up_while_the_block_is_cancelled_from_outside(autojump_clock: MockClock) -> None:
    with pytest.raises(SystemFailed):
        with trio.move_on_after(1):
            async with open_system(SPEC) as system:
                system.registry.ref(Counter, "a").tell(Crash())
                await trio.sleep_forever()


async def test_an_error_of_the_block_is_no_failure_of_the_tree(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match="of the block"):
        async with open_system(SPEC) as system:
            await raises(system)


async def test_a_child_that_fails_while_the_tree_stops_is_no_failure_of_the_tree(autojump_clock: MockClock) -> None:
    class Bad(Actor[Ping]):
        async def on_stop(self, reason: ExitReason) -> None:
            raise Boom("while stopping")

    stopping: list[str] = []

    class Recorded(Bad):
        async def on_stop(self, reason: ExitReason) -> None:
            stopping.append(str(reason))
            await super().on_stop(reason)

    async with open_system(SupervisorSpec("root", [ChildSpec("a", Recorded)], intensity=Intensity(0, 1))):
        assert stopping == []
    assert len(stopping) == 1


async def test_significant_children_that_end_are_no_failure_of_the_tree(autojump_clock: MockClock) -> None:
    async def short(context: object) -> None:
        await trio.sleep(1)

    child = ChildSpec("a", lambda: Job(short), restart="transient", significant=True)
    later = ChildSpec("b", Counter, name="b")
    registry = Registry()
    async with open_system(
        SupervisorSpec("root", [later], auto_shutdown="any_significant", name="root"), registry=registry
    ):
        began = trio.current_time()
        await registry.supervisor("root").start_child(child)
        await trio.Event().wait()
    assert trio.current_time() - began == pytest.approx(1.0)


async def test_a_failed_boot_is_told_although_the_block_is_cancelled(autojump_clock: MockClock) -> None:
    class Bad(Actor[Ping]):
        async def on_start(self, context: object) -> None:
            await trio.sleep(1)
            raise Boom("start")

    children = [ChildSpec("slow", SlowToStop), ChildSpec("bad", Bad)]
    with pytest.raises(StartFailed, match="bad"):
        with trio.move_on_after(2):
            async with open_system(SupervisorSpec("root", children)):
                raise AssertionError("the block must not run")  # pragma: no cover
