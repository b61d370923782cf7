"""Cases that other suites have and OTP's supervisor suite lacks: Elixir's DynamicSupervisor, ractor, gen_server."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock

from actors import (
    ActorDown,
    Backoff,
    CallTimeout,
    ChildSpec,
    Context,
    Intensity,
    MaxChildren,
    StartFailed,
    SupervisorSpec,
    WrongMessage,
)
from actors.testing import Journal, Probe, settle
from tests.actors.messages import Add, Counter, Leave, Ping, Sleep
from tests.conformance.lab import Boom, Life, Proc, Switch, fail, open_lab
from tests.crashes import may_crash

pytestmark = may_crash(Boom)


async def test_restarting_children_are_counted_in_max_children(autojump_clock: MockClock) -> None:
    """Elixir: a child that waits for its restart keeps its place."""
    switch = Switch()
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic", max_children=1, intensity=Intensity(100, 1)))
        await sup.start_child(lab.child("c1", on_start=switch, backoff=Backoff(1, 1)))
        switch.hook = fail
        await lab.end("c1")
        with pytest.raises(MaxChildren):
            await sup.start_child(lab.child("c2"))
        await sup.stop_child("c1")
        await sup.start_child(lab.child("c2"))
        with pytest.raises(MaxChildren):
            await sup.start_child(lab.child("c3"))
        await lab.end("c2", "normal")
        assert (await lab.counts(sup))[0] == 1
        await sup.stop_child("c2")
        await sup.start_child(lab.child("c3"))


async def test_a_child_triggers_the_maximum_intensity_when_trying_again(autojump_clock: MockClock) -> None:
    """Elixir: a restart that fails for the second time within the intensity ends the supervisor."""
    switch = Switch()
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic", intensity=Intensity(1, 5)))
        await sup.start_child(lab.child("c1", on_start=switch))
        switch.hook = fail
        await lab.end("c1")
        assert (await lab.ended("sup")).kind == "shutdown"
        assert switch.calls == 2


async def test_terminates_with_mixed_children(autojump_clock: MockClock) -> None:
    """Elixir: brutal_kill, timed, obedient and infinite children end together."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        await sup.start_child(lab.child("brutal", shutdown="brutal_kill", stop_s=9))
        await sup.start_child(lab.child("timed", shutdown=2, stop_s=9))
        await sup.start_child(lab.child("obedient", shutdown=2, stop_s=1))
        await sup.start_child(lab.child("infinite", shutdown="infinity", stop_s=4))
        began = trio.current_time()
        await lab.root.stop_child("sup")
        assert trio.current_time() - began == pytest.approx(4.0)


async def test_stop_has_priority_over_queued_messages(autojump_clock: MockClock) -> None:
    """ractor: what is queued behind the message at hand is not handled any more; it becomes dead letters."""
    journal: Journal[Ping] = Journal()

    async def slow(_: object) -> str:
        await trio.sleep(1)
        return "pong"

    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup"))
        ref = await sup.start_child(ChildSpec("c1", lambda: Probe(journal, {Ping: slow})))
        assert ref is not None
        for _ in range(3):
            ref.tell(Ping())
        await settle()
        await sup.stop_child("c1")
        assert len(journal.messages) == 1
        assert [letter.cause for letter in lab.recorder.dead_letters] == ["down", "down"]


async def test_drain_handles_the_backlog_then_stops(autojump_clock: MockClock) -> None:
    """ractor: an actor drains by telling itself to leave: what came before is handled first."""
    async with open_lab() as lab:
        await lab.start(SupervisorSpec("sup", [ChildSpec("c1", Counter, name="counter", restart="transient")]))
        ref = lab.registry.ref(Counter, "counter")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                sums: list[int] = []

                async def ask() -> None:
                    sums.append(await ref.call(Add(1)))

                for _ in range(3):
                    nursery.start_soon(ask)
                await settle()
                ref.tell(Leave())
                await settle()
        assert sorted(sums) == [1, 2, 3]
        assert not ref.alive


async def test_a_failing_spawn_does_not_poison_the_registry(autojump_clock: MockClock) -> None:
    """ractor: the name of a failed start can be taken at once."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup"))
        with pytest.raises(StartFailed):
            await sup.start_child(lab.child("c1", on_start=fail, name="name"))
        with pytest.raises(ActorDown):
            lab.ref("name").tell(Life())
        await sup.start_child(lab.child("c2", name="name"))
        assert await lab.life("name")


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one", "dynamic"])
async def test_a_cancelled_spawn_runs_cleanup(autojump_clock: MockClock, strategy: str) -> None:
    """ractor: when whoever asked for a start is cancelled meanwhile, the half-started child is undone."""
    cleaned: list[str] = []

    class Slow(Proc):
        async def on_start(self, context: Context) -> None:
            try:
                await trio.sleep(10)
            finally:
                cleaned.append(context.path)

    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy=strategy))  # type: ignore[arg-type]
        with trio.move_on_after(1):
            await sup.start_child(ChildSpec("c1", Slow))
        await settle()
        assert cleaned == ["lab/sup/c1"]
        assert await sup.children() == []
        await sup.start_child(lab.child("c1"))


async def test_the_supervisor_keeps_the_dead_childs_reason(autojump_clock: MockClock) -> None:
    """ractor: what a dead child left (here: why it ended) can be read at its supervisor."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [lab.child("c1", restart="transient")]))
        await lab.end("c1", "shutdown_x")
        exit_reason = (await sup.child("c1")).last_exit
        assert exit_reason is not None
        assert exit_reason.detail == "x"
        await sup.restart_child("c1")
        await lab.end("c1", "abnormal")
        last = (await sup.child("c1")).last_exit
        assert last is not None
        assert isinstance(last.error, Boom)


async def test_a_wrong_message_is_rejected_without_killing_the_actor(autojump_clock: MockClock) -> None:
    """ractor: the teller is told, the actor never sees it."""
    async with open_lab() as lab:
        await lab.start(SupervisorSpec("sup", [lab.child("c1")]))
        before = await lab.life("c1")
        with pytest.raises(WrongMessage):
            lab.ref("c1").tell(Add(1))  # type: ignore[arg-type]
        with pytest.raises(WrongMessage):
            await lab.ref("c1").send(Add(1))  # type: ignore[arg-type]
        with pytest.raises(WrongMessage):
            await lab.ref("c1").call(Add(1))  # type: ignore[arg-type]
        assert await lab.life("c1") == before


async def test_a_call_to_a_dead_name_fails_at_once(autojump_clock: MockClock) -> None:
    """gen_server: noproc."""
    async with open_lab() as lab:
        began = trio.current_time()
        with pytest.raises(ActorDown):
            await lab.ref("nobody").call(Life())
        assert trio.current_time() == began


async def test_a_call_timeout_then_a_late_reply(autojump_clock: MockClock) -> None:
    """gen_server: the late reply reaches nobody, least of all the next call."""
    async with open_lab() as lab:
        await lab.start(SupervisorSpec("sup", [ChildSpec("c1", Counter, name="counter")]))
        ref = lab.registry.ref(Counter, "counter")
        with pytest.raises(CallTimeout):
            await ref.call(Sleep(2), timeout=1)
        assert await ref.call(Ping()) == "pong"
        assert lab.system.events.counters.late_replies == 1


async def test_a_tell_to_the_dead_is_refused(autojump_clock: MockClock) -> None:
    """gen_server casts to the dead in silence. Here the teller is told, and a lost hint is a choice of its own."""
    async with open_lab() as lab:
        with pytest.raises(ActorDown):
            lab.ref("nobody").tell(Life())


async def test_a_call_with_a_huge_queue_costs_the_same(autojump_clock: MockClock) -> None:
    """gen_server: a caller with much queued elsewhere is not slowed (OTP: less than ten times)."""
    journal: Journal[Ping] = Journal()

    async def cost(calls: int) -> float:
        ref = lab.registry.ref(Counter, "counter")
        began = time.process_time()
        for _ in range(calls):
            await ref.call(Ping())
        return time.process_time() - began

    async with open_lab() as lab:
        await lab.start(SupervisorSpec("sup", [ChildSpec("c1", Counter, name="counter")]))
        await cost(100)
        before = min([await cost(300) for _ in range(3)])
        sup = lab.registry.supervisor("sup")

        async def stuck(_: object) -> None:
            await trio.sleep_forever()

        for n in range(50):
            ref = await sup.start_child(ChildSpec(f"q{n}", lambda: Probe(journal, {Ping: stuck}), shutdown=0))
            assert ref is not None
            for _ in range(700):
                ref.tell(Ping())
        await settle()
        assert min([await cost(300) for _ in range(3)]) < 10 * before
