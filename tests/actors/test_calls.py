"""Calls: every way in which a reply can come, come late, or never."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    LATER,
    Actor,
    ActorDown,
    ActorRef,
    CallCycle,
    CallTimeout,
    ChildSpec,
    Context,
    Intensity,
    Job,
    MailboxPolicy,
    Message,
    Refuse,
    Registry,
    ReplyTo,
    ReplyTypeError,
    StartFailed,
    SupervisorSpec,
    System,
    open_system,
)
from actors.testing import Journal, Probe, settle
from tests.actors.messages import Add, Boom, Counter, Crash, Ping, Sleep
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

MANY = Intensity(1000, 1)


@asynccontextmanager
async def system_of(*children: ChildSpec | SupervisorSpec, **options: Any) -> AsyncIterator[System]:
    async with open_system(SupervisorSpec("root", list(children), name="root", intensity=MANY), **options) as system:
        yield system


def actor(name: str, start: Callable[[], Actor[Any]], **options: Any) -> ChildSpec:
    return ChildSpec(name, start, name=name, **options)


async def test_a_call_cancelled_while_queued_is_never_handled(autojump_clock: MockClock) -> None:
    async with system_of(actor("c", Counter)) as system:
        ref = system.registry.ref(Counter, "c")
        ref.tell(Sleep(5))
        with trio.move_on_after(1) as scope:
            await ref.call(Add(1))
        assert scope.cancelled_caught
        assert await ref.call(Add(10), timeout=10) == 10
        assert system.events.counters.late_replies == 0


async def test_a_call_cancelled_after_it_was_taken_is_handled_to_its_end(autojump_clock: MockClock) -> None:
    done: list[str] = []

    class Slow(Actor[Ping]):
        async def handle(self, message: Ping) -> str:
            await trio.sleep(3)
            done.append("handled")
            return "pong"

    async with system_of(actor("c", Slow)) as system:
        with trio.move_on_after(1):
            await system.registry.ref(Slow, "c").call(Ping())
        await trio.sleep(5)
        assert done == ["handled"]
        assert system.events.counters.late_replies == 1


async def test_an_actor_that_dies_between_take_and_reply_fails_its_caller(autojump_clock: MockClock) -> None:
    async with system_of(actor("c", Counter)) as system:
        with pytest.raises(ActorDown) as caught:
            await system.registry.ref(Counter, "c").call(Crash())
        assert caught.value.taken
        assert caught.value.reason is not None
        assert caught.value.reason.kind == "crashed"


async def test_a_killed_actor_fails_its_caller(autojump_clock: MockClock) -> None:
    async with system_of(actor("c", Counter, shutdown=1)) as system:
        ref = system.registry.ref(Counter, "c")
        errors: list[ActorDown] = []

        async def ask() -> None:
            try:
                await ref.call(Sleep(100), timeout=200)
            except ActorDown as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            await system.registry.supervisor("root").stop_child("c")
        assert [error.taken for error in errors] == [True]
        assert system.events.counters.dead_letters == 1


async def test_calls_queued_behind_a_crash_are_answered_by_the_next_life(autojump_clock: MockClock) -> None:
    async with system_of(actor("c", Counter)) as system:
        ref = system.registry.ref(Counter, "c")
        ref.tell(Crash())
        assert await ref.call(Add(1)) == 1


async def test_a_reply_of_the_wrong_type_is_the_callers_error_and_the_actor_lives(autojump_clock: MockClock) -> None:
    class Wrong(Actor[Ping | Add]):
        async def handle(self, message: Ping | Add) -> object:
            return 42

    async with system_of(actor("c", Wrong)) as system:
        ref = system.registry.ref(Wrong, "c")
        with pytest.raises(ReplyTypeError) as caught:
            await ref.call(Ping())
        assert caught.value.got is int
        assert await ref.call(Add(1)) == 42
        assert system.tree()[1].restarts == 0


class Odd(Message[list[int] | None], frozen=True):
    """Replied to with a list or nothing."""


class Exact(Message[float], frozen=True):
    """Replied to with a float; an int will do."""


async def test_replies_are_checked_by_class_only(autojump_clock: MockClock) -> None:
    answers: dict[type, object] = {Odd: ["text"], Exact: 3}
    async with system_of(actor("c", lambda: Probe(Journal(), answers))) as system:
        ref: ActorRef[Any] = system.registry.ref(Probe, "c")
        reply: object = await ref.call(Odd())
        assert reply == ["text"]
        assert await ref.call(Exact()) == 3
        answers[Odd] = None
        assert await ref.call(Odd()) is None
        answers[Odd] = {}
        with pytest.raises(ReplyTypeError):
            await ref.call(Odd())


class Keeper(Actor[Ping | Sleep | Crash]):
    """Keeps what it was asked."""

    def __init__(self, kept: list[ReplyTo]) -> None:
        self.kept = kept

    async def handle(self, message: Ping | Sleep | Crash) -> object:
        if isinstance(message, Crash):
            raise ValueError(message.text)
        if isinstance(message, Ping):
            self.kept.append(self.context.reply_to())
        return LATER


@may_crash(ValueError)
async def test_a_reply_may_be_kept_and_given_later(autojump_clock: MockClock) -> None:
    kept: list[ReplyTo] = []
    async with system_of(actor("c", lambda: Keeper(kept))) as system:
        ref = system.registry.ref(Keeper, "c")
        answers: list[object] = []

        async def ask() -> None:
            try:
                answers.append(await ref.call(Ping()))
            except (ValueError, ActorDown, CallTimeout) as error:
                answers.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
                await settle()
            assert len(kept) == 3
            assert [one.wanted for one in kept] == [True] * 3
            kept[0].reply("pong")
            assert [one.wanted for one in kept] == [False, True, True]
            kept[0].reply("again")
            await settle()
            kept[1].refuse(ValueError("no"))
            await settle()
            assert answers[0] == "pong"
            assert isinstance(answers[1], ValueError)
            ref.tell(Crash())
        assert isinstance(answers[2], ActorDown)
        assert answers[2].taken
        kept[2].reply("late")
        kept[2].refuse(ValueError("late"))
        assert system.events.counters.late_replies == 3


async def test_a_kept_reply_of_a_caller_that_timed_out_is_late(autojump_clock: MockClock) -> None:
    kept: list[ReplyTo] = []
    async with system_of(actor("c", lambda: Keeper(kept))) as system:
        ref = system.registry.ref(Keeper, "c")
        with pytest.raises(CallTimeout):
            await ref.call(Ping(), timeout=1)
        assert not kept[0].wanted
        kept[0].reply("pong")
        assert system.events.counters.late_replies == 1
        ref.tell(Ping())
        await settle()
        assert not kept[1].wanted
        kept[1].reply("to nobody")
        kept[1].refuse(ValueError("to nobody"))
        assert system.events.counters.late_replies == 1


@may_crash(TypeError)
async def test_later_without_the_right_to_reply_is_a_crash(autojump_clock: MockClock) -> None:
    async with system_of(actor("c", lambda: Keeper([]))) as system:
        with pytest.raises(ActorDown) as caught:
            await system.registry.ref(Keeper, "c").call(Sleep(1))
        assert caught.value.reason is not None
        assert isinstance(caught.value.reason.error, TypeError)


async def test_a_refusal_reaches_the_caller_and_the_actor_goes_on(autojump_clock: MockClock) -> None:
    replies: dict[type, object] = {Ping: Refuse(KeyError("no such thing"))}
    async with system_of(actor("c", lambda: Probe(Journal(), replies))) as system:
        ref: ActorRef[Any] = system.registry.ref(Probe, "c")
        with pytest.raises(KeyError, match="no such thing"):
            await ref.call(Ping())
        ref.tell(Ping())
        await settle()
        assert system.tree()[1].restarts == 0
        assert system.events.counters.dead_letters == 1


class Tiny(Counter):
    """Room for two."""

    mailbox = MailboxPolicy(bound=2)


async def test_a_call_waits_for_room_within_its_deadline(autojump_clock: MockClock) -> None:
    async with system_of(actor("c", Tiny)) as system:
        ref = system.registry.ref(Tiny, "c")
        ref.tell(Sleep(3))
        await settle()
        ref.tell(Add(1))
        ref.tell(Add(1))
        assert await ref.call(Add(1), timeout=5) == 3
        ref.tell(Sleep(3))
        await settle()
        ref.tell(Add(1))
        ref.tell(Add(1))
        with pytest.raises(CallTimeout) as caught:
            await ref.call(Add(100), timeout=1)
        assert not caught.value.taken
        assert await ref.call(Add(1), timeout=5) == 6


async def test_calls_without_a_deadline_wait_for_good(autojump_clock: MockClock) -> None:
    async with system_of(actor("c", Counter)) as system:
        assert await system.registry.ref(Counter, "c").call(Sleep(1e6), timeout=math.inf) == "slept"


async def test_deadlines_expire_each_at_its_time(autojump_clock: MockClock) -> None:
    async with system_of(actor("c", Counter)) as system:
        ref = system.registry.ref(Counter, "c")
        ref.tell(Sleep(100))
        ended: list[tuple[float, float]] = []
        began = trio.current_time()

        async def ask(delay: float, timeout: float) -> None:
            await trio.sleep(delay)
            with pytest.raises(CallTimeout):
                await ref.call(Ping(), timeout=timeout)
            ended.append((delay + timeout, trio.current_time() - began))

        async with trio.open_nursery() as nursery:
            for n in range(300):
                nursery.start_soon(ask, n * 0.01, 2.0 if n % 2 else 0.5 + (n % 7))
        assert len(ended) == 300
        for wanted, real in ended:
            assert real == pytest.approx(wanted)


async def test_waiters_of_an_actor_that_is_given_up_are_all_told(autojump_clock: MockClock) -> None:
    """One caller in the handler, one queued, one sender and one caller waiting for room."""
    outcomes: list[str] = []

    async def note(work: Callable[[], Any]) -> None:
        try:
            await work()
        except ActorDown as error:
            outcomes.append(f"down, taken={error.taken}")

    spec = SupervisorSpec("sub", [actor("c", Tiny, shutdown="brutal_kill")], name="sub", restart="temporary")
    async with system_of(spec) as system:
        ref = system.registry.ref(Tiny, "c")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, lambda: ref.call(Sleep(1000), timeout=math.inf))
            await settle()
            ref.tell(Ping())
            nursery.start_soon(note, lambda: ref.call(Ping(), timeout=math.inf))
            await settle()
            nursery.start_soon(note, lambda: ref.send(Ping()))
            nursery.start_soon(note, lambda: ref.call(Ping(), timeout=math.inf))
            await settle()
            assert outcomes == []
            await system.registry.supervisor("root").stop_child("sub")
        assert sorted(outcomes) == ["down, taken=False"] * 3 + ["down, taken=True"]
        assert system.events.counters.dead_letters == 3


# --- waits that would never end -------------------------------------------------------------------------------------


class Ask(Message[str], frozen=True):
    """Makes the actor call, send to, or request something of another."""

    what: str
    whom: str


class Caller(Actor[Ask | Ping]):
    """Does what it is asked, and replies with the error that it met."""

    mailbox = MailboxPolicy(bound=2)

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    async def handle(self, message: Ask | Ping) -> str:
        if isinstance(message, Ping):
            return "pong"
        return await act(self.registry, message)


async def act(registry: Registry, message: Ask) -> str:
    try:
        match message.what:
            case "call":
                return await registry.ref(Caller, message.whom).call(Ping(), timeout=50)
            case "call to ask":
                what, whom = message.whom.split(":")
                return await registry.ref(Caller, what).call(Ask("call", whom), timeout=50)
            case "send":
                for _ in range(3):
                    await registry.ref(Caller, message.whom).send(Ping())
                return "sent"
            case "stop":
                await registry.supervisor("root").stop_child(message.whom)
                return "stopped"
            case _:
                await registry.supervisor(message.whom).start_child(actor("new", Counter))
                return "started"
    except CallCycle as error:
        return "cycle: " + " ".join(error.path)


async def test_a_call_to_itself_is_refused(autojump_clock: MockClock) -> None:
    registry = Registry()
    async with system_of(actor("a", lambda: Caller(registry)), registry=registry):
        assert await registry.ref(Caller, "a").call(Ask("call", "a")) == "cycle: root/a root/a"


async def test_a_cycle_of_calls_is_refused_where_it_would_close(autojump_clock: MockClock) -> None:
    registry = Registry()
    callers = [actor(name, lambda: Caller(registry)) for name in ("a", "b")]
    async with system_of(*callers, registry=registry):
        a = registry.ref(Caller, "a")
        assert await a.call(Ask("call to ask", "b:a")) == "cycle: root/b root/a root/b"
        assert await a.call(Ask("call", "b")) == "pong"


async def test_a_blocked_send_to_itself_is_refused(autojump_clock: MockClock) -> None:
    registry = Registry()
    async with system_of(actor("a", lambda: Caller(registry)), registry=registry):
        assert await registry.ref(Caller, "a").call(Ask("send", "a")) == "cycle: root/a root/a"


async def test_a_cycle_of_a_blocked_send_and_a_call_is_refused(autojump_clock: MockClock) -> None:
    registry = Registry()
    callers = [actor(name, lambda: Caller(registry)) for name in ("a", "b")]
    async with system_of(*callers, registry=registry):
        a, b = registry.ref(Caller, "a"), registry.ref(Caller, "b")
        answers: dict[str, str] = {}

        async def ask(name: str, ref: ActorRef[Ask], message: Ask) -> None:
            answers[name] = await ref.call(message, timeout=100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a", a, Ask("send", "b"))
            nursery.start_soon(ask, "b", b, Ask("send", "a"))
        assert sorted(answer.split(":")[0] for answer in answers.values()) == ["cycle", "sent"]


async def test_a_request_for_its_own_end_is_refused(autojump_clock: MockClock) -> None:
    registry = Registry()
    async with system_of(actor("a", lambda: Caller(registry)), registry=registry) as system:
        assert (await registry.ref(Caller, "a").call(Ask("stop", "a"))).startswith("cycle")
        assert system.tree()[1].state == "running"


async def test_a_request_for_the_end_of_an_ancestor_is_refused(autojump_clock: MockClock) -> None:
    registry = Registry()
    sub = SupervisorSpec("sub", [actor("a", lambda: Caller(registry))])
    async with system_of(sub, actor("b", Counter), registry=registry):
        a = registry.ref(Caller, "a")
        assert (await a.call(Ask("stop", "sub"))).startswith("cycle")
        assert await a.call(Ask("stop", "b")) == "stopped"


@pytest.mark.parametrize("target", ["b", "sub"])
async def test_stopping_whoever_waits_for_the_one_who_asks_is_refused(autojump_clock: MockClock, target: str) -> None:
    """b's handler calls a and waits; a then asks for the end of b, which would wait for b's handler."""
    registry = Registry()
    outcome: list[str] = []

    class Stopper(Actor[Ping | Sleep]):
        async def handle(self, message: Ping | Sleep) -> str:
            if isinstance(message, Sleep):
                await trio.sleep(message.seconds)
                outcome.append(await act(registry, Ask("stop", target)))
            return "pong"

    class Waiter(Actor[Ping]):
        async def handle(self, message: Ping) -> str:
            return await registry.ref(Stopper, "a").call(Ping(), timeout=50)

    b = actor("b", Waiter, shutdown="infinity")
    children = [b] if target == "b" else [SupervisorSpec("sub", [b])]
    async with system_of(actor("a", Stopper), *children, registry=registry):
        registry.ref(Stopper, "a").tell(Sleep(1))
        await settle()
        with trio.fail_after(20):
            assert await registry.ref(Waiter, "b").call(Ping(), timeout=10) == "pong"
        assert [text.split(":")[0] for text in outcome] == ["cycle"]


@may_crash(CallCycle)
async def test_a_start_that_waits_for_whoever_asked_for_it_is_refused(autojump_clock: MockClock) -> None:
    """a asks for a child whose start calls a."""
    registry = Registry()
    met: list[str] = []

    class Starter(Actor[Ping]):
        async def handle(self, message: Ping) -> str:
            try:
                await registry.supervisor("root").start_child(actor("new", Calls))
            except StartFailed as error:
                met.append(type(error.__cause__).__name__)
            return "tried"

    class Calls(Actor[Ping]):
        async def on_start(self, context: Context) -> None:
            await registry.ref(Starter, "a").call(Ping(), timeout=50)

    async with system_of(actor("a", Starter), registry=registry):
        assert await registry.ref(Starter, "a").call(Ping(), timeout=100) == "tried"
        assert met == ["CallCycle"]


@may_crash(CallCycle)
async def test_a_request_of_a_start_to_the_supervisor_that_waits_for_it_is_refused(autojump_clock: MockClock) -> None:
    registry = Registry()

    class Impatient(Actor[Ping]):
        async def on_start(self, context: Context) -> None:
            await context.supervisor.start_child(actor("new", Counter))

    with pytest.raises(StartFailed) as caught:
        async with system_of(actor("a", Impatient), registry=registry):
            raise AssertionError("the block must not run")  # pragma: no cover
    assert isinstance(caught.value.__cause__, CallCycle)


async def _three_seconds(_: object) -> None:
    await trio.sleep(3)


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_held_request_of_whoever_is_being_stopped_is_refused(autojump_clock: MockClock, strategy: Any) -> None:
    """b crashes and a is to be stopped for it; a's handler then asks the supervisor, which waits for a."""
    registry = Registry()
    answers: list[str] = []

    class Late(Actor[Ping]):
        async def handle(self, message: Ping) -> str:
            await trio.sleep(1)
            answers.append(await act(registry, Ask("start", "sub")))
            return "done"

    class Early(Actor[Ping]):
        async def handle(self, message: Ping) -> str:
            answers.append(await act(registry, Ask("start", "sub")))
            return "done"

    children = [
        actor("b", Counter),
        actor("slow", lambda: Probe(Journal(), {Ping: _three_seconds}), shutdown=60),
        actor("early", Early, shutdown="infinity"),
        actor("late", Late, shutdown="infinity"),
    ]
    sub = SupervisorSpec("sub", children, strategy=strategy, name="sub")
    async with system_of(sub, registry=registry):
        registry.ref(Late, "late").tell(Ping())
        await settle()
        registry.ref(Counter, "b").tell(Crash())
        await settle()
        registry.ref(Early, "early").tell(Ping())
        with trio.fail_after(20):
            await trio.sleep(10)
            assert await registry.ref(Counter, "b").call(Ping()) == "pong"
        assert [answer.split(":")[0] for answer in answers] == ["cycle"] * len(answers)
        assert answers


async def test_stopping_the_system_from_inside_is_refused(autojump_clock: MockClock) -> None:
    met: list[type[BaseException]] = []

    async def job(context: Context) -> None:
        context.ready()
        await trio.sleep(1)
        try:
            await system.stop()
        except CallCycle as error:
            met.append(type(error))
        system.request_stop()
        await trio.sleep_forever()

    async with system_of(ChildSpec("j", lambda: Job(job))) as system:
        await system.wait()
    assert met == [CallCycle]
