"""OTP supervisor_SUITE: the strategies and their escalation (cases 30 to 43)."""

from __future__ import annotations

import functools
import gc
import weakref

import pytest
import trio
from trio.testing import MockClock

from actors import ChildSpec, Intensity, Stopped, SupervisorSpec
from tests.conformance.lab import Boom, Proc, Switch, fail, ignore, open_lab
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

TWO = Intensity(2, 3600)


async def test_one_for_one(autojump_clock: MockClock) -> None:
    """Only the crashed child is new; the third crash in the period stops the supervisor."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [lab.child("c1"), lab.child("c2")], intensity=TWO))
        one, two = await lab.lives("c1", "c2")
        await lab.end("c1")
        assert (await lab.life("c1") != one, await lab.life("c2")) == (True, two)
        assert await lab.counts(sup) == (2, 2, 0, 2)
        await lab.end("c1")
        await lab.end("c1")
        assert (await lab.ended("sup")).kind == "shutdown"
        assert not lab.ref("c2").alive


async def test_one_for_one_escalation(autojump_clock: MockClock) -> None:
    """The restart itself fails until the intensity is used up; supervisor and sibling end."""
    switch = Switch()
    async with open_lab() as lab:
        children = [lab.child("c1", on_start=switch), lab.child("c2")]
        await lab.start(SupervisorSpec("sup", children, intensity=Intensity(4, 3600)))
        switch.hook = fail
        await lab.end("c1")
        assert (await lab.ended("sup")).kind == "shutdown"
        assert switch.calls == 1 + 4
        assert ("stop shutdown", "c2") in lab.log


async def test_one_for_all(autojump_clock: MockClock) -> None:
    """All are new; one incident counts once."""
    async with open_lab() as lab:
        children = [lab.child("c1"), lab.child("c2"), lab.child("c3")]
        sup = await lab.start(SupervisorSpec("sup", children, strategy="one_for_all", intensity=TWO))
        before = await lab.lives("c1", "c2", "c3")
        await lab.end("c2")
        after = await lab.lives("c1", "c2", "c3")
        assert not set(before) & set(after)
        assert await lab.counts(sup) == (3, 3, 0, 3)
        await lab.end("c1")
        assert lab.running("sup")
        await lab.end("c3")
        assert (await lab.ended("sup")).kind == "shutdown"


async def test_one_for_all_escalation(autojump_clock: MockClock) -> None:
    """The group's restart fails until the intensity is used up."""
    switch = Switch()
    async with open_lab() as lab:
        children = [lab.child("c1", on_start=switch), lab.child("c2")]
        spec = SupervisorSpec("sup", children, strategy="one_for_all", intensity=Intensity(4, 3600))
        await lab.start(spec)
        switch.hook = fail
        await lab.end("c1")
        assert (await lab.ended("sup")).kind == "shutdown"
        assert switch.calls == 1 + 4


@may_crash(ValueError)
async def test_one_for_all_other_child_fails_restart(autojump_clock: MockClock) -> None:
    """During the group's restart c1 is up and c2 fails: c1 is stopped, then both are started."""
    switch = Switch()
    async with open_lab() as lab:
        children = [lab.child("c1"), lab.child("c2", on_start=switch)]
        await lab.start(SupervisorSpec("sup", children, strategy="one_for_all", intensity=Intensity(3, 3600)))

        def fail_once(context: object) -> None:
            switch.hook = None
            raise ValueError("once")

        switch.hook = fail_once
        lab.log.clear()
        await lab.end("c1")
        await trio.sleep(1)
        assert lab.log == [
            ("stop crashed", "c1"),
            ("stop shutdown", "c2"),
            ("start", "c1"),
            ("stop shutdown", "c1"),
            ("start", "c1"),
            ("start", "c2"),
        ]


async def test_simple_one_for_one(autojump_clock: MockClock) -> None:
    """Only the crashed dynamic child is new; the third crash in the period stops the supervisor."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic", intensity=TWO))
        for name in ("c1", "c2"):
            await sup.start_child(lab.child(name))
        one, two = await lab.lives("c1", "c2")
        await lab.end("c1")
        assert (await lab.life("c1") != one, await lab.life("c2")) == (True, two)
        await lab.end("c1")
        await lab.end("c1")
        assert (await lab.ended("sup")).kind == "shutdown"


async def test_simple_one_for_one_shutdown(autojump_clock: MockClock) -> None:
    """Two children take 1 s, one would take 5 s and has 2 s: all are stopped at the same time."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        for name, seconds in (("c1", 1), ("c2", 1), ("c3", 5)):
            await sup.start_child(lab.child(name, stop_s=seconds, shutdown=2))
        began = trio.current_time()
        await lab.root.stop_child("sup")
        assert trio.current_time() - began == pytest.approx(2.0)
        kinds = {e.path[-2:]: e.reason.kind for e in lab.recorder.of(Stopped) if e.path.startswith("lab/sup/")}
        assert kinds == {"c1": "shutdown", "c2": "shutdown", "c3": "killed"}


async def test_simple_one_for_one_extra(autojump_clock: MockClock) -> None:
    """A dynamic child's extra start info is kept, also over a restart."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        await sup.start_child(lab.child("c1", info="extra"))
        assert (await sup.child("c1")).info == "extra"
        await lab.end("c1")
        assert (await sup.child("c1")).info == "extra"


async def test_simple_one_for_one_escalation(autojump_clock: MockClock) -> None:
    """A dynamic child's restart fails until the intensity is used up; all end."""
    switch = Switch()
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic", intensity=Intensity(4, 3600)))
        await sup.start_child(lab.child("c1", on_start=switch))
        await sup.start_child(lab.child("c2"))
        switch.hook = fail
        await lab.end("c1")
        assert (await lab.ended("sup")).kind == "shutdown"
        assert switch.calls == 1 + 4
        assert ("stop shutdown", "c2") in lab.log


async def test_simple_one_for_one_corruption(autojump_clock: MockClock) -> None:
    """OTP-16804: after one temporary child died, nothing of later temporary children is retained either."""

    class Argument:
        pass

    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        for name in ("c1", "c2", "c3"):
            argument = Argument()
            seen = weakref.ref(argument)
            spec = ChildSpec(name, functools.partial(Proc, info=argument), restart="temporary", name=name)
            await sup.start_child(spec)
            del argument, spec
            await lab.end(name, "normal")
            await trio.sleep(1)
            gc.collect()
            assert seen() is None
        assert await sup.children() == []


async def test_simple_one_for_one_restart_ignore(autojump_clock: MockClock) -> None:
    """A restart that declines drops the child; the supervisor lives."""
    switch = Switch()
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        await sup.start_child(lab.child("c1", on_start=switch))
        switch.hook = ignore
        await lab.end("c1")
        assert await sup.children() == []
        assert lab.running("sup")


async def test_rest_for_one(autojump_clock: MockClock) -> None:
    """Earlier children go on; later ones are replaced; one incident counts once."""
    async with open_lab() as lab:
        children = [lab.child("c1"), lab.child("c2"), lab.child("c3")]
        await lab.start(SupervisorSpec("sup", children, strategy="rest_for_one", intensity=TWO))
        before = await lab.lives("c1", "c2", "c3")
        await lab.end("c2")
        after = await lab.lives("c1", "c2", "c3")
        assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]
        await lab.end("c3")
        last = await lab.lives("c1", "c2", "c3")
        assert [a == b for a, b in zip(after, last, strict=True)] == [True, True, False]
        await lab.end("c1")
        assert (await lab.ended("sup")).kind == "shutdown"


async def test_rest_for_one_escalation(autojump_clock: MockClock) -> None:
    """The restart fails until the intensity is used up; all end."""
    switch = Switch()
    async with open_lab() as lab:
        children = [lab.child("c1"), lab.child("c2", on_start=switch)]
        spec = SupervisorSpec("sup", children, strategy="rest_for_one", intensity=Intensity(4, 3600))
        await lab.start(spec)
        switch.hook = fail
        await lab.end("c1")
        assert (await lab.ended("sup")).kind == "shutdown"
        assert switch.calls == 1 + 4


@may_crash(ValueError)
async def test_rest_for_one_other_child_fails_restart(autojump_clock: MockClock) -> None:
    """Only the child that is not up yet is tried again; c1, restarted already, is left alone."""
    switch = Switch()
    async with open_lab() as lab:
        children = [lab.child("c1"), lab.child("c2", on_start=switch)]
        await lab.start(SupervisorSpec("sup", children, strategy="rest_for_one", intensity=Intensity(3, 3600)))

        def fail_once(context: object) -> None:
            switch.hook = None
            raise ValueError("once")

        switch.hook = fail_once
        lab.log.clear()
        await lab.end("c1")
        await trio.sleep(1)
        assert lab.log == [
            ("stop crashed", "c1"),
            ("stop shutdown", "c2"),
            ("start", "c1"),
            ("start", "c2"),
        ]
