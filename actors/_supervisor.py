"""The shell of a supervisor: performs what `_supervision.decide` says. It has no task; whoever brings an event
performs what follows from it, synchronously."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any

import trio
from outcome import Error, Value

from actors._actor import Actor, Job
from actors._errors import (
    ActorsError,
    AlreadyPresent,
    AlreadyStarted,
    BadReturn,
    CallCycle,
    ChildRestarting,
    ChildRunning,
    MaxChildren,
    NameTaken,
    NotAllowed,
    NotFound,
    StartFailed,
    SupervisorDown,
)
from actors._events import Crashed, GaveUp, Restarted, Started, Stopped
from actors._exits import SHUTDOWN, ExitReason, crashed
from actors._interrupts import call_unprotected, protect
from actors._mailbox import Link, Mailbox
from actors._refs import ActorRef, make_ref
from actors._specs import SupervisorSpec
from actors._supervision import (
    Action,
    AnswerRequest,
    AskStop,
    Boot,
    Booted,
    BootFailed,
    Child,
    ChildStatus,
    CloseMailbox,
    Disabled,
    End,
    Event,
    Exited,
    Forget,
    GivingUp,
    Ignored,
    Kill,
    KillChild,
    Phase,
    RetryAfter,
    RetryDue,
    Shutdown,
    Start,
    StopTimedOut,
    StopTimer,
    Withdraw,
    decide,
    new_state,
)
from actors._supervision import Started as ChildStarted
from actors._supervision import StartFailed as ChildStartFailed
from actors._timers import TimerEntry
from actors._waits import Wait, asker, attached, refuse_cycle
from actors._worker import Worker

if TYPE_CHECKING:
    from actors._system import System


class AdminRequest:
    """An administrative request under way; also a node in the search for cycles."""

    __slots__ = ("asker_path", "child_id", "outcome", "stops", "supervisor", "task")

    def __init__(self, supervisor: Supervisor, child_id: str, asker_path: str | None, *, stops: bool) -> None:
        self.supervisor = supervisor
        self.child_id = child_id
        self.asker_path = asker_path
        self.stops = stops
        """It waits for the end of a running child, too."""
        self.task: trio.lowlevel.Task | None = None
        self.outcome: Value[None] | Error | None = None

    def settle(self, outcome: Value[None] | Error) -> None:
        if self.outcome is None:
            self.outcome = outcome
            if self.task is not None:
                trio.lowlevel.reschedule(self.task, outcome)

    @property
    def path(self) -> str:
        return f"request({self.supervisor.path}/{self.child_id})"

    @property
    def done(self) -> bool:
        return self.outcome is not None

    def links(self) -> list[Link]:
        below = self.supervisor.below if self.stops else self.supervisor.nodes
        return [*self.supervisor.links(), *below(self.child_id)]


class Supervisor:
    """One supervisor of a running system."""

    def __init__(
        self, system: System, spec: SupervisorSpec, path: str, parent: tuple[Supervisor, Child] | None
    ) -> None:
        self.system = system
        self.spec = spec
        self.path = path
        self.parent = parent
        self.serial = 0
        self.restarts_reported = 0
        self.name: str | None = None
        self.state = new_state(spec)
        self.slots: dict[str, Worker | Supervisor] = {}
        self.boot_error: ExitReason | None = None
        self._inbox: deque[Event] = deque()
        self._busy = False
        self._requests: set[AdminRequest] = set()
        self._stop_timers: dict[str, TimerEntry] = {}
        self._retry_timers: dict[str, TimerEntry] = {}

    # --- events in, actions out

    def feed(self, event: Event) -> None:
        """Take an event and perform what follows. An event that comes up meanwhile is taken next. Raises
        WrongThread."""
        system = self.system
        if system.thread != get_ident():
            system.require_thread()
        self._inbox.append(event)
        if self._busy or system.aborted:
            return
        self._busy = True
        try:
            while self._inbox and not system.aborted:
                self.state, actions = decide(self.state, self._inbox.popleft())
                for action in actions:
                    _PERFORM[type(action)](self, action)
        except BaseException as error:  # noqa: BLE001  # a fault of this package must end the program, not hang it
            self.system.abort(error)
        finally:
            self._busy = False

    def on_start(self, action: Start) -> None:
        child = self.state.children[action.id]
        retry = self._retry_timers.pop(action.id, None)
        if retry is not None:  # a restart of the group came first
            retry.cancel()
        try:
            made = call_unprotected(child.spec.start)
            if made is None:
                self.feed(Ignored(action.id, action.serial))
            elif isinstance(made, Actor | Job):
                self._start_worker(child, made, action.serial)
            elif isinstance(made, SupervisorSpec):
                self._start_supervisor(child, made, action.serial)
            else:
                raise BadReturn(type(made))
        except BaseException as error:  # noqa: BLE001  # the supervision seam: a start that raises is a failed start
            reason = crashed(error)
            self.system.note_crash(self.path_of(action.id), child.spec.kind, reason, starting=True)
            self.feed(ChildStartFailed(action.id, action.serial, reason, trio.current_time()))
            self.system.note_interrupt(error)

    def _start_worker(self, child: Child, made: Actor[Any] | Job, serial: int) -> None:
        child_id = child.spec.id
        worker = self.slots.get(child_id)
        if not isinstance(worker, Worker):
            name = child.spec.name
            path = self.path_of(child_id)
            mailbox = Mailbox(path) if name is None else self.system.registry.mailbox(name)
            worker = self.slots[child_id] = Worker(self, child, mailbox, path)
        owner = worker.mailbox.owner
        if owner is not None and owner is not worker:
            raise NameTaken(worker.mailbox.name, make_ref(owner.mailbox))
        worker.begin(made, serial)

    def _start_supervisor(self, child: Child, spec: SupervisorSpec, serial: int) -> None:
        sub = Supervisor(self.system, spec, self.path_of(child.spec.id), (self, child))
        former = self.slots.get(child.spec.id)
        if isinstance(former, Supervisor):
            sub.restarts_reported = former.restarts_reported
        sub.serial = serial
        self.slots[child.spec.id] = sub
        sub.boot(child.spec.name or spec.name)

    def boot(self, name: str | None) -> None:
        """Start the children; the outcome is reported to the parent, or to the system by the root."""
        if name is not None:
            if not self.system.registry.hold_supervisor(name, self):
                raise NameTaken(name, make_ref(Mailbox(self.system.registry.find_supervisor(name).path)))
            self.name = name
        self.feed(Boot())

    def on_booted(self, action: Booted) -> None:
        at = trio.current_time()
        restarts = 0 if self.parent is None else self.parent[1].restarts
        if self.system.events.listening:
            if restarts > self.restarts_reported:
                self.system.events.publish(Restarted(self.path, "supervisor", restarts, at))
            else:
                self.system.events.publish(Started(self.path, "supervisor", at))
        self.restarts_reported = restarts
        if self.parent is None:
            self.system.root_booted()
        else:
            self.parent[0].feed(ChildStarted(self.parent[1].spec.id, self.serial, at))

    def on_boot_failed(self, action: BootFailed) -> None:
        self.boot_error = action.reason
        error = action.reason.error
        if not (isinstance(error, StartFailed) or error is None):
            self.boot_error = crashed(StartFailed(self.path_of(action.id), action.reason))

    def on_end(self, action: End) -> None:
        at = trio.current_time()
        if self.name is not None:
            self.system.registry.release_supervisor(self.name, self)
        for timers in (self._stop_timers, self._retry_timers):
            for timer in timers.values():
                timer.cancel()
            timers.clear()
        for slot in self.slots.values():
            if isinstance(slot, Worker):
                slot.close(action.reason)
        for request in tuple(self._requests):
            self._settle(request, "down", None)
        if self.system.events.listening:
            if self.boot_error is not None and self.boot_error.kind == "crashed":
                self.system.events.publish(Crashed(self.path, "supervisor", self.boot_error, True, at))
            else:
                self.system.events.publish(Stopped(self.path, "supervisor", action.reason, at))
        if self.parent is None:
            self.system.root_ended(self.boot_error or action.reason, booted=self.boot_error is None)
        elif self.boot_error is not None:
            self.parent[0].feed(ChildStartFailed(self.parent[1].spec.id, self.serial, self.boot_error, at))
        else:
            self.parent[0].feed(Exited(self.parent[1].spec.id, self.serial, action.reason, at))

    def on_ask_stop(self, action: AskStop) -> None:
        self._turn_down_requests_from(action.id)
        slot = self.slots.get(action.id)  # none when its first start raised and the report is still in the inbox
        if isinstance(slot, Worker):
            slot.ask_stop()
        elif slot is not None:
            slot.feed(Shutdown())

    def on_kill_child(self, action: KillChild) -> None:
        self._turn_down_requests_from(action.id)
        slot = self.slots.get(action.id)
        if isinstance(slot, Worker):
            slot.kill()
        elif slot is not None:
            slot.feed(Kill())

    def on_stop_timer(self, action: StopTimer) -> None:
        event = StopTimedOut(action.id, action.serial, action.seconds)
        entry = self.system.timers.at(trio.current_time() + action.seconds, lambda: self.feed(event))
        if action.id is not None:
            self._stop_timers[action.id] = entry

    def on_retry_after(self, action: RetryAfter) -> None:
        delay_s = 0.0
        backoff = self.state.children[action.id].spec.backoff
        if action.attempt is not None and backoff is not None:
            delay_s = backoff.delay_s(action.attempt, self.system.rng.random())
        due = trio.current_time() + delay_s
        former = self._retry_timers.pop(action.id, None)
        if former is not None:
            former.cancel()
        entry = self.system.timers.at(due, lambda: self._retry(action.id, action.serial))
        self._retry_timers[action.id] = entry

    def _retry(self, child_id: str, serial: int) -> None:
        self._retry_timers.pop(child_id, None)
        self.feed(RetryDue(child_id, serial, trio.current_time()))

    def on_close(self, action: CloseMailbox) -> None:
        for timers in (self._stop_timers, self._retry_timers):
            timer = timers.pop(action.id, None)
            if timer is not None:
                timer.cancel()
        child = self.state.children.get(action.id)
        if child is not None:
            child.forget_frames()
        slot = self.slots.get(action.id)
        if isinstance(slot, Worker):
            slot.close(action.reason)

    def on_forget(self, action: Forget) -> None:
        self.on_close(CloseMailbox(action.id, action.reason))
        self.slots.pop(action.id, None)

    def on_disabled(self, action: Disabled) -> None:
        self._gave_up(action.id, action.reason, disabled=True)

    def on_giving_up(self, action: GivingUp) -> None:
        if self.parent is None:
            self.system.gave_up = self.state.ending
        self._gave_up(action.id, action.reason, disabled=False)

    def _gave_up(self, child_id: str, reason: ExitReason, *, disabled: bool) -> None:
        at = trio.current_time()
        self.system.note_gave_up(GaveUp(self.path, self.path_of(child_id), reason, disabled, at))

    def on_reply(self, action: AnswerRequest) -> None:
        if isinstance(action.request, AdminRequest):
            self._settle(action.request, action.verdict, action.reason)

    # --- requests

    def _settle(self, request: AdminRequest, verdict: str, reason: ExitReason | None) -> None:
        self._requests.discard(request)
        error = self._error_of(request.child_id, verdict, reason)
        request.settle(Value(None) if error is None else Error(error))

    def _error_of(self, child_id: str, verdict: str, reason: ExitReason | None) -> ActorsError | None:
        where = self.path_of(child_id)
        match verdict:
            case "ok" | "ignored":
                return None
            case "not_found":
                return NotFound(f"{self.path!r} has no child {child_id!r}")
            case "already_started":
                return AlreadyStarted(where, self.ref_of(child_id))
            case "already_present":
                return AlreadyPresent(f"{where!r} is specified but does not run")
            case "running":
                return ChildRunning(f"{where!r} runs")
            case "restarting":
                return ChildRestarting(f"{where!r} waits for its restart")
            case "max_children":
                return MaxChildren(f"{self.path!r} takes at most {self.spec.max_children} children")
            case "start_failed":
                return StartFailed(where, reason or SHUTDOWN)
            case "not_allowed":
                return NotAllowed(f"{self.path!r} is dynamic: it forgets children that end")
            case _:
                return SupervisorDown(f"{self.path!r} is {self.state.phase.value}")

    async def ask(self, child_id: str, make: Callable[[AdminRequest], Event], *, stops: bool = False) -> None:
        """Feed the event of a request and wait for its answer."""
        self.system.require_thread()
        if self.system.aborted:
            raise SupervisorDown(f"{self.path!r} is {Phase.ENDED.value}")
        me = asker.get()
        if me is not None:
            me = attached(me)
        wait: Wait | None = None
        request = AdminRequest(self, child_id, None if me is None else me.path, stops=stops)
        if me is not None:
            refuse_cycle(me, request)
            wait = Wait(request, request)
            me.wait_begins(wait)
        self._requests.add(request)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._requests.discard(request)
            request.task = None  # a verdict that comes later wakes nobody
            self.feed(Withdraw(request))
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            self.feed(make(request))
            if request.outcome is None:
                request.task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
            else:
                self.system.requests_served += 1
                if self.system.requests_served % 16 == 0:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                request.outcome.unwrap()
        finally:
            if me is not None and wait is not None:
                me.wait_ends(wait)

    def refuse_own_end(self, child_id: str) -> None:
        """Raise CallCycle when the current task is inside child `id`: it would wait for its own end."""
        me = asker.get()
        if me is not None and attached(me) is not None and _inside(me.path, self.path_of(child_id)):
            raise CallCycle((me.path, f"{self.path}/{child_id}"))

    def _turn_down_requests_from(self, child_id: str) -> None:
        """Fail the waits of a stopping child for requests that this supervisor takes up only afterwards."""
        if not self._requests or not self.state.backlog:
            return
        held = [getattr(event, "request", None) for event in self.state.backlog]
        for request in [request for request in self._requests if request in held]:
            path = request.asker_path
            if path is not None and _inside(path, self.path_of(child_id)):
                self._requests.discard(request)
                request.settle(Error(CallCycle((path, self.path, path))))
                self.feed(Withdraw(request))

    # --- what can be observed

    def links(self) -> list[Link]:
        """Return the children that it waits for before it takes up anything else."""
        state = self.state
        if state.phase is Phase.ENDING:
            return [
                n
                for child_id, c in state.children.items()
                if c.status is ChildStatus.STOPPING
                for n in self.nodes(child_id)
            ]
        if state.plan is not None and state.plan.waiting is not None:
            return self.nodes(state.plan.waiting)
        return []

    def nodes(self, child_id: str) -> list[Link]:
        """Return what stands for child `id` in the search for cycles, while it is starting or stopping."""
        slot = self.slots.get(child_id)
        child = self.state.children.get(child_id)
        if slot is None or (child is not None and child.status is ChildStatus.RUNNING):
            return []
        if not isinstance(slot, Worker):
            return [(slot, math.inf)]
        stopping = child is not None and child.status is ChildStatus.STOPPING
        return [(slot.mailbox, slot.stops_within_s if stopping else slot.starts_within_s)]

    def below(self, child_id: str) -> list[Link]:
        """Return every worker whose end is waited for when child `child_id` is stopped."""
        slot = self.slots.get(child_id)
        if slot is None:
            return []
        if isinstance(slot, Worker):
            return [] if slot.ends_at_once else [(slot.mailbox, slot.stops_within_s)]
        return [link for inner in slot.slots for link in slot.below(inner)]

    def workers(self) -> Iterator[Worker]:
        """Return every worker below it."""
        for slot in tuple(self.slots.values()):
            if isinstance(slot, Worker):
                yield slot
            else:
                yield from slot.workers()

    def abandon(self, reason: ExitReason) -> None:
        """Handle a fault of supervision itself: kill every worker below and wake all that wait for them."""
        for request in tuple(self._requests):
            self._settle(request, "down", None)
        for slot in tuple(self.slots.values()):
            if isinstance(slot, Worker):
                slot.kill()
                slot.close(reason)
            else:
                slot.abandon(reason)

    def path_of(self, child_id: str) -> str:
        return f"{self.path}/{child_id}"

    def ref_of(self, child_id: str) -> ActorRef[Any] | None:
        slot = self.slots.get(child_id)
        return make_ref(slot.mailbox) if isinstance(slot, Worker) and slot.mailbox.owner is not None else None


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")


_PERFORM: dict[type[Action], Callable[[Supervisor, Any], None]] = {
    Start: Supervisor.on_start,
    AskStop: Supervisor.on_ask_stop,
    KillChild: Supervisor.on_kill_child,
    StopTimer: Supervisor.on_stop_timer,
    RetryAfter: Supervisor.on_retry_after,
    CloseMailbox: Supervisor.on_close,
    Forget: Supervisor.on_forget,
    Disabled: Supervisor.on_disabled,
    GivingUp: Supervisor.on_giving_up,
    Booted: Supervisor.on_booted,
    BootFailed: Supervisor.on_boot_failed,
    End: Supervisor.on_end,
    AnswerRequest: Supervisor.on_reply,
}

protect(globals())
