"""The main road: start, talk, crash, restart, stop."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors import (
    ActorDown,
    Backoff,
    CallTimeout,
    ChildSpec,
    Context,
    Crashed,
    Intensity,
    Job,
    Registry,
    Restarted,
    Started,
    Stopped,
    SupervisorSpec,
    SystemFailed,
    open_system,
)
from actors.testing import recording, settle
from tests.actors.messages import Add, Boom, Counter, Crash, Leave, Ping, Sleep
from tests.crashes import may_crash

pytestmark = [may_crash(Boom), pytest.mark.filterwarnings("ignore::actors.UnreachableIntensity")]


async def test_a_reference_may_be_taken_before_its_actor_runs() -> None:
    registry = Registry()
    ref = registry.ref(Counter, "counter")
    with pytest.raises(ActorDown):
        ref.tell(Add(1))
    with pytest.raises(ActorDown):
        await ref.call(Ping())
    async with open_system(SupervisorSpec("root", [ChildSpec("c", Counter, name="counter")]), registry=registry):
        assert await ref.call(Ping()) == "pong"
        ref.tell(Add(2))
        await ref.send(Add(3))
        assert await ref.call(Add(4)) == 9
        assert ref.path == "root/c"
    with pytest.raises(ActorDown):
        ref.tell(Add(1))


async def test_a_crash_restarts_the_actor_and_keeps_the_mailbox(autojump_clock: MockClock) -> None:
    registry = Registry()
    ref = registry.ref(Counter, "counter")
    async with open_system(
        SupervisorSpec("root", [ChildSpec("c", Counter, name="counter")]), registry=registry
    ) as system:
        with recording(system.events) as recorder:
            ref.tell(Add(5))
            ref.tell(Crash())
            ref.tell(Add(1))
            assert await ref.call(Add(1)) == 2
            with pytest.raises(ActorDown) as caught:
                await ref.call(Crash("again"))
            assert caught.value.taken
            await recorder.wait_for(Restarted, lambda event: event.restarts == 2)
            assert [letter.message for letter in recorder.dead_letters] == [Crash(), Crash("again")]
            assert [type(event) for event in recorder.events if not hasattr(event, "cause")] == [
                Crashed,
                Restarted,
                Crashed,
                Restarted,
            ]
            node = system.tree()[1]
            assert (node.path, node.state, node.restarts) == ("root/c", "running", 2)
            assert isinstance(node.last_error, Boom)


async def test_too_many_crashes_end_the_system(autojump_clock: MockClock) -> None:
    registry = Registry()
    ref = registry.ref(Counter, "counter")
    spec = SupervisorSpec("root", [ChildSpec("c", Counter, name="counter")], intensity=Intensity(1, 5.0))
    with pytest.raises(SystemFailed) as caught:
        async with open_system(spec, registry=registry):
            ref.tell(Crash())
            ref.tell(Crash())
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, Boom)


async def test_the_stop_is_ordered_and_finishes_the_message_at_hand(autojump_clock: MockClock) -> None:
    registry = Registry()
    first, second = registry.ref(Counter, "first"), registry.ref(Counter, "second")
    children = [ChildSpec("first", Counter, name="first"), ChildSpec("second", Counter, name="second")]
    async with open_system(SupervisorSpec("root", children), registry=registry) as system:
        with recording(system.events) as recorder:
            async with trio.open_nursery() as nursery:
                answers: list[str] = []

                async def ask() -> None:
                    answers.append(await second.call(Sleep(2)))

                nursery.start_soon(ask)
                await settle()
                await system.stop()
            assert answers == ["slept"]
            assert [event.path for event in recorder.of(Stopped)] == ["root/second", "root/first", "root"]
    assert not first.alive


async def test_a_call_times_out_and_its_late_reply_is_counted(autojump_clock: MockClock) -> None:
    registry = Registry()
    ref = registry.ref(Counter, "counter")
    async with open_system(
        SupervisorSpec("root", [ChildSpec("c", Counter, name="counter")]), registry=registry
    ) as system:
        with pytest.raises(CallTimeout) as caught:
            await ref.call(Sleep(10), timeout=1)
        assert caught.value.taken
        with pytest.raises(CallTimeout) as caught:
            await ref.call(Add(1), timeout=1)
        assert not caught.value.taken
        assert await ref.call(Add(1), timeout=20) == 1
        assert system.events.counters.late_replies == 1


async def test_dynamic_children_come_and_go(autojump_clock: MockClock) -> None:
    registry = Registry()
    spec = SupervisorSpec("root", [SupervisorSpec("pool", strategy="dynamic", name="pool")])
    async with open_system(spec, registry=registry) as system:
        pool = registry.supervisor("pool")
        ref = await pool.start_child(ChildSpec("a", Counter, restart="transient"))
        assert ref is not None
        assert await ref.call(Add(1)) == 1
        ref.tell(Leave())
        await settle()
        assert await pool.children() == []
        assert (await pool.count()).specs == 0
        assert system.tree()[1].state == "running"


async def test_a_job_is_waited_for_until_it_is_ready(autojump_clock: MockClock) -> None:
    order: list[str] = []

    async def serve(context: Context) -> None:
        await trio.sleep(3)
        order.append("ready")
        context.ready(("127.0.0.1", 80))
        await trio.sleep_forever()

    async def after(context: Context) -> None:
        order.append("after")
        context.ready()

    children = [
        ChildSpec("http", lambda: Job(serve)),
        ChildSpec("after", lambda: Job(after), restart="transient", backoff=Backoff(1, 2)),
    ]
    async with open_system(SupervisorSpec("root", children, name="root")) as system:
        assert order == ["ready", "after"]
        assert (await system.registry.supervisor("root").child("http")).info == ("127.0.0.1", 80)
        assert system.events.counters.dead_letters == 0
        await settle()
        assert system.tree()[2].state == "stopped"


async def test_backoff_waits_between_restarts(autojump_clock: MockClock) -> None:
    registry = Registry()
    ref = registry.ref(Counter, "counter")
    child = ChildSpec("c", Counter, name="counter", backoff=Backoff(2.0, 60.0, jitter=0.0))
    async with open_system(SupervisorSpec("root", [child]), registry=registry) as system:
        with recording(system.events) as recorder:
            began = trio.current_time()
            ref.tell(Crash())
            ref.tell(Crash())
            assert await ref.call(Add(1), timeout=20) == 1
            assert trio.current_time() - began == pytest.approx(6.0)
            assert recorder.of(Started) == []
