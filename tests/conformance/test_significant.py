"""OTP supervisor_SUITE: significant children and auto_shutdown (cases 57 to 63)."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from actors import ChildSpec, Intensity, InvalidSpec, SupervisorSpec
from tests.conformance.lab import Boom, Proc, open_lab
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

MODES = ["never", "any_significant", "all_significant"]
EXIT_KINDS = ["normal", "shutdown", "shutdown_x", "abnormal"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exit", EXIT_KINDS)
async def test_nonsignificant_temporary(autojump_clock: MockClock, exit: str, mode: Any) -> None:
    """A temporary child that is not significant never shuts the supervisor down."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [lab.child("c1", restart="temporary")], auto_shutdown=mode))
        await lab.end("c1", exit)
        assert lab.running("sup")
        assert await sup.children() == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exit", EXIT_KINDS)
async def test_nonsignificant_transient(autojump_clock: MockClock, exit: str, mode: Any) -> None:
    """A transient child that is not significant never shuts the supervisor down."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [lab.child("c1", restart="transient")], auto_shutdown=mode))
        await lab.end("c1", exit)
        assert lab.running("sup")
        assert await lab.states(sup) == {"c1": "running" if exit == "abnormal" else "stopped"}


@pytest.mark.parametrize("exit", EXIT_KINDS)
@pytest.mark.parametrize("mode", MODES[1:])
async def test_significant_temporary(autojump_clock: MockClock, exit: str, mode: Any) -> None:
    """Any end of its own triggers; all_significant waits for the last; a stop by the supervisor does not."""
    async with open_lab() as lab:
        children = [lab.child(name, restart="temporary", significant=True) for name in ("c1", "c2", "c3")]
        sup = await lab.start(SupervisorSpec("sup", [*children, lab.child("other")], auto_shutdown=mode))
        await sup.stop_child("c1")
        assert lab.running("sup")
        await lab.end("c2", exit)
        if mode == "all_significant":
            assert lab.running("sup")
            await lab.end("c3", exit)
        assert (await lab.ended("sup")).kind == "shutdown"
        assert not lab.ref("other").alive


@pytest.mark.parametrize("exit", [*EXIT_KINDS, "kill"])
@pytest.mark.parametrize("mode", MODES[1:])
async def test_significant_transient(autojump_clock: MockClock, exit: str, mode: Any) -> None:
    """Only an end without a crash triggers; killed and crashed restart."""
    async with open_lab() as lab:
        children = [lab.child(name, restart="transient", significant=True) for name in ("c1", "c2", "c3")]
        sup = await lab.start(SupervisorSpec("sup", children, auto_shutdown=mode, intensity=Intensity(5, 5)))
        await sup.stop_child("c1")
        assert lab.running("sup")
        await lab.end("c2", exit)
        if exit in ("abnormal", "kill"):
            assert await lab.states(sup) == {"c1": "stopped", "c2": "running", "c3": "running"}
            return
        if mode == "all_significant":
            assert lab.running("sup")
            await lab.end("c3", exit)
        assert (await lab.ended("sup")).kind == "shutdown"


async def test_significant_simple(autojump_clock: MockClock) -> None:
    """Not with dynamic children."""
    for mode in MODES[1:]:
        with pytest.raises(InvalidSpec):
            SupervisorSpec("sup", strategy="dynamic", auto_shutdown=mode)  # type: ignore[arg-type]
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        with pytest.raises(InvalidSpec):
            await sup.start_child(ChildSpec("c1", Proc, restart="temporary", significant=True))


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("mode", MODES[1:])
async def test_significant_bystander(autojump_clock: MockClock, strategy: Any, mode: Any) -> None:
    """Being taken down by a sibling's group restart does not count."""
    async with open_lab() as lab:
        children = [
            lab.child("c1"),
            lab.child("c2", restart="transient", significant=True),
            lab.child("c3", restart="temporary", significant=True),
        ]
        sup = await lab.start(SupervisorSpec("sup", children, strategy=strategy, auto_shutdown=mode))
        await lab.end("c1")
        assert lab.running("sup")
        left = {"c1": "running", "c2": "running"}
        assert await lab.states(sup) == ({**left, "c3": "running"} if strategy == "one_for_one" else left)


@pytest.mark.parametrize("significant", [True, False])
async def test_significant_escalation(autojump_clock: MockClock, significant: bool) -> None:
    """B's automatic shutdown triggers A's only when B is significant to A."""
    async with open_lab() as lab:
        leaf = lab.child("leaf", restart="transient", significant=True)
        b = SupervisorSpec("b", [leaf], auto_shutdown="any_significant", restart="transient", significant=significant)
        a = SupervisorSpec("a", [b, lab.child("other")], auto_shutdown="any_significant")
        sup = await lab.start(a)
        await lab.end("leaf", "normal")
        if significant:
            assert (await lab.ended("a")).kind == "shutdown"
        else:
            assert await lab.states(sup) == {"b": "stopped", "other": "running"}
