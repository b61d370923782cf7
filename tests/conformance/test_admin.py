"""OTP supervisor_SUITE: administration, validation, flags (cases 23 to 29)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    AlreadyPresent,
    AlreadyStarted,
    ChildRunning,
    ChildSpec,
    Intensity,
    InvalidSpec,
    NotAllowed,
    NotFound,
    SupervisorDown,
    SupervisorSpec,
)
from tests.conformance.lab import Boom, Proc, open_lab
from tests.crashes import may_crash

pytestmark = may_crash(Boom)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_child_adm(autojump_clock: MockClock, strategy: str) -> None:
    """start, stop, restart and delete of a static child, each in each state."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [lab.child("c1")], strategy=strategy))  # type: ignore[arg-type]
        with pytest.raises(AlreadyStarted) as caught:
            await sup.start_child(lab.child("c1"))
        assert caught.value.ref == lab.ref("c1")
        with pytest.raises(NotFound):
            await sup.stop_child("c9")
        await sup.stop_child("c1")
        await sup.stop_child("c1")
        assert await lab.states(sup) == {"c1": "stopped"}
        with pytest.raises(AlreadyPresent):
            await sup.start_child(lab.child("c1"))
        await sup.restart_child("c1")
        with pytest.raises(ChildRunning):
            await sup.restart_child("c1")
        with pytest.raises(ChildRunning):
            await sup.delete_child("c1")
        with pytest.raises(NotAllowed):
            await sup.stop_child(lab.ref("c1"))
        await sup.stop_child("c1")
        await sup.delete_child("c1")
        for ask in (sup.restart_child, sup.delete_child, sup.stop_child):
            with pytest.raises(NotFound):
                await ask("c1")
        assert await lab.counts(sup) == (0, 0, 0, 0)
        await sup.start_child(lab.child("c1"))
        assert await lab.counts(sup) == (1, 1, 0, 1)
        nobody = lab.registry.supervisor("nobody")
        for request in (nobody.children(), nobody.count(), nobody.stop_child("c1"), nobody.start_child(lab.child("x"))):
            with pytest.raises(SupervisorDown):
                await request


async def test_child_adm_simple(autojump_clock: MockClock) -> None:
    """A dynamic child cannot be restarted or deleted; stopping by reference works, also when it is dead; a foreign
    one is not found and survives. Adapted: our dynamic children have ids, so that stopping by id works too."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        other = await lab.start(SupervisorSpec("other", strategy="dynamic"))
        first = await sup.start_child(lab.child("c1"))
        foreign = await other.start_child(lab.child("c2"))
        assert first is not None
        assert foreign is not None
        with pytest.raises(NotAllowed):
            await sup.restart_child("c1")
        with pytest.raises(NotAllowed):
            await sup.delete_child("c1")
        with pytest.raises(NotFound):
            await sup.stop_child(foreign)
        assert await lab.life("c2")
        await sup.stop_child(first)
        await sup.stop_child(first)
        assert await lab.counts(sup) == (0, 0, 0, 0)
        await sup.start_child(lab.child("c3"))
        await sup.stop_child("c3")
        assert await lab.counts(sup) == (0, 0, 0, 0)


async def test_extra_return(autojump_clock: MockClock) -> None:
    """What a start gives besides itself is there after start, restart by request and restart by itself."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [lab.child("c1", info=("extra", 1))]))
        assert (await sup.child("c1")).info == ("extra", 1)
        await sup.stop_child("c1")
        await sup.restart_child("c1")
        assert (await sup.child("c1")).info == ("extra", 1)
        before = await lab.life("c1")
        await lab.end("c1")
        assert await lab.life("c1") != before
        assert (await sup.child("c1")).info == ("extra", 1)
        await sup.start_child(lab.child("c2", info="more"))
        assert (await sup.child("c2")).info == "more"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", 1),
        ("id", "a/b"),
        ("start", "not callable"),
        ("restart", "prmanent"),
        ("shutdown", -1),
        ("shutdown", math.inf),
        ("shutdown", "soon"),
        ("shutdown", True),
        ("kind", "wrker"),
        ("name", ""),
        ("significant", "yes"),
        ("backoff", 3),
        ("intensity", 3),
        ("on_exceed", "explode"),
    ],
)
def test_child_specs_bad_fields(field: str, value: Any) -> None:
    """Every bad field has an error of its own."""
    good: dict[str, Any] = {"id": "c1", "start": Proc}
    with pytest.raises(InvalidSpec) as caught:
        ChildSpec(**{**good, field: value})
    assert caught.value.field == field


async def test_child_specs(autojump_clock: MockClock) -> None:
    """All good combinations pass and start; a duplicate id does not; a dynamic supervisor takes no initial list."""
    combinations = list(
        itertools.product(
            ["permanent", "transient", "temporary"],
            ["infinity", "brutal_kill", 0, 0.5, 5, 100],
            ["worker", "supervisor"],
        )
    )
    children = [
        ChildSpec(
            f"c{n}",
            Proc if kind == "worker" else lambda: SupervisorSpec("inner"),
            restart=restart,  # type: ignore[arg-type]
            shutdown=shutdown,  # type: ignore[arg-type]
            kind=kind,  # type: ignore[arg-type]
        )
        for n, (restart, shutdown, kind) in enumerate(combinations)
    ]
    with pytest.raises(InvalidSpec, match="duplicate"):
        SupervisorSpec("sup", [*children, ChildSpec("c0", Proc)])
    with pytest.raises(InvalidSpec, match="starts empty"):
        SupervisorSpec("sup", children[:1], strategy="dynamic")
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", children))
        assert await lab.counts(sup) == (36, 36, 18, 18)


RESTARTS = ["permanent", "transient", "temporary"]


@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("significant", [True, False])
@pytest.mark.parametrize("auto_shutdown", ["never", "any_significant", "all_significant"])
async def test_child_specs_map(autojump_clock: MockClock, restart: Any, significant: bool, auto_shutdown: Any) -> None:
    """Significant and permanent, and significant under `never`, are bad combinations; all others are fine."""

    def make() -> SupervisorSpec:
        child = ChildSpec("c1", Proc, restart=restart, significant=significant)
        return SupervisorSpec("sup", [child], auto_shutdown=auto_shutdown)

    async with open_lab() as lab:
        if significant and (restart == "permanent" or auto_shutdown == "never"):
            with pytest.raises(InvalidSpec) as caught:
                make()
            assert caught.value.field == "significant"
            if restart != "permanent":
                sup = await lab.start(SupervisorSpec("sup"))
                with pytest.raises(InvalidSpec):
                    await sup.start_child(ChildSpec("c1", Proc, restart=restart, significant=True))
        else:
            sup = await lab.start(make())
            assert await lab.counts(sup) == (1, 1, 0, 1)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("strategy", lambda: SupervisorSpec("s", strategy="none_for_one")),  # type: ignore[arg-type]
        ("restarts", lambda: Intensity(math.inf, 1)),  # type: ignore[arg-type]
        ("restarts", lambda: Intensity(-1, 1)),
        ("restarts", lambda: Intensity(True, 1)),
        ("period_s", lambda: Intensity(1, 0)),
        ("period_s", lambda: Intensity(1, math.inf)),
        ("period_s", lambda: Intensity(1, "1")),  # type: ignore[arg-type]
        ("intensity", lambda: SupervisorSpec("s", intensity=3)),  # type: ignore[arg-type]
        ("auto_shutdown", lambda: SupervisorSpec("s", auto_shutdown="sometimes")),  # type: ignore[arg-type]
        ("auto_shutdown", lambda: SupervisorSpec("s", strategy="dynamic", auto_shutdown="any_significant")),
        ("max_children", lambda: SupervisorSpec("s", strategy="dynamic", max_children=-1)),
        ("max_children", lambda: SupervisorSpec("s", max_children=1)),
        ("id", lambda: SupervisorSpec("")),
        ("shutdown", lambda: SupervisorSpec("s", shutdown="later")),  # type: ignore[arg-type]
        ("restart", lambda: SupervisorSpec("s", restart="often")),  # type: ignore[arg-type]
    ],
)
def test_sup_flags(field: str, make: Any) -> None:
    """Every wrong flag is refused by its name."""
    with pytest.raises(InvalidSpec) as caught:
        make()
    assert caught.value.field == field


async def test_multiple_restarts(autojump_clock: MockClock) -> None:
    """At most one restart in a second: four crashes 2.1 s apart never exceed it."""
    async with open_lab() as lab:
        await lab.start(SupervisorSpec("sup", [lab.child("c1")], intensity=Intensity(1, 1)))
        seen = {await lab.life("c1")}
        for _ in range(4):
            await lab.end("c1")
            seen.add(await lab.life("c1"))
            await trio.sleep(2.1)
        assert len(seen) == 5
        assert lab.running("sup")
