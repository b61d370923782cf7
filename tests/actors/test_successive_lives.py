"""A life that follows a crash goes on in the task, the slice and the cancel scope of the former one."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    Actor,
    ChildSpec,
    Context,
    Crashed,
    ExitReason,
    Intensity,
    Registry,
    Stopped,
    SupervisorSpec,
    open_system,
)
from actors.testing import recording, settle
from tests.actors.messages import Boom, Counter, Crash, Ping, Sleep
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

MANY = Intensity(1_000_000, 1)
SPIN_S = 0.0006


def root(*children: ChildSpec) -> SupervisorSpec:
    return SupervisorSpec("root", list(children), intensity=MANY)


async def test_a_row_of_crashing_messages_lets_others_run(autojump_clock: MockClock) -> None:
    handled = 0
    seen: set[int] = set()

    class Slow(Actor[Ping]):
        async def handle(self, message: Ping) -> object:
            nonlocal handled
            handled += 1
            ends = time.perf_counter() + SPIN_S
            while time.perf_counter() < ends:
                pass
            raise Boom("again")

    registry = Registry()
    async with open_system(root(ChildSpec("a", Slow, name="a")), registry=registry):
        for _ in range(20):
            registry.ref(Slow, "a").tell(Ping())
        while handled < 20:
            await trio.lowlevel.checkpoint()
            seen.add(handled)
    assert len(seen) >= 5, "a slice of 1 ms holds two of these lives, and one pass at most two slices"


@pytest.mark.parametrize("shutdown", [1.0, "brutal_kill"])
async def test_a_life_after_a_crash_can_be_killed(autojump_clock: MockClock, shutdown: Any) -> None:
    registry = Registry()
    async with open_system(root(ChildSpec("a", Counter, name="a", shutdown=shutdown)), registry=registry) as system:
        with recording(system.events) as recorder:
            ref = registry.ref(Counter, "a")
            ref.tell(Crash())
            ref.tell(Sleep(1000))
            await settle()
            await system.stop()
            first = recorder.of(Stopped)[0]
            assert (first.path, first.reason.kind) == ("root/a", "killed")
            assert [letter.cause for letter in recorder.dead_letters] == ["crashed", "killed"]


async def test_a_life_after_a_kill_starts_uncancelled(autojump_clock: MockClock) -> None:
    """one_for_all: the crash of `b` kills `a` in a life that inherited its scope; the next one works and waits."""
    registry = Registry()
    spec = SupervisorSpec(
        "root",
        [ChildSpec("a", Counter, name="a", shutdown="brutal_kill"), ChildSpec("b", Counter, name="b")],
        strategy="one_for_all",
        intensity=MANY,
    )
    async with open_system(spec, registry=registry):
        a, b = registry.ref(Counter, "a"), registry.ref(Counter, "b")
        for _ in range(3):
            a.tell(Crash())
            await settle()
            a.tell(Sleep(1000))
            await settle()
            b.tell(Crash())
            await settle()
            assert await a.call(Sleep(2)) == "slept"


async def test_a_kill_during_the_stop_hook_of_a_crash_does_not_reach_the_next_life(autojump_clock: MockClock) -> None:
    class Hooked(Counter):
        async def on_stop(self, reason: ExitReason) -> None:
            await trio.sleep(1000)

    registry = Registry()
    async with open_system(root(ChildSpec("a", Hooked, name="a", shutdown=1)), registry=registry) as system:
        ref = registry.ref(Hooked, "a")
        for _ in range(3):
            ref.tell(Crash())
            assert await ref.call(Ping()) == "pong"
        with recording(system.events) as recorder:
            ref.tell(Crash())
            await settle()
            await system.stop()
            assert len(recorder.of(Crashed)) == 1


async def test_a_deadline_of_one_life_is_not_one_of_the_next(autojump_clock: MockClock) -> None:
    class Impatient(Counter):
        async def on_start(self, context: Context) -> None:
            with trio.move_on_after(0.5):
                await trio.sleep(1)

    registry = Registry()
    async with open_system(root(ChildSpec("a", Impatient, name="a")), registry=registry):
        ref = registry.ref(Impatient, "a")
        ref.tell(Crash())
        assert await ref.call(Sleep(60), timeout=100) == "slept"


async def test_the_error_of_a_crash_is_freed_without_the_garbage_collector(autojump_clock: MockClock) -> None:
    errors: list[weakref.ref[BaseException]] = []

    class Noted(Counter):
        async def handle(self, message: Any) -> object:
            if isinstance(message, Crash):
                error = Boom("noted")
                errors.append(weakref.ref(error))
                try:
                    raise error
                finally:
                    del error
            return "pong"

    registry = Registry()
    async with open_system(root(ChildSpec("a", Noted, name="a")), registry=registry, log_crashes=False):
        ref = registry.ref(Noted, "a")
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                ref.tell(Crash())
                assert await ref.call(Ping()) == "pong"
            alive = [error() is not None for error in errors]
        finally:
            gc.enable()
    assert alive[:-1] == [False, False], "only the last one is kept, for listings"
