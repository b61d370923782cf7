"""OTP supervisor_SUITE: how supervisors and children start, and what a specification may say (cases 1 to 15)."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from actors import (
    SHUTDOWN,
    BadReturn,
    ChildSpec,
    InvalidSpec,
    NotFound,
    StartFailed,
    Stopped,
    SupervisorSpec,
    open_system,
)
from tests.conformance.lab import Boom, Proc, Switch, fail, ignore, open_lab
from tests.crashes import may_crash

pytestmark = may_crash(Boom)


async def test_sup_start_normal(autojump_clock: MockClock) -> None:
    """Starts with no children; told to stop, it ends by shutdown."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup"))
        assert await lab.counts(sup) == (0, 0, 0, 0)
        await lab.root.stop_child("sup")
        assert (await lab.ended("sup")).kind == "shutdown"


async def test_sup_start_ignore_init(autojump_clock: MockClock) -> None:
    """A supervisor whose init declines is not started, and nothing ends."""
    async with open_lab() as lab:
        assert await lab.root.start_child(ChildSpec("sup", lambda: None, kind="supervisor")) is None
        assert await lab.root.children() == []
        assert lab.recorder.events == []


async def test_sup_start_ignore_child(autojump_clock: MockClock) -> None:
    """A permanent child that declines stays listed without running."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup"))
        assert await sup.start_child(lab.child("c1", on_start=ignore)) is None
        await sup.start_child(lab.child("c2"))
        assert await lab.states(sup) == {"c1": "stopped", "c2": "running"}
        assert await lab.counts(sup) == (2, 1, 0, 2)


async def test_sup_start_ignore_temporary_child(autojump_clock: MockClock) -> None:
    """A temporary child of the initial list that declines is not kept."""
    async with open_lab() as lab:
        children = [lab.child("c1", restart="temporary", on_start=ignore), lab.child("c2")]
        sup = await lab.start(SupervisorSpec("sup", children))
        assert await lab.states(sup) == {"c2": "running"}
        assert await lab.counts(sup) == (1, 1, 0, 1)


async def test_sup_start_ignore_temporary_child_start_child(autojump_clock: MockClock) -> None:
    """The same through start_child: fine, and nothing is kept."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup"))
        assert await sup.start_child(lab.child("c1", restart="temporary", on_start=ignore)) is None
        await sup.start_child(lab.child("c2", restart="temporary"))
        assert await lab.counts(sup) == (1, 1, 0, 1)


async def test_sup_start_ignore_temporary_child_start_child_simple(autojump_clock: MockClock) -> None:
    """The same in a dynamic supervisor."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        assert await sup.start_child(lab.child("c1", restart="temporary", on_start=ignore)) is None
        await sup.start_child(lab.child("c2", restart="temporary"))
        assert await lab.counts(sup) == (1, 1, 0, 1)


async def test_sup_start_ignore_permanent_child_start_child_simple(autojump_clock: MockClock) -> None:
    """A permanent child that declines is not kept by a dynamic supervisor, which later stops without trouble."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        assert await sup.start_child(lab.child("c1", on_start=ignore)) is None
        await sup.start_child(lab.child("c2"))
        assert await lab.counts(sup) == (1, 1, 0, 1)
        await lab.root.stop_child("sup")
        assert await lab.ended("sup") == SHUTDOWN


@may_crash(BadReturn)
async def test_sup_start_error_return(autojump_clock: MockClock) -> None:
    """An init that returns nonsense is a failed start, and nothing else ends."""
    async with open_lab() as lab:
        with pytest.raises(StartFailed) as caught:
            await lab.root.start_child(ChildSpec("sup", lambda: 42, kind="supervisor"))  # type: ignore[arg-type, return-value]
        assert isinstance(caught.value.__cause__, BadReturn)
        assert lab.recorder.of(Stopped) == []


async def test_sup_start_fail(autojump_clock: MockClock) -> None:
    """An init that raises is a failed start with that error, and nothing else ends."""

    def init() -> SupervisorSpec:
        raise Boom("init")

    async with open_lab() as lab:
        with pytest.raises(StartFailed) as caught:
            await lab.root.start_child(ChildSpec("sup", init, kind="supervisor"))
        assert isinstance(caught.value.__cause__, Boom)
        assert lab.recorder.of(Stopped) == []
        assert await lab.root.children() == []


async def test_sup_start_child_returns_error(autojump_clock: MockClock) -> None:
    """start_child of a child that fails raises the reason and adds nothing."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup"))
        with pytest.raises(StartFailed) as caught:
            await sup.start_child(lab.child("c1", on_start=fail))
        assert isinstance(caught.value.__cause__, Boom)
        assert await lab.counts(sup) == (0, 0, 0, 0)


async def test_sup_start_restart_child_returns_error(autojump_clock: MockClock) -> None:
    """A failed restart_child raises the reason; the child stays listed and does not run."""
    switch = Switch()
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", [lab.child("c1", on_start=switch)]))
        await sup.stop_child("c1")
        switch.hook = fail
        with pytest.raises(StartFailed):
            await sup.restart_child("c1")
        assert await lab.states(sup) == {"c1": "stopped"}
        switch.hook = None
        await sup.restart_child("c1")
        assert await lab.states(sup) == {"c1": "running"}


async def test_sup_start_child_returns_error_simple(autojump_clock: MockClock) -> None:
    """The same in a dynamic supervisor: the list stays empty."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        with pytest.raises(StartFailed):
            await sup.start_child(lab.child("c1", on_start=fail))
        assert await sup.children() == []


async def test_sup_start_map(autojump_clock: MockClock) -> None:
    """The defaults of a specification; an unknown id is not found."""
    async with open_lab() as lab:
        inner = SupervisorSpec("c2")
        sup = await lab.start(SupervisorSpec("sup", [ChildSpec("c1", Proc), inner]))
        worker, supervisor = await sup.spec("c1"), await sup.spec("c2")
        assert (worker.restart, worker.kind, worker.shutdown) == ("permanent", "worker", 5.0)
        assert (worker.significant, worker.name, worker.backoff) == (False, None, None)
        assert (supervisor.restart, supervisor.kind, supervisor.shutdown) == ("permanent", "supervisor", "infinity")
        assert ChildSpec("c3", lambda: inner, kind="supervisor").shutdown == "infinity"
        with pytest.raises(NotFound):
            await sup.spec("c3")
        assert SupervisorSpec("s").strategy == "one_for_one"


async def test_sup_start_map_simple(autojump_clock: MockClock) -> None:
    """A dynamic child's specification can be read while it lives; a foreign child is not found."""
    async with open_lab() as lab:
        sup = await lab.start(SupervisorSpec("sup", strategy="dynamic"))
        other = await lab.start(SupervisorSpec("other", strategy="dynamic"))
        spec = lab.child("c1", restart="transient")
        await sup.start_child(spec)
        await other.start_child(lab.child("c2"))
        assert await sup.spec("c1") is spec
        with pytest.raises(NotFound):
            await sup.spec("c2")


async def test_sup_start_map_faulty_specs(autojump_clock: MockClock) -> None:
    """A missing id, a missing start, an unknown field and a wrong value are named in the error."""
    with pytest.raises(TypeError, match="start"):
        ChildSpec("c1")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="id"):
        ChildSpec(start=Proc)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        ChildSpec("c1", Proc, colour="red")  # type: ignore[call-arg]
    with pytest.raises(InvalidSpec, match="children"):
        SupervisorSpec("sup", [42])  # type: ignore[list-item]
    async with open_lab() as lab:
        assert await lab.root.children() == []


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


async def test_faulty_application_shutdown(autojump_clock: MockClock) -> None:
    """The error of a failed root start carries the innermost cause with its stack."""
    leaf = ChildSpec("leaf", lambda: Proc(on_start=fail))
    tree = SupervisorSpec("root", [SupervisorSpec("middle", [SupervisorSpec("inner", [leaf])])])
    with pytest.raises(StartFailed) as caught:
        async with open_system(tree):
            raise AssertionError("the block must not run")  # pragma: no cover
    cause = _innermost(caught.value)
    assert isinstance(cause, Boom)
    assert cause.__traceback__ is not None
    assert caught.value.child_id == "root/middle/inner/leaf"
