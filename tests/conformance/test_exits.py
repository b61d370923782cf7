"""OTP supervisor_SUITE: ends by normal, shutdown and crash for each restart kind; robustness (cases 44 to 56)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import ChildSpec, Context, Intensity, Job, Restarted, Started, SupervisorSpec
from actors.testing import settle
from tests.conformance.lab import Boom, Lab, open_lab
from tests.crashes import may_crash

pytestmark = may_crash(Boom)


async def _one(lab: Lab, restart: Any, exit: str) -> tuple[dict[str, str], tuple[int, int, int, int], bool]:
    """A child of this kind ends so: states, counts, whether it is a new life."""
    sup = await lab.start(SupervisorSpec("sup", [lab.child("c1", restart=restart)]))
    before = await lab.life("c1")
    await lab.end("c1", exit)
    new = lab.ref("c1").alive and await lab.life("c1") != before
    return await lab.states(sup), await lab.counts(sup), new


async def test_external_start_no_progress_log(autojump_clock: MockClock) -> None:
    """A child added at run time is reported once, as itself. Adapted: OTP tells two log levels apart; we have one
    event for each start."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup"))
        lab.recorder.events.clear()
        await sup.start_child(lab.child("c1"))
        assert [(type(e), e.path) for e in lab.recorder.of(Started)] == [(Started, "lab/sup/c1")]
        assert len(lab.recorder.events) == 1


async def test_permanent_normal(autojump_clock: MockClock) -> None:
    """A permanent child is restarted after a normal end."""
    async with open_lab() as lab:
        assert await _one(lab, "permanent", "normal") == ({"c1": "running"}, (1, 1, 0, 1), True)


async def test_transient_normal(autojump_clock: MockClock) -> None:
    """A transient child that ends normally stays listed, stopped."""
    async with open_lab() as lab:
        assert await _one(lab, "transient", "normal") == ({"c1": "stopped"}, (1, 0, 0, 1), False)


async def test_temporary_normal(autojump_clock: MockClock) -> None:
    """A temporary child that ends normally disappears."""
    async with open_lab() as lab:
        assert await _one(lab, "temporary", "normal") == ({}, (0, 0, 0, 0), False)


@pytest.mark.parametrize("exit", ["shutdown", "shutdown_x"])
async def test_permanent_shutdown(autojump_clock: MockClock, exit: str) -> None:
    """A permanent child is restarted after shutdown, with or without a detail."""
    async with open_lab() as lab:
        assert await _one(lab, "permanent", exit) == ({"c1": "running"}, (1, 1, 0, 1), True)


@pytest.mark.parametrize("exit", ["shutdown", "shutdown_x"])
async def test_transient_shutdown(autojump_clock: MockClock, exit: str) -> None:
    """A transient child is not restarted after shutdown; by hand it can be."""
    async with open_lab() as lab:
        assert await _one(lab, "transient", exit) == ({"c1": "stopped"}, (1, 0, 0, 1), False)
        await lab.registry.supervisor("sup").restart_child("c1")
        assert await lab.life("c1")


@pytest.mark.parametrize("exit", ["shutdown", "shutdown_x"])
async def test_temporary_shutdown(autojump_clock: MockClock, exit: str) -> None:
    """A temporary child is gone after shutdown; its id can be used again."""
    async with open_lab() as lab:
        assert await _one(lab, "temporary", exit) == ({}, (0, 0, 0, 0), False)
        await lab.registry.supervisor("sup").start_child(lab.child("c1", restart="temporary"))
        assert await lab.life("c1")


@pytest.mark.parametrize("exit", ["abnormal", "kill"])
async def test_permanent_abnormal(autojump_clock: MockClock, exit: str) -> None:
    """A permanent child is restarted after a crash."""
    async with open_lab() as lab:
        assert await _one(lab, "permanent", exit) == ({"c1": "running"}, (1, 1, 0, 1), True)


@pytest.mark.parametrize("exit", ["abnormal", "kill"])
async def test_transient_abnormal(autojump_clock: MockClock, exit: str) -> None:
    """A transient child is restarted after a crash."""
    async with open_lab() as lab:
        assert await _one(lab, "transient", exit) == ({"c1": "running"}, (1, 1, 0, 1), True)


@pytest.mark.parametrize("exit", ["abnormal", "kill"])
async def test_temporary_abnormal(autojump_clock: MockClock, exit: str) -> None:
    """A temporary child is gone after a crash."""
    async with open_lab() as lab:
        assert await _one(lab, "temporary", exit) == ({}, (0, 0, 0, 0), False)


async def test_child_unlink(autojump_clock: MockClock) -> None:
    """A child that withdraws from its supervisor cannot hang it. Adapted: there are no links to cut; the nearest is a
    job that keeps on working after it was asked to stop, and is killed when its time is over."""

    async def stubborn(context: Context) -> None:
        context.ready()
        with context.cleanup():
            await trio.sleep_forever()

    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [ChildSpec("c1", lambda: Job(stubborn), shutdown=1)]))
        with trio.fail_after(2):
            await sup.stop_child("c1")
        assert await lab.states(sup) == {"c1": "stopped"}


async def test_tree(autojump_clock: MockClock) -> None:
    """Three levels: only the dead leaf is restarted; when the intensity below is exceeded, the subtree is restarted
    with its static children and without its dynamic ones."""
    async with open_lab() as lab:
        inner = SupervisorSpec("inner", [lab.child("c3")], intensity=Intensity(1, 3600), name="inner")
        outer = SupervisorSpec("sup", [lab.child("c1"), inner], intensity=Intensity(3, 3600))
        await lab.start(outer)
        await lab.registry.supervisor("inner").start_child(lab.child("c4"))
        pool = SupervisorSpec("pool", strategy="dynamic", name="pool", intensity=Intensity(0, 1))
        await lab.registry.supervisor("inner").start_child(pool)
        await lab.registry.supervisor("pool").start_child(lab.child("c5"))
        one, three, four, five = await lab.lives("c1", "c3", "c4", "c5")
        await lab.end("c3")
        assert await lab.life("c3") != three
        assert await lab.lives("c1", "c4", "c5") == [one, four, five]
        await lab.end("c5")
        await settle()
        assert await lab.life("c1") == one
        assert await lab.states(lab.registry.supervisor("inner")) == {"c3": "running"}
        assert not lab.ref("c4").alive
        assert not lab.ref("c5").alive
        assert [e.path for e in lab.recorder.of(Restarted)] == ["lab/sup/inner/c3", "lab/sup/inner"]
