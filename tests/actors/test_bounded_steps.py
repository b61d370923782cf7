"""Much at once is done in steps: others have their turn, and the work grows with what there is, not with its square."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    Actor,
    ActorDown,
    ChildSpec,
    Context,
    MailboxPolicy,
    Message,
    Registry,
    StartFailed,
    SupervisorSpec,
    WrongMessage,
    open_system,
)
from actors._mailbox import Mailbox
from actors.testing import settle
from tests.actors.messages import Add, Counter, Crash, Ping, Sleep
from tests.crashes import may_crash


class Wide(Counter):
    """Takes as many as there are."""

    mailbox = MailboxPolicy(bound=1 << 20)


async def test_a_mailbox_is_closed_in_steps_and_loses_no_dead_letter(autojump_clock: MockClock) -> None:
    count = 10_000
    registry = Registry()
    spec = SupervisorSpec("root", [ChildSpec("a", Wide, name="a", shutdown="brutal_kill")], name="root")
    async with open_system(spec, registry=registry) as system:
        ref = registry.ref(Wide, "a")
        ref.tell(Sleep(1e6))
        await settle()
        for _ in range(count):
            ref.tell(Ping())
        most = 0
        stopped = trio.Event()

        async def watch() -> None:
            nonlocal most
            before = system.events.counters.dead_letters
            while not stopped.is_set() or system.events.counters.dead_letters < count + 1:
                now = system.events.counters.dead_letters
                most, before = max(most, now - before), now
                await trio.lowlevel.cancel_shielded_checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await registry.supervisor("root").stop_child("a")
            stopped.set()
        assert system.events.counters.dead_letters == count + 1
        assert most <= 600


async def test_the_end_of_a_system_waits_for_the_dead_letters_of_a_closed_mailbox(autojump_clock: MockClock) -> None:
    registry = Registry()
    spec = SupervisorSpec("root", [ChildSpec("a", Wide, name="a", shutdown="brutal_kill")])
    async with open_system(spec, registry=registry) as system:
        ref = registry.ref(Wide, "a")
        ref.tell(Sleep(1e6))
        await settle()
        for _ in range(5_000):
            ref.tell(Ping())
    assert system.events.counters.dead_letters == 5_001


async def test_callers_and_senders_of_a_closed_mailbox_all_get_their_answer(autojump_clock: MockClock) -> None:
    class Small(Counter):
        mailbox = MailboxPolicy(bound=2)

    registry = Registry()
    down: list[str] = []

    async def waits(how: str) -> None:
        try:
            await (ref.call(Ping()) if how == "call" else ref.send(Ping()))
        except ActorDown:
            down.append(how)

    spec = SupervisorSpec("root", [ChildSpec("a", Small, name="a", shutdown="brutal_kill")], name="root")
    async with open_system(spec, registry=registry), trio.open_nursery() as nursery:
        ref = registry.ref(Small, "a")
        ref.tell(Sleep(1e6))
        await settle()
        for n in range(2_000):
            nursery.start_soon(waits, "call" if n % 2 else "send")
        await settle()
        await registry.supervisor("root").stop_child("a")
        await settle()
        # Two sends found room and had succeeded.
        assert len(down) >= 1_998


async def test_cancelled_senders_are_not_looked_for_one_by_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0
    purge = Mailbox._purge

    def counting(self: Mailbox) -> None:
        nonlocal looked_at
        looked_at += len(self.senders or ())
        purge(self)

    monkeypatch.setattr(Mailbox, "_purge", counting)

    class Small(Counter):
        mailbox = MailboxPolicy(bound=1)

    registry = Registry()
    count = 4_000
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Small, name="a")]), registry=registry):
        ref = registry.ref(Small, "a")
        ref.tell(Sleep(1))
        await settle()
        ref.tell(Add(1))
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(ref.send, Add(100))
            await settle()
            nursery.cancel_scope.cancel()
        assert looked_at <= 4 * count
        await trio.sleep(2)
        assert await ref.call(Add(1)) == 2
        await ref.send(Add(1))
        assert await ref.call(Add(1)) == 4


class Late(Actor["Know | Ping"]):
    """Names its messages before they are defined."""

    async def handle(self, message: Know | Ping) -> str:
        return "known"


class Know(Message[str], frozen=True):
    """Defined after the actor that takes it."""


async def test_a_message_named_in_quotes_is_checked(autojump_clock: MockClock) -> None:
    registry = Registry()
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Late, name="a")]), registry=registry):
        ref: Any = registry.ref(Late, "a")
        assert await ref.call(Know()) == "known"
        with pytest.raises(WrongMessage):
            ref.tell(Crash())


@may_crash(TypeError)
async def test_a_message_named_in_quotes_that_cannot_be_found_fails_the_start(autojump_clock: MockClock) -> None:
    class Local(Actor["Nowhere"]):  # type: ignore[name-defined]  # that is the case
        """Names what nothing defines."""

    with pytest.raises(StartFailed, match="Nowhere"):
        async with open_system(SupervisorSpec("root", [ChildSpec("a", Local)])):
            raise AssertionError("the block must not run")  # pragma: no cover


@may_crash(Exception)
async def test_the_context_of_a_dead_life_arms_no_timer(autojump_clock: MockClock) -> None:
    contexts: list[Context] = []

    class Noting(Counter):
        async def on_start(self, context: Context) -> None:
            contexts.append(context)

    registry = Registry()
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Noting, name="a")]), registry=registry) as system:
        registry.ref(Noting, "a").tell(Crash())
        await settle()
        before = len(system.timers)
        with pytest.raises(ActorDown):
            contexts[0].after(1, Ping())
        with pytest.raises(ActorDown):
            contexts[0].every(1, Ping())
        assert len(system.timers) == before
        contexts[1].after(1, Add(5))
        await trio.sleep(2)
        assert await registry.ref(Noting, "a").call(Add(1)) == 6
