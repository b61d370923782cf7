"""OTP supervisor_SUITE: how supervisors stop their children (cases 16 to 22)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors import SHUTDOWN, Stopped, SupervisorSpec
from actors.testing import settle
from tests.conformance.lab import EXITS, Boom, End, Lab, open_lab
from tests.crashes import may_crash

pytestmark = may_crash(Boom)


async def _stop_and_collect(lab: Lab) -> dict[str, str]:
    await lab.root.stop_child("sup")
    assert await lab.ended("sup") == SHUTDOWN
    return {e.path.rsplit("/", 1)[1]: e.reason.kind for e in lab.recorder.of(Stopped) if e.path.startswith("lab/sup/")}


async def test_sup_stop_infinity(autojump_clock: MockClock) -> None:
    """Infinity is allowed for workers and supervisors; all end by shutdown, however long it takes."""
    async with open_lab() as lab:
        children = [lab.child("c1", shutdown="infinity"), lab.child("c2", shutdown="infinity", stop_s=1000)]
        await lab.start(SupervisorSpec("sup", [*children, SupervisorSpec("c3")]))
        assert await _stop_and_collect(lab) == {"c1": "shutdown", "c2": "shutdown", "c3": "shutdown"}


async def test_sup_stop_timeout(autojump_clock: MockClock) -> None:
    """The obedient child ends by shutdown; the one that sleeps is killed after its time."""
    async with open_lab() as lab:
        children = [lab.child("c1", shutdown=1), lab.child("c2", shutdown=1, stop_s=10)]
        await lab.start(SupervisorSpec("sup", children))
        began = trio.current_time()
        assert await _stop_and_collect(lab) == {"c1": "shutdown", "c2": "killed"}
        assert trio.current_time() - began == pytest.approx(1.0)


async def test_sup_stop_timeout_dynamic(autojump_clock: MockClock) -> None:
    """The same for dynamic children."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        await sup.start_child(lab.child("c1", shutdown=1))
        await sup.start_child(lab.child("c2", shutdown=1, stop_s=10))
        assert await _stop_and_collect(lab) == {"c1": "shutdown", "c2": "killed"}


async def test_sup_stop_brutal_kill(autojump_clock: MockClock) -> None:
    """A brutal_kill child is killed at once, unasked."""
    async with open_lab() as lab:
        children = [lab.child("c1"), lab.child("c2", shutdown="brutal_kill", stop_s=10)]
        await lab.start(SupervisorSpec("sup", children))
        began = trio.current_time()
        assert await _stop_and_collect(lab) == {"c1": "shutdown", "c2": "killed"}
        assert trio.current_time() == began
        assert [what for what, who in lab.log if who == "c2"] == ["start"]


async def test_sup_stop_brutal_kill_dynamic(autojump_clock: MockClock) -> None:
    """The same for ten dynamic children."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        for n in range(10):
            await sup.start_child(lab.child(f"c{n}", shutdown="brutal_kill", stop_s=10))
        began = trio.current_time()
        assert await _stop_and_collect(lab) == {f"c{n}": "killed" for n in range(10)}
        assert trio.current_time() == began


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("exit", ["normal", "shutdown", "shutdown_x", "abnormal"])
@pytest.mark.parametrize("strategy", ["one_for_one", "dynamic"])
async def test_sup_stop_race(autojump_clock: MockClock, restart: str, exit: str, strategy: str) -> None:
    """Children that end by themselves while the supervisor stops: it completes, and restarts nothing."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy=strategy))  # type: ignore[arg-type]
        for n in range(3):
            await sup.start_child(lab.child(f"c{n}", restart=restart))
        await settle()
        starts = len([what for what, _ in lab.log if what == "start"])
        for n in range(3):
            lab.ref(f"c{n}").tell(End(EXITS[exit]))
        await lab.root.stop_child("sup")
        assert await lab.ended("sup") == SHUTDOWN
        await trio.sleep(60)
        assert len([what for what, _ in lab.log if what == "start"]) == starts


async def test_sup_stop_non_shutdown_exit_dynamic(autojump_clock: MockClock) -> None:
    """Dynamic children that end for other reasons when asked: the supervisor still ends by shutdown."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        for name, reason in EXITS.items():
            await sup.start_child(lab.child(name, restart="temporary"))
            lab.ref(name).tell(End(reason))
        await sup.start_child(lab.child("last", shutdown=1, stop_s=5))
        await lab.root.stop_child("sup")
        assert await lab.ended("sup") == SHUTDOWN
