"""What is over is let go of: counted by objects, not by memory."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    LATER,
    Actor,
    Backoff,
    CallTimeout,
    ChildSpec,
    ExitReason,
    Intensity,
    Registry,
    StartFailed,
    SupervisorSpec,
    open_system,
)
from actors._exits import without_frames
from actors._mailbox import PendingCall
from actors.testing import settle
from tests.actors.messages import Add, Boom, Counter, Crash, Ping
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

MANY = Intensity(1_000_000, 1)


def _living(kind: type) -> int:
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


class Forgetful(Actor[Ping]):
    """Takes the right to reply and drops it."""

    async def handle(self, message: Ping) -> object:
        self.context.reply_to()
        return LATER


@pytest.mark.parametrize("gone", ["expired", "cancelled"])
async def test_a_dropped_right_to_reply_goes_with_its_caller(autojump_clock: MockClock, gone: str) -> None:
    registry = Registry()
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Forgetful, name="a")]), registry=registry):
        ref = registry.ref(Forgetful, "a")

        async def caller() -> None:
            if gone == "expired":
                with pytest.raises(CallTimeout):
                    await ref.call(Ping(), timeout=1)
            else:
                with trio.move_on_after(1):
                    await ref.call(Ping())

        before = _living(PendingCall)
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(caller)
            await settle()
            assert _living(PendingCall) >= before + 200
        await trio.sleep(10)
        assert _living(PendingCall) <= before + 1


class Heavy(Counter):
    """Its lives are counted."""


@pytest.mark.parametrize("end", ["restarted", "disabled", "stopped"])
async def test_a_crash_holds_nothing_of_the_life_that_it_ended(autojump_clock: MockClock, end: str) -> None:
    registry = Registry()
    lives: list[weakref.ref[Heavy]] = []

    def start() -> Heavy:
        heavy = Heavy()
        lives.append(weakref.ref(heavy))
        return heavy

    ends: dict[str, dict[str, Any]] = {
        "restarted": {},
        "disabled": {"on_exceed": "disable", "intensity": Intensity(0, 1)},
        "stopped": {"restart": "temporary"},
    }
    options = ends[end]
    children = [ChildSpec("a", start, name="a", **options)]
    spec = SupervisorSpec("root", children, intensity=MANY)
    async with open_system(spec, registry=registry, log_crashes=False) as system:  # pytest keeps what is logged
        registry.ref(Heavy, "a").tell(Crash("why"))
        await settle()
        gc.collect()
        assert lives[0]() is None
        errors = [node.last_error for node in system.tree() if node.last_error is not None]
        assert [(type(error), str(error)) for error in errors] == ([] if end == "stopped" else [(Boom, "why")])


@pytest.mark.parametrize("way", ["stopped", "the supervisor stopped", "restarted with the group"])
async def test_a_restart_that_will_not_be_leaves_no_timer(autojump_clock: MockClock, way: str) -> None:
    registry = Registry()
    child = ChildSpec("a", Counter, name="a", backoff=Backoff(3600, 3600))
    sub = SupervisorSpec("sub", [ChildSpec("b", Counter, name="b"), child], strategy="rest_for_one", name="sub")
    async with open_system(SupervisorSpec("root", [sub], name="root", intensity=MANY), registry=registry) as system:
        registry.ref(Counter, "a").tell(Crash())
        await settle()
        assert len(system.timers) == 1
        match way:
            case "stopped":
                await registry.supervisor("sub").stop_child("a")
            case "the supervisor stopped":
                await registry.supervisor("root").stop_child("sub")
            case _:
                registry.ref(Counter, "b").tell(Crash())
                await settle()
                assert await registry.ref(Counter, "a").call(Add(1), timeout=math.inf) == 1
        armed = [entry for _, _, entry in system.timers._heap if entry.callback is not None]
        assert armed == []


class Picky(Exception):
    """Made from two arguments, kept as one."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.one = one


@pytest.mark.parametrize(
    "error",
    [
        Boom("x"),
        Picky(1, 2),
        OSError(2, "no such file", "here"),
        KeyError("k"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ExceptionGroup("g", [Boom("x"), ValueError("y")]),
        BaseExceptionGroup("g", [GeneratorExit()]),
        StartFailed("a", ExitReason("crashed", error=Boom("x"))),
    ],
)
def test_an_error_without_frames_says_what_the_error_says(error: BaseException) -> None:
    reason = ExitReason("crashed", error=error)
    try:
        raise error
    except BaseException:  # noqa: BLE001  # it has a traceback now
        twin = without_frames(reason).error
    assert error.__traceback__ is not None
    assert twin is not None
    assert (type(twin), str(twin), twin.args[:1]) == (type(error), str(error), error.args[:1])
    assert twin.__traceback__ is None
    assert getattr(twin, "one", None) == getattr(error, "one", None)
