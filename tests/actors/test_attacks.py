"""Unusual orders of events that once hung, leaked, hurt a bystander or were refused without need."""

from __future__ import annotations

import math
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    Actor,
    ActorDown,
    ActorEvent,
    CallTimeout,
    ChildSpec,
    Context,
    Crashed,
    DrainingJob,
    Intensity,
    Job,
    MailboxFull,
    MailboxPolicy,
    Message,
    Registry,
    StartFailed,
    SupervisorDown,
    SupervisorSpec,
    System,
    open_system,
)
from actors import _supervisor as shell
from actors._refs import mailbox_of
from actors._supervision import Boot
from actors.testing import settle
from tests.actors.messages import Add, Boom, Counter, Crash, Ping, Sleep
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

MANY = Intensity(1_000_000, 1)


def root(*children: ChildSpec | SupervisorSpec, **options: Any) -> SupervisorSpec:
    return SupervisorSpec("root", list(children), **{"intensity": MANY, "name": "root", **options})


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    with trio.fail_after(seconds):
        yield


class Small(Counter):
    """Two messages wait at most."""

    mailbox = MailboxPolicy(bound=2)


class Wide(Counter):
    """Many slices of the consumer wait at most."""

    mailbox = MailboxPolicy(bound=1024)


async def test_a_stop_request_that_was_cancelled_wakes_nobody_when_the_child_has_stopped(
    autojump_clock: MockClock,
) -> None:
    async def slow(context: Context) -> None:
        context.ready()
        await context.stop_requested.wait()
        await trio.sleep(3)

    registry = Registry()
    async with open_system(root(ChildSpec("slow", lambda: DrainingJob(slow))), registry=registry) as system:
        with trio.move_on_after(1):
            await registry.supervisor("root").stop_child("slow")
        began = trio.current_time()
        await trio.sleep(10)
        assert trio.current_time() - began == 10
        assert system.tree()[1].state == "stopped"


async def test_a_sender_that_waits_for_room_gets_it_when_the_last_queued_message_crashes(
    autojump_clock: MockClock,
) -> None:
    registry = Registry()
    ref = registry.ref(Small, "small")
    async with within(60), open_system(root(ChildSpec("small", Small, name="small")), registry=registry):
        async with trio.open_nursery() as nursery:
            ref.tell(Sleep(1))
            await settle()
            ref.tell(Ping())
            ref.tell(Crash())
            nursery.start_soon(ref.send, Add(5))
        assert await ref.call(Add(1)) == 6


async def test_senders_that_wait_get_room_though_others_tell_without_end(autojump_clock: MockClock) -> None:
    registry = Registry()
    ref = registry.ref(Wide, "wide")
    async with open_system(root(ChildSpec("wide", Wide, name="wide")), registry=registry):
        sent = trio.Event()

        async def send() -> None:
            await ref.send(Add())
            sent.set()

        def fill() -> None:
            with suppress(MailboxFull):
                while True:
                    ref.tell(Ping())

        fill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for _ in range(200):
                await trio.lowlevel.checkpoint()
                fill()
            told_all_along = sent.is_set()
        assert told_all_along


async def test_callers_who_gave_up_waiting_for_room_are_forgotten(autojump_clock: MockClock) -> None:
    registry = Registry()
    ref = registry.ref(Small, "small")
    async with open_system(root(ChildSpec("small", Small, name="small")), registry=registry):
        ref.tell(Sleep(3600))
        await settle()
        ref.tell(Ping())
        ref.tell(Ping())
        for _ in range(1000):
            with pytest.raises(CallTimeout):
                await ref.call(Ping(), timeout=0.1)
        assert len(mailbox_of(ref).senders or ()) < 300


async def test_calls_with_deadlines_of_their_own_are_forgotten_once_answered(autojump_clock: MockClock) -> None:
    registry = Registry()
    ref = registry.ref(Counter, "counter")
    async with open_system(root(ChildSpec("counter", Counter, name="counter")), registry=registry) as system:
        for n in range(3000):
            await ref.call(Ping(), timeout=3600 + n / 1000)
        assert len(system.timers) < 1000
        with pytest.raises(CallTimeout):
            await ref.call(Sleep(1e6), timeout=3600.5)


@pytest.mark.parametrize("timeout", [None, "5", math.nan])
async def test_a_timeout_that_is_none_is_refused_before_the_message_is_put(
    autojump_clock: MockClock, timeout: Any
) -> None:
    registry = Registry()
    ref = registry.ref(Counter, "counter")
    async with open_system(root(ChildSpec("counter", Counter, name="counter")), registry=registry):
        with pytest.raises((TypeError, ValueError)):
            await ref.call(Add(1), timeout=timeout)
        await trio.sleep(1)
        assert await ref.call(Add(1)) == 1


async def test_a_task_of_a_life_that_starts_another_while_it_is_cancelled_does_not_hang_the_stop(
    autojump_clock: MockClock,
) -> None:
    ended: list[str] = []

    async def second() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("second")

    async def first(context: Context) -> None:
        try:
            await trio.sleep_forever()
        finally:
            context.start_soon(second)

    class Parent(Actor[Ping]):
        async def on_start(self, context: Context) -> None:
            context.start_soon(first, context)

    async with within(60), open_system(root(ChildSpec("parent", Parent))):
        await settle()
    assert ended in ([], ["second"])


@may_crash(ValueError)
async def test_a_listener_may_stop_the_system_at_a_failed_start(autojump_clock: MockClock) -> None:
    def fail() -> Actor[Ping]:
        raise ValueError("no start")

    registry = Registry()
    held: list[System] = []

    def stop(event: ActorEvent) -> None:
        if isinstance(event, Crashed):
            held[0].request_stop()

    async with within(60), open_system(root(), registry=registry) as system:
        held.append(system)
        with system.events.listen(stop), pytest.raises(StartFailed):
            await registry.supervisor("root").start_child(ChildSpec("bad", fail))
        await system.wait()
    assert system.interrupt is None


class Ask(Message[str], frozen=True):
    """Asks the manager for something."""


class StopJob(Message[None], frozen=True):
    """Has the manager stop the job."""


async def test_an_actor_may_stop_a_job_that_waits_for_it(autojump_clock: MockClock) -> None:
    registry = Registry()

    class Hub(Actor[Ask | StopJob]):
        async def handle(self, message: Ask | StopJob) -> object:
            if isinstance(message, StopJob):
                await trio.sleep(1)
                await self.context.supervisor.stop_child("job")
                return None
            return "fine"

    hub = registry.ref(Hub, "hub")

    async def work(context: Context) -> None:
        context.ready()
        await trio.sleep(0.5)
        await hub.call(Ask())

    spec = root(ChildSpec("hub", Hub, name="hub"), ChildSpec("job", lambda: Job(work)))
    async with open_system(spec, registry=registry) as system:
        await hub.call(StopJob())
        assert system.tree()[2].state == "stopped"


async def test_a_task_started_by_a_handler_outside_its_life_may_call_its_actor(autojump_clock: MockClock) -> None:
    registry = Registry()
    answers: list[str] = []
    async with trio.open_nursery() as nursery:

        class Starter(Actor[Ask | Ping]):
            async def handle(self, message: Ask | Ping) -> object:
                if isinstance(message, Ping):
                    return "pong"
                nursery.start_soon(later)
                await trio.sleep(1)
                return "started"

        starter = registry.ref(Starter, "starter")

        async def later() -> None:
            answers.append(await starter.call(Ping()))

        async with open_system(root(ChildSpec("starter", Starter, name="starter")), registry=registry):
            assert await starter.call(Ask()) == "started"
            await settle()
            await trio.sleep(1)
    assert answers == ["pong"]


async def test_a_fault_of_supervision_itself_leaves_nobody_waiting(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    ref = registry.ref(Small, "small")
    told: list[type[BaseException]] = []

    async def waits(kind: str) -> None:
        try:
            if kind == "call":
                await ref.call(Sleep(1e9), timeout=math.inf)
            elif kind == "send":
                await ref.send(Ping())
            else:
                await registry.supervisor("root").stop_child("slow")
        except (ActorDown, SupervisorDown) as error:
            told.append(type(error))

    async def slow(context: Context) -> None:
        context.ready()
        await context.stop_requested.wait()
        await trio.sleep_forever()

    async with within(1000), trio.open_nursery() as outside:
        with pytest.raises(RuntimeError, match="fault"):
            async with open_system(
                root(
                    ChildSpec("slow", lambda: DrainingJob(slow), shutdown="infinity"),
                    ChildSpec("small", Small, name="small"),
                ),
                registry=registry,
            ) as system:
                outside.start_soon(waits, "call")
                await settle()
                ref.tell(Ping())
                ref.tell(Ping())
                outside.start_soon(waits, "send")
                outside.start_soon(waits, "stop")
                await settle()

                def fault(*_: object) -> object:
                    raise RuntimeError("fault")

                monkeypatch.setattr(shell, "decide", fault)
                system.root.feed(Boot())
                await trio.sleep_forever()
        with pytest.raises(SupervisorDown):
            await registry.supervisor("root").stop_child("slow")
    assert sorted(kind.__name__ for kind in told) == ["ActorDown", "ActorDown", "SupervisorDown"]


async def test_children_that_have_stopped_leave_no_timer_behind(autojump_clock: MockClock) -> None:
    registry = Registry()
    dynamic = SupervisorSpec("d", strategy="dynamic", name="d", intensity=MANY)
    async with open_system(root(dynamic), registry=registry) as system:
        sagas = registry.supervisor("d")
        for n in range(2000):
            await sagas.start_child(ChildSpec(f"c{n}", Counter, restart="temporary", shutdown=3600))
            await sagas.stop_child(f"c{n}")
        assert len(system.timers) < 600
        await system.stop()


async def test_cleanup_scopes_that_were_left_are_forgotten(autojump_clock: MockClock) -> None:
    cleaned: list[float] = []

    async def work(context: Context) -> None:
        context.ready()
        first = context.cleanup()
        with first:
            pass
        gone = weakref.ref(first)
        del first
        assert gone() is None
        try:
            await trio.sleep_forever()
        finally:
            with context.cleanup():
                try:
                    await trio.sleep(100)
                finally:
                    cleaned.append(trio.current_time())

    began = trio.current_time()
    async with open_system(root(ChildSpec("job", lambda: Job(work), shutdown=2))):
        await settle()
    assert cleaned == [began + 2]
