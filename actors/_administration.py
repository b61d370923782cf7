"""Requests to a running supervisor: list, start, stop, restart and delete its children."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, final

import msgspec

from actors._errors import NotAllowed, NotFound
from actors._exits import ExitReason
from actors._interrupts import protect
from actors._refs import ActorRef, mailbox_of
from actors._specs import ChildSpec, Kind, Restart, SupervisorSpec, child_of, require_fits
from actors._supervision import Child, ChildStatus, DeleteChild, RestartChild, StartChild, StopChild
from actors._worker import Worker

if TYPE_CHECKING:
    from actors._supervisor import Supervisor


class ChildInfo(msgspec.Struct, frozen=True):
    """One child as its supervisor lists it."""

    id: str
    path: str
    kind: Kind
    restart: Restart
    state: str
    """stopped, starting, running, exited, stopping, restarting or disabled."""
    ref: ActorRef[Any] | None
    """None for a supervisor and for a child that does not run."""
    restarts: int
    last_exit: ExitReason | None
    info: object
    """What it gave to `context.ready`."""


class ChildCount(msgspec.Struct, frozen=True):
    """Specified children, those that run, and how many are specified as supervisors and workers."""

    specs: int
    active: int
    supervisors: int
    workers: int


@final
class SupervisorRef:
    """Administers a supervisor. A reference by name resolves at each use.

    Every method raises SupervisorDown when there is none, and CallCycle when the request would wait for whoever
    makes it. Cancelling a request that waits to start a child undoes the start.
    """

    def __init__(self, resolve: Callable[[], Supervisor]) -> None:
        self._resolve = resolve

    async def start_child(self, spec: ChildSpec | SupervisorSpec) -> ActorRef[Any] | None:
        """Add a child and start it; returns once its start is done. None for a supervisor or an ignored start.

        Raises StartFailed (the child is not kept), AlreadyStarted, AlreadyPresent, MaxChildren, InvalidSpec.
        """
        supervisor = self._resolve()
        child = child_of(spec)
        require_fits(child, supervisor.spec)
        await supervisor.ask(child.id, lambda request: StartChild(request, child))
        return supervisor.ref_of(child.id)

    async def stop_child(self, child: str | ActorRef[Any]) -> None:
        """Stop a child, by id; in a dynamic supervisor also by reference. Stopping a stopped one is fine.

        Raises NotFound, and NotAllowed for a reference to a static child.
        """
        supervisor = self._resolve()
        child_id = child if isinstance(child, str) else _id_of(supervisor, child)
        if child_id is not None:
            supervisor.refuse_own_end(child_id)
            await supervisor.ask(child_id, lambda request: StopChild(request, child_id), stops=True)

    async def restart_child(self, child_id: str) -> ActorRef[Any] | None:
        """Start a stopped or disabled child again. Raises NotFound, ChildRunning, ChildRestarting, StartFailed (the
        child stays listed), NotAllowed (a dynamic child that is not disabled)."""
        supervisor = self._resolve()
        supervisor.refuse_own_end(child_id)
        await supervisor.ask(child_id, lambda request: RestartChild(request, child_id))
        return supervisor.ref_of(child_id)

    async def delete_child(self, child_id: str) -> None:
        """Forget a stopped or disabled child. Raises NotFound, ChildRunning, ChildRestarting, NotAllowed (a dynamic
        child that is not disabled)."""
        supervisor = self._resolve()
        supervisor.refuse_own_end(child_id)
        await supervisor.ask(child_id, lambda request: DeleteChild(request, child_id))

    async def children(self) -> list[ChildInfo]:
        """Return all children, the newest first."""
        supervisor = self._resolve()
        return [_info(supervisor, child) for child in reversed(supervisor.state.children.values())]

    async def child(self, child_id: str) -> ChildInfo:
        """Return one child. Raises NotFound."""
        supervisor = self._resolve()
        return _info(supervisor, _known(supervisor, child_id))

    async def spec(self, child_id: str) -> ChildSpec:
        """Return the specification of one child, defaults filled in. Raises NotFound."""
        return _known(self._resolve(), child_id).spec

    async def count(self) -> ChildCount:
        """Return how many children there are."""
        children = self._resolve().state.children.values()
        supervisors = sum(child.spec.kind == "supervisor" for child in children)
        alive = (ChildStatus.STARTING, ChildStatus.RUNNING, ChildStatus.STOPPING)
        active = sum(child.status in alive and not child.in_restart for child in children)
        return ChildCount(len(children), active, supervisors, len(children) - supervisors)


def _known(supervisor: Supervisor, child_id: str) -> Child:
    child = supervisor.state.children.get(child_id)
    if child is None:
        _not_found(supervisor, child_id)
    return child


def _not_found(supervisor: Supervisor, what: str) -> NoReturn:
    raise NotFound(f"{supervisor.path!r} has no child {what!r}")


def _id_of(supervisor: Supervisor, ref: ActorRef[Any]) -> str | None:
    """Return the id of the dynamic child behind `ref`; None when it was deleted. Raises NotFound for a foreign one."""
    if not supervisor.state.dynamic:
        raise NotAllowed(f"{supervisor.path!r} stops its children by id")
    mailbox = mailbox_of(ref)
    owner = mailbox.owner
    if owner is None:  # it has ended, or is disabled
        slots = supervisor.slots
        named = (child_id for child_id, slot in slots.items() if isinstance(slot, Worker) and slot.mailbox is mailbox)
        unnamed = mailbox.name.removeprefix(f"{supervisor.path}/")
        return unnamed if unnamed in slots else next(named, None)
    if owner.supervisor is not supervisor:
        _not_found(supervisor, owner.path)
    return owner.child.spec.id


def _info(supervisor: Supervisor, child: Child) -> ChildInfo:
    spec, slot = child.spec, supervisor.slots.get(child.spec.id)
    return ChildInfo(
        spec.id,
        supervisor.path_of(spec.id),
        spec.kind,
        spec.restart,
        state_of(child),
        supervisor.ref_of(spec.id),
        child.restarts,
        child.last_exit,
        slot.info if isinstance(slot, Worker) else None,
    )


def state_of(child: Child) -> str:
    """Return the state that is shown for a child: a restart under way is one, also while its start runs."""
    return ChildStatus.RESTARTING.value if child.in_restart else child.status.value


protect(globals())
