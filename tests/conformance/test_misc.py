"""OTP supervisor_SUITE: counting, memory, hanging restarts, order, names, reports (cases 71 to 93)."""

from __future__ import annotations

import functools
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    AlreadyPresent,
    Backoff,
    ChildRestarting,
    ChildSpec,
    ExitReason,
    Intensity,
    NameTaken,
    NotFound,
    StartFailed,
    SupervisorSpec,
)
from actors.testing import settle
from tests.conformance.lab import KILL, Boom, Lab, Proc, Switch, fail, open_lab
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

MANY = Intensity(1_000_000, 3600)


async def test_count_children(autojump_clock: MockClock) -> None:
    """A thousand children, two thousand, then killed."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        for n in range(2000):
            if n == 1000:
                assert await lab.counts(sup) == (1000, 1000, 0, 1000)
            await sup.start_child(lab.child(f"c{n}", restart="temporary"))
        assert await lab.counts(sup) == (2000, 2000, 0, 2000)
        for n in range(2000):
            if n == 1000:
                await settle()
                assert await lab.counts(sup) == (1000, 1000, 0, 1000)
            lab.ref(f"c{n}").tell(_end(KILL))
        await settle()
        assert await lab.counts(sup) == (0, 0, 0, 0)


def _end(reason: ExitReason) -> Any:
    from tests.conformance.lab import End

    return End(reason)


async def test_count_children_supervisor(autojump_clock: MockClock) -> None:
    """Supervisors and workers are counted apart, running or not."""
    async with open_lab() as lab:
        children = [SupervisorSpec(f"s{n}") for n in range(3)]
        sup = await lab.start(SupervisorSpec("sup", [*children, lab.child("c1"), lab.child("c2")]))
        assert await lab.counts(sup) == (5, 5, 3, 2)
        await sup.stop_child("s0")
        await sup.stop_child("c1")
        assert await lab.counts(sup) == (5, 3, 3, 2)


async def test_count_restarting_children(autojump_clock: MockClock) -> None:
    """A child in a restart loop is a specified worker, and not active."""
    switch = Switch()
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic", intensity=MANY))
        for name in ("c1", "c2"):
            await sup.start_child(lab.child(name, on_start=switch, backoff=Backoff(1, 1)))
        assert await lab.counts(sup) == (2, 2, 0, 2)
        switch.hook = fail
        await lab.end("c1")
        assert await lab.counts(sup) == (2, 1, 0, 2)
        await trio.sleep(10)
        assert await lab.counts(sup) == (2, 1, 0, 2)
        switch.hook = None
        await trio.sleep(2)
        assert await lab.counts(sup) == (2, 2, 0, 2)


class Argument:
    """Something a child is started with."""


async def test_do_not_save_start_parameters_for_temporary_children(autojump_clock: MockClock) -> None:
    """What a temporary child was started with is not kept after its end; in all strategies."""
    for strategy in ("one_for_one", "one_for_all", "rest_for_one", "dynamic"):
        async with open_lab() as lab:
            sup = await lab.start(SupervisorSpec("sup", strategy=strategy))
            argument = Argument()
            seen = weakref.ref(argument)
            start = functools.partial(Proc, info=argument)
            await sup.start_child(ChildSpec("c1", start, restart="temporary", name="c1"))
            del argument, start
            await lab.end("c1")
            # A crash keeps frames alive through its error, which the recorder holds.
            lab.recorder.events.clear()
            await trio.sleep(1)
            gc.collect()
            assert seen() is None


async def test_do_not_save_child_specs_for_temporary_children(autojump_clock: MockClock) -> None:
    """A temporary child's specification is dropped at its end; permanent and transient ones are kept."""
    async with open_lab() as lab:
        children = [lab.child("c1"), lab.child("c2", restart="transient"), lab.child("c3", restart="temporary")]
        sup = await lab.start(SupervisorSpec("sup", children))
        for name in ("c1", "c2", "c3"):
            await sup.stop_child(name)
        assert await lab.states(sup) == {"c1": "stopped", "c2": "stopped"}
        with pytest.raises(NotFound):
            await sup.restart_child("c3")


async def _seconds_to_end(count: int) -> float:
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        for n in range(count):
            await sup.start_child(lab.child(f"c{n}", restart="temporary"))
        gc.collect()
        began = time.process_time()
        for n in range(count):
            lab.ref(f"c{n}").tell(_end(ExitReason("normal")))
        await settle()
        spent = time.process_time() - began
        assert await sup.children() == []
        return spent


async def test_simple_one_for_one_scale_many_temporary_children(autojump_clock: MockClock) -> None:
    """Ten times the terminations cost less than fifty times the time."""
    few = min([await _seconds_to_end(300) for _ in range(2)])
    many = await _seconds_to_end(3000)
    assert many < 50 * few


async def test_temporary_bystander(autojump_clock: MockClock) -> None:
    """A temporary child that a group restart takes down is not restarted and harms nobody."""
    for strategy in ("one_for_all", "rest_for_one"):
        async with open_lab() as lab:
            children = [lab.child("c1"), lab.child("c2", restart="temporary")]
            sup = await lab.start(SupervisorSpec("sup", children, strategy=strategy))
            await lab.end("c1")
            assert await lab.states(sup) == {"c1": "running"}
            await lab.end("c1")
            assert await lab.states(sup) == {"c1": "running"}


async def test_simple_global_supervisor(autojump_clock: MockClock) -> None:
    """Names are held again after kill, end and restart. Adapted: our registry instead of `global`."""
    async with open_lab() as lab:
        inner = SupervisorSpec("inner", [lab.child("c1")], name="named", intensity=Intensity(0, 1))
        await lab.start(SupervisorSpec("sup", [inner], intensity=MANY))
        for how in ("kill", "abnormal", "normal"):
            before = await lab.life("c1")
            await lab.end("c1", how)
            assert await lab.life("c1") != before
            assert (await lab.counts(lab.registry.supervisor("named")))[1] == 1
        await lab.registry.supervisor("sup").stop_child("inner")
        assert not lab.ref("c1").alive
        await lab.registry.supervisor("sup").restart_child("inner")
        assert await lab.life("c1")


async def _hanging(lab: Lab, strategy: Any, *, others: bool) -> Switch:
    switch = Switch()
    extra = [lab.child("c2")] if others else []
    spec = SupervisorSpec("sup", [lab.child("c1", on_start=switch), *extra], strategy=strategy, intensity=MANY)
    await lab.start(spec)
    switch.hook = fail
    lab.ref("c1").tell(_end(ExitReason("crashed", error=ValueError("x"))))
    for _ in range(50):
        await trio.lowlevel.checkpoint()
    assert switch.calls > 3
    return switch


@may_crash(ValueError)
async def test_hanging_restart_loop(autojump_clock: MockClock) -> None:
    """While a child's restart fails again and again: requests are answered, stop works, and so does the end."""
    async with open_lab() as lab:
        await _hanging(lab, "one_for_one", others=False)
        sup = lab.registry.supervisor("sup")
        with pytest.raises(AlreadyPresent):
            await sup.start_child(lab.child("c1"))
        with pytest.raises(ChildRestarting):
            await sup.restart_child("c1")
        with pytest.raises(ChildRestarting):
            await sup.delete_child("c1")
        assert await lab.states(sup) == {"c1": "restarting"}
        assert await lab.counts(sup) == (1, 0, 0, 1)
        await sup.stop_child("c1")
        assert await lab.states(sup) == {"c1": "stopped"}
        with pytest.raises(StartFailed):
            await sup.restart_child("c1")
        await sup.delete_child("c1")
        await sup.start_child(lab.child("c1"))
        await lab.root.stop_child("sup")


@may_crash(ValueError)
async def test_hanging_restart_loop_rest_for_one(autojump_clock: MockClock) -> None:
    """The same under rest_for_one: later children are shown as stopped, and the supervisor ends when told."""
    async with open_lab() as lab:
        await _hanging(lab, "rest_for_one", others=True)
        sup = lab.registry.supervisor("sup")
        assert await lab.states(sup) == {"c1": "restarting", "c2": "stopped"}
        with pytest.raises(ChildRestarting):
            await sup.restart_child("c1")
        with pytest.raises(ChildRestarting):
            await sup.delete_child("c1")
        assert await lab.counts(sup) == (2, 0, 0, 2)
        await sup.stop_child("c1")
        assert await lab.states(sup) == {"c1": "stopped", "c2": "stopped"}
        await lab.root.stop_child("sup")


async def test_hanging_restart_loop_simple(autojump_clock: MockClock) -> None:
    """The same in a dynamic supervisor: stop by reference works, and the supervisor ends when told."""
    switch = Switch()
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic", intensity=MANY))
        refs = {name: await sup.start_child(lab.child(name, on_start=switch)) for name in ("c1", "c2")}
        switch.hook = fail
        for name in refs:
            lab.ref(name).tell(_end(KILL))
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        assert await lab.states(sup) == {"c1": "restarting", "c2": "restarting"}
        with pytest.raises(AlreadyPresent):
            await sup.start_child(lab.child("c1"))
        assert refs["c1"] is not None
        await sup.stop_child(refs["c1"])
        assert await lab.states(sup) == {"c2": "restarting"}
        await lab.root.stop_child("sup")


async def test_order_of_children(autojump_clock: MockClock) -> None:
    """Started in the given order, stopped in reverse; a crash of 3 stops 5 and 4 and starts 3, 4, 5."""
    async with open_lab() as lab:
        names = [f"c{n}" for n in range(1, 6)]
        await lab.start(SupervisorSpec("sup", [lab.child(name) for name in names], strategy="rest_for_one"))
        assert lab.log == [("start", name) for name in names]
        lab.log.clear()
        await lab.end("c3")
        assert lab.log == [
            ("stop crashed", "c3"),
            ("stop shutdown", "c5"),
            ("stop shutdown", "c4"),
            *(("start", name) for name in names[2:]),
        ]
        lab.log.clear()
        await lab.root.stop_child("sup")
        assert lab.log == [("stop shutdown", name) for name in reversed(names)]


async def _seconds_to_start_and_stop(count: int, make: Callable[[Lab], SupervisorSpec]) -> float:
    async with open_lab() as lab:
        gc.collect()
        began = time.process_time()
        await lab.start(make(lab))
        await lab.root.stop_child("sup")
        return time.process_time() - began


async def test_scale_start_stop_many_children(autojump_clock: MockClock) -> None:
    """Starting and stopping static children grows linearly (ten times is the limit)."""

    def children(lab: Lab, count: int) -> SupervisorSpec:
        return SupervisorSpec("sup", [ChildSpec(f"c{n}", Proc) for n in range(count)])

    few = min([await _seconds_to_start_and_stop(200, lambda lab: children(lab, 200)) for _ in range(2)])
    many = await _seconds_to_start_and_stop(4000, lambda lab: children(lab, 4000))
    assert many < few * 20 * 10


def test_format_log_1() -> None:
    """A reason is told in one line, whatever its error says. Adapted: events carry the error, formatting is short."""
    told = str(ExitReason("crashed", error=ValueError("first\n  second\tthird")))
    assert told == "crashed (ValueError: first second third)"
    assert str(ExitReason("shutdown", "because")) == "shutdown (because)"
    assert str(ExitReason("normal")) == "normal"


def test_format_log_2() -> None:
    """A reason is told in a bounded length."""
    told = str(ExitReason("crashed", error=ValueError("x" * 100_000)))
    assert len(told) < 250
    assert told.endswith("\N{HORIZONTAL ELLIPSIS})")


@may_crash(NameTaken)
async def test_already_started_outside_supervisor(autojump_clock: MockClock) -> None:
    """A name that is held elsewhere: the start fails, tells the owner, and adds nothing."""
    async with open_lab() as lab:
        first = await lab.start(SupervisorSpec("sup", [lab.child("c1", name="shared")]))
        second = await lab.start(SupervisorSpec("other"))
        with pytest.raises(StartFailed) as caught:
            await second.start_child(lab.child("c2", name="shared"))
        assert isinstance(caught.value.__cause__, NameTaken)
        assert caught.value.__cause__.owner.path == "lab/sup/c1"
        assert await second.children() == []
        assert await lab.states(first) == {"c1": "running"}


async def test_which_children(autojump_clock: MockClock) -> None:
    """The newest first; a stopped one without a reference; one child can be asked for."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [lab.child("c1"), lab.child("c2")]))
        await sup.start_child(lab.child("c3"))
        assert [info.id for info in await sup.children()] == ["c3", "c2", "c1"]
        await sup.stop_child("c2")
        assert [info.ref is None for info in await sup.children()] == [False, True, False]
        assert (await sup.child("c2")).state == "stopped"
        assert (await sup.child("c1")).ref == lab.ref("c1")
        with pytest.raises(NotFound):
            await sup.child("c9")


async def test_which_children_simple_one_for_one(autojump_clock: MockClock) -> None:
    """The same for dynamic children; those that ended are not listed."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        for name in ("c1", "c2", "c3"):
            await sup.start_child(lab.child(name))
        await sup.stop_child("c2")
        assert [info.id for info in await sup.children()] == ["c3", "c1"]
        with pytest.raises(NotFound):
            await sup.child("c2")
