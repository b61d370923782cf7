"""A running tree: opened, listed, stopped."""

from __future__ import annotations

import contextvars
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from threading import get_ident
from types import TracebackType
from typing import TypeVarTuple, final

import msgspec
import trio

from actors._administration import state_of
from actors._crashes import CrashLog, witnesses
from actors._errors import ActorsError, CallCycle, StartFailed, SystemFailed, WrongThread
from actors._events import Crashed, EventStream, GaveUp, StartSlow
from actors._exits import KILLED, SHUTDOWN, ExitReason
from actors._interrupts import interrupt_in, protect
from actors._refs import Registry
from actors._specs import Kind, SupervisorSpec, require_seconds
from actors._supervision import ChildStatus, Kill, Shutdown
from actors._supervisor import Supervisor
from actors._timers import Timers
from actors._waits import asker, attached
from actors._worker import Worker

Ts = TypeVarTuple("Ts")


class NodeInfo(msgspec.Struct, frozen=True):
    """One node of the live tree. The mailbox fields are None for supervisors."""

    path: str
    kind: Kind
    state: str
    restarts: int
    last_error: BaseException | None
    mailbox_depth: int | None = None
    mailbox_bound: int | None = None
    oldest_age_s: float | None = None
    info: object = None
    """What it gave to `context.ready`."""


@final
class System:
    """Made by `open_system`."""

    def __init__(
        self,
        spec: SupervisorSpec,
        registry: Registry,
        rng: random.Random,
        events: EventStream,
        log: CrashLog | None,
        slow_start_s: float,
    ) -> None:
        self.registry = registry
        self.rng = rng
        self.events = events
        registry.attach(events)
        events.on_listener_error = self.note_interrupt
        self.timers = Timers()
        self.thread = get_ident()
        """The identity of the thread that it runs in."""
        self.root = Supervisor(self, spec, spec.id, None)
        self._log = log
        self.slow_start_s = slow_start_s
        """A start that takes longer is reported; infinity for never."""
        self.interrupt: BaseException | None = None
        self.aborted = False
        self.outcome: ExitReason | None = None
        self.gave_up: ExitReason | None = None
        """Why the root gave up, if it did."""
        self.requests_served = 0
        """Those answered without a wait: every 16th lets others run."""
        self.booted = trio.Event()
        self.ended = trio.Event()
        self.entered = False
        """The block runs, or has run."""
        self._failed_boot = False
        self._stopping = False
        self._nursery: trio.Nursery | None = None
        self._body: trio.CancelScope | None = None
        self._context = contextvars.copy_context()
        self._context.run(asker.set, None)

    # --- for users

    def tree(self) -> list[NodeInfo]:
        """Return every node, parents before children, siblings in the order of their start."""
        root = self.root
        error = None if self.outcome is None else self.outcome.error
        nodes = [NodeInfo(root.path, "supervisor", root.state.phase.value, 0, error)]
        _list_children(root, nodes)
        return nodes

    async def stop(self) -> None:
        """Stop the tree in order and return when nothing of it runs. Raises CallCycle inside an actor of it, which
        may call `request_stop`."""
        me = asker.get()
        if me is not None and attached(me) is not None and me.owner is not None and me.owner.supervisor.system is self:
            raise CallCycle((me.path, self.root.path, me.path))
        self.request_stop()
        await self.ended.wait()

    def request_stop(self) -> None:
        """Begin to stop the tree in order. Raises WrongThread."""
        self.require_thread()
        self._stopping = True
        self.root.feed(Shutdown())

    async def wait(self) -> None:
        """Return when the tree has ended. When it gave up, `open_system` raises SystemFailed."""
        await self.ended.wait()

    # --- for the shell

    def require_thread(self) -> None:
        """Raise WrongThread when another thread than its own runs this."""
        if self.thread != get_ident():
            raise WrongThread(self.root.path)

    def spawn(self, run: Callable[[*Ts], Awaitable[object]], name: str, *args: *Ts) -> None:
        """Start a task that never raises; it inherits the context in which the system was opened."""
        assert self._nursery is not None
        self._context.run(self._start_soon, run, name, args)

    def _start_soon(self, run: Callable[..., Awaitable[object]], name: str, args: tuple[object, ...]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(run, *args, name=name)

    def note_crash(self, path: str, kind: Kind, reason: ExitReason, *, starting: bool) -> None:
        """Publish a crash."""
        log = self._log
        if log is None and not self.events.listening and not witnesses:
            return
        event = Crashed(path, kind, reason, starting, trio.current_time())
        self.events.publish(event)
        for witness in witnesses:
            witness(event)
        if log is not None:
            log.crashed(event)

    def note_gave_up(self, event: GaveUp) -> None:
        """Publish it."""
        self.events.publish(event)
        if self._log is not None:
            self._log.gave_up(event)

    def note_slow(self, event: StartSlow) -> None:
        """Say whom a boot or a restart waits for."""
        self.events.publish(event)
        if self._log is not None:
            self._log.slow(event)

    def note_interrupt(self, error: BaseException) -> None:
        """KeyboardInterrupt and SystemExit end the system, in order, wherever a child raised them; a second
        KeyboardInterrupt kills it."""
        found = interrupt_in(error, replaced=True)
        if found is not None:
            self.interrupted(found)

    def interrupted(self, interrupt: BaseException) -> None:
        """End the system because of `interrupt`."""
        if self.interrupt is None:
            self.interrupt = interrupt
            self.request_stop()
        elif self.interrupt is not interrupt and isinstance(interrupt, KeyboardInterrupt):
            self.kill()

    def abort(self, fault: BaseException) -> None:
        """Handle a fault of supervision itself: kill every child, and raise `fault` from `open_system`."""
        self.aborted = True
        if self.interrupt is None:
            self.interrupt = fault
        reason = ExitReason("crashed", error=fault)
        self.root.abandon(reason)
        self.root_ended(reason, booted=True)

    def root_booted(self) -> None:
        """Report that the tree is up."""
        self.booted.set()

    def root_ended(self, reason: ExitReason, *, booted: bool) -> None:
        """Nothing of the tree runs any more."""
        self.outcome = reason
        self._failed_boot = not booted
        self.booted.set()
        self.ended.set()
        if self._body is not None:
            self._body.cancel()

    def failure(self, escaped: BaseException | None) -> BaseException | None:
        """Return what comes out of `open_system`, from whose block `escaped` came."""
        if self.interrupt is not None:
            return self.interrupt
        lost = self._failure_of_tree()
        if lost is not None:
            if escaped is not None and not _only_cancelled(escaped):
                lost.add_note(f"Meanwhile the block of open_system raised {escaped!r}")
            return lost
        if escaped is not None or self.entered:
            return escaped
        return StartFailed(self.root.path, self.outcome or SHUTDOWN)

    def _failure_of_tree(self) -> ActorsError | None:
        if self.gave_up is not None:
            return SystemFailed(self.gave_up)
        outcome = self.outcome
        if not self._failed_boot or outcome is None or outcome is SHUTDOWN or outcome is KILLED:
            return None
        return outcome.error if isinstance(outcome.error, StartFailed) else StartFailed(self.root.path, outcome)

    async def run_in(self, nursery: trio.Nursery, body: trio.CancelScope) -> None:
        """Boot the tree."""
        self._nursery, self._body = nursery, body
        nursery.start_soon(self.timers.run, name="actors timers")
        self.root.boot(self.root.spec.name)
        await self.booted.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        self.entered = True

    async def close(self) -> None:
        """Stop whatever still runs; then the nursery can end. A KeyboardInterrupt meanwhile is noted, and a second
        one kills: trio delivers it here in spite of the shield."""
        with trio.CancelScope(shield=True):
            if not self.ended.is_set():
                self.request_stop()
            while not self.ended.is_set():
                try:
                    await self.ended.wait()
                except KeyboardInterrupt as interrupt:
                    self.interrupted(interrupt)

    def kill(self) -> None:
        """End everything at once: no stop hooks, no waiting."""
        self.require_thread()
        self._stopping = True
        self.root.feed(Kill())


def _only_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _list_children(supervisor: Supervisor, nodes: list[NodeInfo]) -> None:
    for child in supervisor.state.children.values():
        slot = supervisor.slots.get(child.spec.id)
        error = None if child.last_exit is None else child.last_exit.error
        path = f"{supervisor.path}/{child.spec.id}"
        state, restarts = state_of(child), child.restarts
        if isinstance(slot, Worker):
            box = slot.mailbox
            depth, bound, age = len(box.queue), box.policy.bound, box.oldest_age_s()
            nodes.append(NodeInfo(path, "worker", state, restarts, error, depth, bound, age, slot.info))
        else:
            nodes.append(NodeInfo(path, child.spec.kind, state, restarts, error))
            if slot is not None and child.status is not ChildStatus.STOPPED:
                _list_children(slot, nodes)


def open_system(
    spec: SupervisorSpec,
    *,
    registry: Registry | None = None,
    rng: random.Random | None = None,
    events: EventStream | None = None,
    log_crashes: bool = True,
    slow_start_s: float = 10.0,
) -> AbstractAsyncContextManager[System]:
    """Start the tree, give it to the block, and stop it in order when the block ends, however it ends.

    When the tree ends by itself the block is cancelled. Raises StartFailed when the boot fails and SystemFailed when
    the root gives up. An error of the block itself comes out as it is. When the block is cancelled from outside, the
    tree gets the shutdown times of its specifications.

    A KeyboardInterrupt or SystemExit that comes up in a child or in the block, alone or inside a group, stops the
    tree in order and comes out as it is, not as a group, whatever else was raised. A second Ctrl-C kills the tree.

    Crashes, and what supervisors give up, are written to the logger "actors" of `logging` unless `log_crashes` is off;
    so is, as the event StartSlow, which child is not ready `slow_start_s` seconds after its start began.
    """
    require_seconds(slow_start_s, "slow_start_s", above_zero=True, endless=True)
    log = CrashLog() if log_crashes else None
    rng, events = rng or random.Random(), events or EventStream()
    return _Opening(System(spec, registry or Registry(), rng, events, log, slow_start_s))


class _Opening:
    """Not an async generator: the frames of `contextlib` are open to KeyboardInterrupt, and one that comes up while the
    interpreter frees a generator is lost."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._manager = trio.open_nursery()
        self._body = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> System:
        self._nursery = await self._manager.__aenter__()
        self._body.__enter__()
        try:
            await self._system.run_in(self._nursery, self._body)
        except BaseException as error:
            failure = await self._end(error)
            if failure is None or failure is error:
                raise
            raise failure from failure.__cause__
        return self._system

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        failure = await self._end(error)
        if failure is not None and failure is not error:
            raise failure from failure.__cause__
        return failure is None

    async def _end(self, error: BaseException | None) -> BaseException | None:
        """Stop the tree; returns what comes out of the block that `error`, if any, ended."""
        system, escaped = self._system, error
        try:
            if self._body.__exit__(None if error is None else type(error), error, None):
                escaped = None
        except BaseException as left:  # noqa: BLE001  # what is left of a group without its cancellations
            escaped = left
        if escaped is not None and (interrupt := interrupt_in(escaped)) is not None:
            system.interrupted(interrupt)
        await system.close()
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as late:  # an interrupt or a cancellation while the nursery ended
            if (interrupt := interrupt_in(late)) is not None:
                system.interrupted(interrupt)
            elif escaped is None or late.split(trio.Cancelled)[1] is not None:
                escaped = late
        return system.failure(escaped)


protect(globals())
