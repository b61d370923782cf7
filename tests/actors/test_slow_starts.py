"""A boot that waits says for whom, and a start can have a deadline."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    Actor,
    ChildSpec,
    Context,
    EventStream,
    Ignore,
    InvalidSpec,
    Job,
    Registry,
    StartFailed,
    StartSlow,
    StartTimeout,
    SupervisorSpec,
    open_system,
)
from actors.testing import Recorder
from tests.actors.messages import Counter, Ping
from tests.crashes import may_crash

pytestmark = may_crash(StartTimeout)


class Hanging(Actor[Ping]):
    """Never starts."""

    async def on_start(self, context: Context) -> None:
        await trio.sleep_forever()


async def silent(context: Context) -> None:
    """A job that forgets to say that it is ready."""
    await trio.sleep_forever()


CHILDREN = [ChildSpec("job", lambda: Job(silent)), ChildSpec("actor", Hanging)]


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: child.id)
async def test_a_boot_that_waits_says_for_whom_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, child: ChildSpec
) -> None:
    events, recorder = EventStream(), Recorder()
    events.add_listener(recorder.put)
    sub = SupervisorSpec("sub", [ChildSpec("fine", Counter), child])
    with trio.move_on_after(100):
        async with open_system(SupervisorSpec("root", [sub]), events=events):
            raise AssertionError("the block must not run")  # pragma: no cover
    assert [(event.path, event.seconds) for event in recorder.of(StartSlow)] == [(f"root/sub/{child.id}", 10.0)]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"worker root/sub/{child.id} is not ready after 10 s: ")


@pytest.mark.parametrize(("after_s", "told"), [(3.0, 1), (7.0, 0), (math.inf, 0)])
async def test_when_it_is_said_can_be_set(autojump_clock: MockClock, after_s: float, told: int) -> None:
    class Slow(Counter):
        async def on_start(self, context: Context) -> None:
            await trio.sleep(5)

    events, recorder = EventStream(), Recorder()
    events.add_listener(recorder.put)
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Slow)]), events=events, slow_start_s=after_s) as s:
        await trio.sleep(100)
        assert len(s.timers) == 0
    assert len(recorder.of(StartSlow)) == told


@pytest.mark.parametrize("seconds", [0, -1, math.nan, True, "10"])
def test_a_time_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="slow_start_s"):
        open_system(SupervisorSpec("root"), slow_start_s=seconds)
    with pytest.raises(InvalidSpec, match="start_within_s"):
        ChildSpec("a", Counter, start_within_s=seconds)
    with pytest.raises(InvalidSpec, match="start_within_s"):
        ChildSpec("a", Counter, start_within_s=5.0, kind="supervisor")


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: child.id)
async def test_a_start_with_a_deadline_fails_the_boot(autojump_clock: MockClock, child: ChildSpec) -> None:
    began = trio.current_time()
    spec = ChildSpec(child.id, child.start, start_within_s=3)
    with pytest.raises(StartFailed, match="was not ready within 3 s") as caught:
        async with open_system(SupervisorSpec("root", [spec])):
            raise AssertionError("the block must not run")  # pragma: no cover
    assert isinstance(caught.value.__cause__, StartTimeout)
    assert trio.current_time() - began == 3


async def test_a_start_that_takes_too_long_can_be_tried_again(autojump_clock: MockClock) -> None:
    lives = 0

    class Third(Counter):
        async def on_start(self, context: Context) -> None:
            nonlocal lives
            lives += 1
            if lives == 2:
                await trio.sleep_forever()

    registry = Registry()
    child = ChildSpec("a", Third, name="a", start_within_s=3)
    async with open_system(SupervisorSpec("root", [child], name="root"), registry=registry):
        await registry.supervisor("root").stop_child("a")
        with pytest.raises(StartFailed):
            await registry.supervisor("root").restart_child("a")
        await registry.supervisor("root").restart_child("a")
        assert await registry.ref(Third, "a").call(Ping()) == "pong"
    assert lives == 3


async def test_a_start_that_is_done_or_declines_has_no_deadline_left(autojump_clock: MockClock) -> None:
    class Declines(Counter):
        async def on_start(self, context: Context) -> None:
            raise Ignore

    async def ready(context: Context) -> None:
        context.ready()
        await trio.sleep_forever()

    children = [
        ChildSpec("a", Declines, start_within_s=3),
        ChildSpec("b", lambda: Job(ready), start_within_s=3),
        ChildSpec("c", Counter, start_within_s=3),
    ]
    async with open_system(SupervisorSpec("root", children)) as system:
        await trio.sleep(10)
        assert [node.state for node in system.tree()] == ["running", "stopped", "running", "running"]
