"""The edges of the shell: former lives, timers in numbers, names of supervisors, the end of a boot."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import trio
from trio.testing import MockClock

from actors import (
    LATER,
    Actor,
    ActorDown,
    ActorRef,
    CallTimeout,
    ChildSpec,
    Context,
    EventStream,
    ExitReason,
    Ignore,
    Intensity,
    Job,
    Message,
    NameTaken,
    Registry,
    StartFailed,
    Stopped,
    SupervisorSpec,
    SystemFailed,
    open_system,
)
from actors._messages import classes_of
from actors._timers import Timers
from actors.testing import Journal, Probe, Recorder, recording, settle
from tests.actors.messages import Add, Boom, Counter, Crash, Leave, Ping, Sleep
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

MANY = Intensity(1000, 1)


class Keeper(Counter):
    """Leaves its contexts where the test can use them after their life."""

    contexts: ClassVar[list[Context]]

    async def on_start(self, context: Context) -> None:
        self.contexts.append(context)


async def test_the_context_of_a_former_life_does_nothing(autojump_clock: MockClock) -> None:
    class Kept(Keeper):
        contexts: ClassVar[list[Context]] = []

    registry = Registry()
    spec = SupervisorSpec("root", [ChildSpec("a", Kept, name="a")], intensity=MANY)
    async with open_system(spec, registry=registry) as system:
        registry.ref(Kept, "a").tell(Crash())
        assert await registry.ref(Kept, "a").call(Ping()) == "pong"
        former, present = Kept.contexts
        former.ready("late")
        former.stop()
        with pytest.raises(ActorDown):
            former.start_soon(trio.sleep_forever)
        assert await registry.ref(Kept, "a").call(Ping()) == "pong"
        node = system.tree()[1]
        assert (node.restarts, node.info) == (1, None)
        assert (present.name, present.path, present.ref) == ("a", "root/a", registry.ref(Kept, "a"))
        assert registry.ref(Kept, "a").name == "a"


async def test_an_idle_actor_can_be_stopped_and_crashed_from_outside_its_handler(autojump_clock: MockClock) -> None:
    """Nothing has happened to it yet: it has no cancel scope."""
    made: list[Counter] = []

    class Plain(Counter):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    async def bad() -> None:
        raise Boom("aside")

    registry = Registry()
    spec = SupervisorSpec("root", [ChildSpec("a", Plain, name="a", restart="transient")], intensity=MANY)
    async with open_system(spec, registry=registry) as system:
        await settle()
        made[0].context.start_soon(bad)
        await settle()
        assert await registry.ref(Plain, "a").call(Ping()) == "pong"
        assert isinstance(system.tree()[1].last_error, Boom)
        await settle()
        made[1].context.stop(ExitReason("shutdown", "from outside"))
        made[1].context.stop()
        await settle()
        assert system.tree()[1].state == "stopped"


@pytest.mark.parametrize("shutdown", ["brutal_kill", 1.0])
async def test_idle_actors_are_stopped_and_killed(autojump_clock: MockClock, shutdown: Any) -> None:
    children = [ChildSpec(f"c{n}", Counter, shutdown=shutdown) for n in range(3)]
    async with open_system(SupervisorSpec("root", children)) as system:
        with recording(system.events) as recorder:
            await system.stop()
            kinds = {event.reason.kind for event in recorder.of(Stopped) if event.path != "root"}
            assert kinds == {"killed" if shutdown == "brutal_kill" else "shutdown"}


async def test_a_system_can_be_killed(autojump_clock: MockClock) -> None:
    journal: Journal[Any] = Journal()
    children: list[ChildSpec | SupervisorSpec] = [
        ChildSpec("a", lambda: Probe(journal)),
        SupervisorSpec("s", [ChildSpec("b", lambda: Probe(journal))]),
    ]
    async with open_system(SupervisorSpec("root", children)) as system:
        await settle()
        system.kill()
        await system.wait()
    assert journal.stops == []


async def test_a_job_that_asked_for_its_own_end(autojump_clock: MockClock) -> None:
    async def run(context: Context) -> None:
        context.ready()
        context.stop(ExitReason("shutdown", "done"))
        await trio.sleep_forever()

    events = EventStream()
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: Job(run), restart="transient")])
    with recording(events) as recorder:
        async with open_system(spec, events=events) as system:
            await settle()
            assert recorder.of(Stopped)[0].reason.detail == "done"
            assert system.tree()[1].state == "stopped"


async def test_the_wish_to_stop_is_seen_also_when_it_is_asked_for_late(autojump_clock: MockClock) -> None:
    seen: list[bool] = []

    class Asking(Actor[Ping]):
        async def handle(self, message: Ping) -> str:
            await trio.sleep(1)
            seen.append(self.context.stop_requested.is_set())
            with self.context.cleanup(), self.context.cleanup():
                await trio.sleep(0.1)
            return "pong"

    registry = Registry()
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Asking, name="a")]), registry=registry) as system:
        registry.ref(Asking, "a").tell(Ping())
        await settle()
        await system.stop()
    assert seen == [True]


@may_crash(Ignore)
async def test_ignore_outside_a_start_is_a_crash(autojump_clock: MockClock) -> None:
    registry = Registry()
    spec = ChildSpec("a", lambda: Probe(Journal(), {Ping: Ignore(), Add: 1}), name="a")
    async with open_system(SupervisorSpec("root", [spec]), registry=registry) as system:
        ref: ActorRef[Any] = registry.ref(Probe, "a")
        ref.tell(Ping())
        assert await ref.call(Add(1)) == 1
        assert system.tree()[1].restarts == 1


@may_crash(NameTaken)
async def test_a_supervisors_name_is_held_once(autojump_clock: MockClock) -> None:
    registry = Registry()
    spec = SupervisorSpec("root", [SupervisorSpec("one", name="shared")], name="root")
    async with open_system(spec, registry=registry):
        root = registry.supervisor("root")
        with pytest.raises(StartFailed) as caught:
            await root.start_child(SupervisorSpec("two", name="shared"))
        assert isinstance(caught.value.__cause__, NameTaken)
        assert caught.value.__cause__.owner.path == "root/one"
        assert [info.id for info in await root.children()] == ["one"]
        await root.stop_child("one")
        await root.start_child(SupervisorSpec("two", name="shared"))


async def test_a_tree_that_ends_while_it_is_entered_cannot_be_entered(autojump_clock: MockClock) -> None:
    async def nothing(context: Context) -> None:
        """Ends at once."""

    child = ChildSpec("a", lambda: Job(nothing), restart="transient", significant=True)
    with pytest.raises(StartFailed):
        async with open_system(SupervisorSpec("root", [child], auto_shutdown="any_significant")):
            raise AssertionError("the block must not run")  # pragma: no cover


async def test_a_root_that_shuts_down_by_itself_is_no_failure(autojump_clock: MockClock) -> None:
    async def soon(context: Context) -> None:
        context.ready()
        await trio.sleep(5)

    child = ChildSpec("a", lambda: Job(soon), restart="transient", significant=True)
    async with open_system(SupervisorSpec("root", [child], auto_shutdown="any_significant")) as system:
        await trio.sleep(3600)
    assert system.outcome is not None
    assert system.tree()[0].state == "stopped"


async def test_the_failure_of_a_deep_child_is_the_cause_of_the_end(autojump_clock: MockClock) -> None:
    registry = Registry()
    none = Intensity(0, 1)
    inner = SupervisorSpec("inner", [ChildSpec("a", Counter, name="a")], intensity=none)
    with pytest.raises(SystemFailed) as caught:
        async with open_system(SupervisorSpec("root", [inner], intensity=none), registry=registry):
            registry.ref(Counter, "a").tell(Crash("deep"))
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, Boom)


async def test_a_subscription_is_an_iterator(autojump_clock: MockClock) -> None:
    registry = Registry()
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Counter, name="a")]), registry=registry) as system:
        with system.events.subscribe() as subscription:
            registry.ref(Counter, "a").tell(Crash())
            async for event in subscription:
                if type(event).__name__ == "Restarted":
                    break


async def test_thousands_of_deadlines_cost_a_bounded_heap(autojump_clock: MockClock) -> None:
    timers = Timers()
    fired: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await settle()
        for n in range(10_000):
            timers.at(trio.current_time() + 10 + n % 7, lambda: fired.append(0)).cancel()
        assert len(timers) < 600
        for n in range(1000):
            timers.at(trio.current_time() + 5, lambda n=n: fired.append(n))  # type: ignore[misc]
        entry = timers.at(trio.current_time() + 1, lambda: fired.append(-1))
        await trio.sleep(20)
        entry.cancel()
        assert fired == [-1, *range(1000)]
        assert len(timers) == 0
        nursery.cancel_scope.cancel()


async def test_a_call_during_the_boot_expires_in_real_time_too() -> None:
    """The quick clock is the system's from its first moment on."""
    registry = Registry()

    class Impatient(Actor[Ping]):
        async def on_start(self, context: Context) -> None:
            with pytest.raises(CallTimeout):
                await registry.ref(Counter, "a").call(Sleep(1000), timeout=0.01)

    children = [ChildSpec("a", Counter, name="a", shutdown="brutal_kill"), ChildSpec("b", Impatient)]
    with trio.fail_after(5):
        async with open_system(SupervisorSpec("root", children), registry=registry):
            pass


class Waiting:
    """Something with a deadline."""

    def __init__(self) -> None:
        self.done = False
        self.deadline = 0.0
        self.expired = False

    def expire(self) -> None:
        self.expired = True


async def test_lanes_forget_what_is_done(autojump_clock: MockClock) -> None:
    timers = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await settle()
        first, last = Waiting(), Waiting()
        timers.expire(first, 5.0)
        for _ in range(5000):
            entry = Waiting()
            timers.expire(entry, 5.0)
            entry.done = True
        (lane,) = timers._lanes.values()
        assert len(lane.entries) < 600
        await trio.sleep(1)
        timers.expire(last, 5.0)
        await trio.sleep(4.5)
        assert (first.expired, last.expired) == (True, False)
        await trio.sleep(1)
        assert last.expired
        assert not timers._lanes
        nursery.cancel_scope.cancel()


class Anything(Message["Unknown"], frozen=True):  # type: ignore[name-defined]
    """A reply class that cannot be told at run time."""


async def test_a_reply_class_that_cannot_be_told_is_not_checked(autojump_clock: MockClock) -> None:
    registry = Registry()
    reply = object()
    spec = ChildSpec("a", lambda: Probe(Journal(), {Anything: lambda _: reply}), name="a")
    async with open_system(SupervisorSpec("root", [spec]), registry=registry):
        ref: ActorRef[Any] = registry.ref(Probe, "a")
        assert await ref.call(Anything()) is reply


def test_classes_are_told_from_annotations() -> None:
    assert classes_of(None) == (type(None),)
    assert classes_of(int | list[str] | None) == (int, list, type(None))
    assert classes_of(Any) is None
    assert classes_of(int | Any) is None
    assert classes_of("later") is None
    assert repr(LATER) == "LATER"


async def test_dead_letters_of_timers_and_policies(autojump_clock: MockClock) -> None:
    class Dropping(Actor[Ping | Leave]):
        async def on_start(self, context: Context) -> None:
            context.after(1.0, Ping())
            context.after(2.0, Add(1))

        async def handle(self, message: Ping | Leave) -> object:
            await trio.lowlevel.checkpoint()
            return "pong"

    recorder = Recorder()
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Dropping)])) as system:
        system.events.add_listener(recorder.put)
        await trio.sleep(5)
    assert [(letter.message, letter.cause) for letter in recorder.dead_letters] == [(Add(1), "timer")]
