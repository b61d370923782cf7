"""Circles of waits: what could never be answered is refused, what would end is left alone."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    LATER,
    Actor,
    ActorRef,
    CallCycle,
    CallTimeout,
    ChildSpec,
    Intensity,
    MailboxPolicy,
    Message,
    Registry,
    SupervisorSpec,
    open_system,
)
from actors._worker import SLICE_S
from actors.testing import settle
from tests.actors.messages import Ping

Act = Callable[["Does"], Awaitable[object]]


class Do(Message[str], frozen=True):
    """Has the actor do something in its handler, and replies with what comes of it."""

    act: Any


class Does(Actor[Do | Ping]):
    """Does what it is sent; replies with the name of the error that it met."""

    mailbox = MailboxPolicy(bound=4)

    async def handle(self, message: Do | Ping) -> object:
        if isinstance(message, Ping):
            return "pong"
        try:
            return await message.act(self)
        except (CallCycle, CallTimeout) as error:
            return type(error).__name__


class World:
    """Three actors, a, b and c."""

    def __init__(self, registry: Registry) -> None:
        self.a, self.b, self.c = (registry.ref(Does, name) for name in "abc")


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    registry = Registry()
    children = [ChildSpec(name, Does, name=name, **options) for name in "abc"]
    spec = SupervisorSpec("root", children, name="root", intensity=Intensity(1000, 1))
    async with open_system(spec, registry=registry):
        yield World(registry)


def calls(ref: ActorRef[Do | Ping], act: Act | None = None, timeout: float = 5.0, after: float = 0.0) -> Act:
    """Calls `ref` after a while: with Ping, or has it do `act`."""

    async def do(_: Does) -> object:
        await trio.sleep(after)
        return await (ref.call(Ping(), timeout) if act is None else ref.call(Do(act), timeout))

    return do


# --- what would end


async def test_a_reply_that_an_aside_will_give_holds_up_no_handler(autojump_clock: MockClock) -> None:
    async with world() as w:

        async def later(does: Does) -> object:
            reply = does.context.reply_to()

            async def answer() -> None:
                await trio.sleep(1)
                reply.reply("aside")

            does.context.start_soon(answer)
            return LATER

        answers = await both(w, Do(calls(w.b, later)), Do(calls(w.a, after=0.5)))
    assert answers == ["aside", "pong"]


async def both(w: World, to_a: Do, to_b: Do) -> list[str]:
    """What a and b reply to these; b's comes after what a does first."""
    answers = ["", ""]

    async def call(at: int, ref: ActorRef[Do], message: Do) -> None:
        answers[at] = await ref.call(message, timeout=100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, 0, w.a, to_a)
        await settle()
        nursery.start_soon(call, 1, w.b, to_b)
    return answers


async def test_a_reply_that_was_given_in_the_handler_frees_its_caller(autojump_clock: MockClock) -> None:
    async with world() as w:
        outcome: list[object] = []

        async def reply_then_call(does: Does) -> object:
            does.context.reply_to().reply("early")
            outcome.append(await w.a.call(Ping()))
            return LATER

        assert await w.a.call(Do(calls(w.b, reply_then_call))) == "early"
        await settle()
    assert outcome == ["pong"]


async def test_a_caller_that_has_its_reply_but_not_yet_its_turn_is_waited_for(autojump_clock: MockClock) -> None:
    """b replies to a and in the same slice takes the next message, whose handler calls a."""
    async with world() as w:

        async def sleep(_: Does) -> object:
            await trio.sleep(1)
            return "slept"

        answers: list[str] = []

        async def call_b(act: Act) -> None:
            answers.append(await w.b.call(Do(act)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_b, sleep)
            await settle()
            nursery.start_soon(w.a.call, Do(calls(w.b)))
            await settle()
            nursery.start_soon(call_b, calls(w.a))
    assert answers == ["slept", "pong"]


async def test_a_sender_that_has_its_room_but_not_yet_its_turn_is_waited_for(autojump_clock: MockClock) -> None:
    async with world() as w:
        answers: list[object] = []

        async def sleep(_: Does) -> object:
            await trio.sleep(1)
            return None

        async def end_slice(_: Does) -> object:
            time.sleep(2 * SLICE_S)  # noqa: ASYNC251  # the consumer lets others run after it
            return None

        async def call_a(_: Does) -> object:
            try:
                answers.append(await w.a.call(Ping()))
            except CallCycle as error:
                answers.append(error)
            return None

        async def send(_: Does) -> object:
            await w.b.send(Ping())
            return "sent"

        for _ in range(12):  # the scheduler chooses whether b or a has its turn first
            w.b.tell(Do(sleep))
            await settle()
            for act in (end_slice, end_slice, call_a, call_a):
                w.b.tell(Do(act))
            assert await w.a.call(Do(send)) == "sent"
            await trio.sleep(1)
    assert answers == ["pong"] * 24


async def test_a_short_call_back_to_the_caller_ends_at_its_own_deadline(autojump_clock: MockClock) -> None:
    async with world() as w:
        began = trio.current_time()
        assert await w.a.call(Do(calls(w.b, calls(w.a, timeout=0.1)))) == "CallTimeout"
        assert trio.current_time() - began == pytest.approx(0.1)


async def test_a_call_back_is_answered_once_a_shorter_call_has_ended(autojump_clock: MockClock) -> None:
    async with world() as w:
        outcome: list[object] = []

        async def call_a(_: Does) -> object:
            outcome.append(await w.a.call(Ping()))
            return "late"

        assert await w.a.call(Do(calls(w.b, call_a, timeout=0.5))) == "CallTimeout"
        await settle()
    assert outcome == ["pong"]


@pytest.mark.parametrize("how", ["scope", "sibling", "body", "race"])
async def test_a_call_back_is_answered_once_the_handler_has_cancelled_its_own_wait(
    autojump_clock: MockClock, how: str
) -> None:
    async with world() as w:
        outcome: list[object] = []

        async def call_a(_: Does) -> object:
            outcome.append(await w.a.call(Ping()))
            return "late"

        async def slow(_: Does) -> object:
            await trio.sleep(0.5)
            return "slow"

        async def give_up(does: Does) -> object:
            if how == "scope":
                with trio.move_on_after(0.5):
                    await w.b.call(Do(call_a))
                return "given up"
            async with trio.open_nursery() as nursery:

                async def cancel_after(run: Callable[..., Awaitable[object]], *args: object) -> None:
                    await run(*args)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(w.b.call, Do(call_a))
                if how == "sibling":
                    nursery.start_soon(cancel_after, trio.sleep, 0.5)
                elif how == "race":
                    nursery.start_soon(cancel_after, w.c.call, Do(slow))
                else:
                    await cancel_after(trio.sleep, 0.5)
            return "given up"

        assert await w.a.call(Do(give_up)) == "given up"
        await settle()
    assert outcome == ["pong"]


async def test_one_of_two_waits_of_a_handler_may_be_for_whoever_waits_for_it(autojump_clock: MockClock) -> None:
    """b asks a, which waits for it, and c at once, and is content with the first reply."""
    async with world() as w:

        async def first(does: Does) -> object:
            replies: list[str] = []
            async with trio.open_nursery() as nursery:

                async def call(ref: ActorRef[Ping]) -> None:
                    replies.append(await ref.call(Ping()))
                    nursery.cancel_scope.cancel()

                nursery.start_soon(call, w.a)
                nursery.start_soon(call, w.c)
            return replies[0]

        assert await w.a.call(Do(calls(w.b, first))) == "pong"


async def test_a_stop_that_kills_soon_may_be_asked_for_by_whoever_is_waited_for(autojump_clock: MockClock) -> None:
    async with world(shutdown=0.5) as w:

        async def stop_b(does: Does) -> object:
            await trio.sleep(1)
            await does.context.supervisor.stop_child("b")
            return "stopped"

        w.b.tell(Do(calls(w.a, after=0.5)))
        assert await w.a.call(Do(stop_b)) == "stopped"


# --- what would not


@pytest.mark.parametrize("timeout", [0.1, 5.0, math.inf])
async def test_a_call_to_oneself_is_refused_however_short(autojump_clock: MockClock, timeout: float) -> None:
    async with world() as w:
        assert await w.a.call(Do(calls(w.a, timeout=timeout))) == "CallCycle"


@pytest.mark.parametrize(("outer", "inner"), [(5.0, 5.0), (5.0, 4.0), (4.0, 5.0), (math.inf, 5.0), (50.0, math.inf)])
async def test_calls_with_about_the_same_patience_are_refused_at_once(
    autojump_clock: MockClock, outer: float, inner: float
) -> None:
    async with world() as w:
        began = trio.current_time()
        assert await w.a.call(Do(calls(w.b, calls(w.c, calls(w.a, timeout=inner), outer), outer)), 200) == "CallCycle"
        assert trio.current_time() == began


async def test_a_circle_through_tasks_of_a_handler_that_only_joins_them_is_refused(autojump_clock: MockClock) -> None:
    async with world() as w:
        answers: list[str] = []

        async def call(ref: ActorRef[Do], after: float) -> None:
            answers.append(await ref.call(Do(calls(w.a, after=after))))

        async def gather(_: Does) -> object:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, w.b, 0.1)
            return "joined"

        assert await w.a.call(Do(gather)) == "joined"
    assert answers == ["CallCycle"]


async def test_the_last_of_several_waits_that_lead_back_is_refused(autojump_clock: MockClock) -> None:
    """While c works, its reply might end the wait for b; once c calls back, too, nothing would."""
    async with world() as w:
        answers: dict[str, str] = {}

        async def call(name: str, ref: ActorRef[Do], after: float) -> None:
            answers[name] = await ref.call(Do(calls(w.a, after=after)), timeout=7)

        async def gather(_: Does) -> object:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, "b", w.b, 0.1)
                nursery.start_soon(call, "c", w.c, 0.2)
            return "joined"

        assert await w.a.call(Do(gather), timeout=50) == "joined"
    assert answers == {"b": "CallTimeout", "c": "CallCycle"}


async def test_a_long_chain_that_leads_back_is_refused(autojump_clock: MockClock) -> None:
    registry = Registry()
    count = 2000
    refs = [registry.ref(Does, str(n)) for n in range(count)]
    spec = SupervisorSpec("root", [ChildSpec(str(n), Does, name=str(n)) for n in range(count)])

    def at(n: int) -> Act:
        async def do(_: Does) -> object:
            return await (refs[0].call(Ping()) if n == count - 1 else refs[n + 1].call(Do(at(n + 1))))

        return do

    async with open_system(spec, registry=registry):
        assert await refs[0].call(Do(at(0))) == "CallCycle"
