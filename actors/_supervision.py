"""What a supervisor decides. No I/O, no clock, no randomness, no trio: (state, event) -> (state, actions).

The rules
=========
1. This file decides; `_supervisor.py` performs. A decision looks at nothing but the state and the event (which
   brings the time along, in seconds of any steady clock); it is repeatable from a log of events.
2. The state belongs to whoever calls `decide`, and `decide` consumes it: it is changed in place and returned, so
   that one decision costs the same with ten children and with a hundred thousand.
3. Every start of a child gets a new serial. An event that bears another serial than the child's is stale and
   changes nothing: late answers of a former life can arrive at any time. A life is answered for once: Started or
   not, then one of Ignored, StartFailed (both only before Started) and Exited.

Theory of operation
===================
A child goes through these states (* = its supervisor wants it to be in it):

    STOPPED* --Start--> STARTING --Started--> RUNNING* --Exited--> judged by the table below
                           |  \\--StartFailed--> RESTARTING (a restart) | STOPPED (a request, the boot)
                           \\--Ignored--> STOPPED*
    STARTING, RUNNING --AskStop or Kill--> STOPPING --any end--> STOPPED*
    RESTARTING --RetryDue--> STARTING     DISABLED*: as STOPPED, because its restarts exceeded its intensity
                                          (of dynamic children the only one that stays: until a request moves it)
    EXITED: ended by itself while the supervisor was busy; judged when it is free, unless the busy work stops it

Its own end is judged so; nothing else starts a restart or an automatic shutdown:

    restart     normal, shutdown                 killed, crashed
    permanent   restart                          restart
    transient   stays, stopped (significant?)    restart
    temporary   is forgotten (significant?)      is forgotten (significant?)

A restart is counted first. The window is closed: a restart at `then` counts until `then + period`, and the count
must not go above the intensity. A group restart counts one. When the start of a restarted child fails, the next
attempt is a RetryDue event of its own, counted like a crash, so that requests and a shutdown find the supervisor
free in between (OTP-9549).

`one_for_one` and `dynamic` children live independent lives after the boot: one that is slow to start or stop
holds up nobody. The boot, `one_for_all` and `rest_for_one` work by a plan: stop these one by one in reverse order
of start, then start those one by one; whatever arrives meanwhile waits in the backlog and is taken up in its
order. Shutdown and Kill wait for nothing. Temporary children never take part in a group restart except as
victims. What the supervisor stopped itself is never significant.

At the end static children are stopped one by one in reverse order; dynamic ones all at once with one timer for
each distinct shutdown time. So there is always a child that is STOPPING until the end: one that ends by itself
meanwhile moves nothing on. `Close` says that a child's mailbox has no future; without it messages wait for the
next life.

Source of the semantics: Erlang/OTP's supervisor.erl and its manual; extensions: backoff (Akka), per-child
intensity and disable-on-exceed (Ergo), max_children and dynamic children with full specifications (Elixir).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, assert_never

import msgspec

from actors._exits import KILLED, SHUTDOWN, ExitReason, without_frames
from actors._specs import ChildSpec, Intensity, SupervisorSpec, child_of


class ChildStatus(enum.Enum):
    """The state of a child; the table is at the top."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    DISABLED = "disabled"


class Phase(enum.Enum):
    """The state of the supervisor itself."""

    NEW = "new"
    BOOTING = "starting"
    UP = "running"
    ENDING = "stopping"
    ENDED = "stopped"


# --- events ---------------------------------------------------------------------------------------------------------


class Boot(msgspec.Struct, frozen=True, gc=False):
    """Start the children of the specification."""


class Started(msgspec.Struct, frozen=True):
    """The child finished its start."""

    id: str
    serial: int
    at: float


class Ignored(msgspec.Struct, frozen=True):
    """The child's start declined: nothing runs."""

    id: str
    serial: int


class StartFailed(msgspec.Struct, frozen=True):
    """The child's start failed: nothing runs."""

    id: str
    serial: int
    reason: ExitReason
    at: float


class Exited(msgspec.Struct, frozen=True):
    """The child's life is over, by itself or because it was stopped."""

    id: str
    serial: int
    reason: ExitReason
    at: float


class RetryDue(msgspec.Struct, frozen=True):
    """The wait of a RetryAfter action is over."""

    id: str
    serial: int
    at: float


class StopTimedOut(msgspec.Struct, frozen=True):
    """The wait of a StopTimer action is over; `id` is None for the timer of all dynamic children."""

    id: str | None
    serial: int
    seconds: float


class StartChild(msgspec.Struct, frozen=True):
    """Request: add a child and start it."""

    request: object
    spec: ChildSpec


class StopChild(msgspec.Struct, frozen=True):
    """Request: stop a child; it stays listed unless temporary or dynamic."""

    request: object
    id: str


class RestartChild(msgspec.Struct, frozen=True):
    """Request: start a stopped child again."""

    request: object
    id: str


class DeleteChild(msgspec.Struct, frozen=True):
    """Request: forget a stopped child."""

    request: object
    id: str


class Withdraw(msgspec.Struct, frozen=True):
    """The requester is gone: drop the request if it waits, undo the start it asked for unless that is done."""

    request: object


class Shutdown(msgspec.Struct, frozen=True):
    """Stop every child in order, then end with `reason`."""

    reason: ExitReason = SHUTDOWN


class Kill(msgspec.Struct, frozen=True, gc=False):
    """Kill every child at once, then end."""


Request = StartChild | StopChild | RestartChild | DeleteChild
Event = Boot | Started | Ignored | StartFailed | Exited | RetryDue | StopTimedOut | Request | Withdraw | Shutdown | Kill


# --- actions --------------------------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Start a life of the child; answer with Started, Ignored, StartFailed or (when stopped meanwhile) Exited."""

    id: str
    serial: int


class AskStop(msgspec.Struct, frozen=True):
    """Ask the child to end; answer with Exited."""

    id: str


class KillChild(msgspec.Struct, frozen=True):
    """Make the child end now; answer with Exited."""

    id: str


class StopTimer(msgspec.Struct, frozen=True):
    """Answer with the StopTimedOut of the same fields after `seconds`."""

    id: str | None
    serial: int
    seconds: float


class RetryAfter(msgspec.Struct, frozen=True):
    """Answer with RetryDue: after the child's backoff for this attempt, or as soon as others had a turn (None)."""

    id: str
    serial: int
    attempt: int | None


class CloseMailbox(msgspec.Struct, frozen=True):
    """The child has no next life in sight: close its mailbox."""

    id: str
    reason: ExitReason


class Forget(msgspec.Struct, frozen=True):
    """The child is out of the list: close its mailbox and drop everything about it."""

    id: str
    reason: ExitReason


class Disabled(msgspec.Struct, frozen=True):
    """The child's restarts exceeded its intensity; it stays down."""

    id: str
    reason: ExitReason


class GivingUp(msgspec.Struct, frozen=True):
    """The child's restarts exceeded the intensity; the supervisor is about to end."""

    id: str
    reason: ExitReason


class Booted(msgspec.Struct, frozen=True, gc=False):
    """Every child of the specification is started or ignored."""


class BootFailed(msgspec.Struct, frozen=True):
    """The start of child `id` failed while booting; everything started before is stopped again."""

    id: str
    reason: ExitReason


class End(msgspec.Struct, frozen=True):
    """No child runs and none will: the supervisor is over."""

    reason: ExitReason


Verdict = Literal[
    "ok",
    "ignored",
    "not_found",
    "already_started",
    "already_present",
    "running",
    "restarting",
    "max_children",
    "start_failed",
    "not_allowed",
    "down",
]


class AnswerRequest(msgspec.Struct, frozen=True):
    """Answer the request."""

    request: object
    verdict: Verdict
    id: str
    reason: ExitReason | None = None


Action = (
    Start
    | AskStop
    | KillChild
    | StopTimer
    | RetryAfter
    | CloseMailbox
    | Forget
    | Disabled
    | GivingUp
    | Booted
    | BootFailed
    | End
    | AnswerRequest
)


# --- state ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Child:
    """What the supervisor knows of one child."""

    spec: ChildSpec
    status: ChildStatus = ChildStatus.STOPPED
    serial: int = 0
    started_at: float = 0.0
    restarts: int = 0
    """Restarts decided so far, over all its lives."""
    attempt: int = 0
    """Restarts since its backoff was last reset."""
    counted: bool = False
    """The restart that it waits for is in the window already."""
    again: bool = False
    """Its latest start is an automatic restart."""
    last_exit: ExitReason | None = None
    window: deque[float] | None = None
    """Times of its restarts when they are counted for this child alone."""
    start_request: object | None = None
    """The requester that waits for its start."""
    added: bool = False
    """The pending start request is the one that added it."""
    stop_requests: list[object] | None = None

    def forget_frames(self) -> None:
        """Let go of the dead life, which the traceback of its error holds."""
        if self.last_exit is not None and self.last_exit.error is not None:
            self.last_exit = without_frames(self.last_exit)

    @property
    def in_restart(self) -> bool:
        """True from the decision to restart it until it runs or that is given up."""
        return self.status is ChildStatus.RESTARTING or (self.status is ChildStatus.STARTING and self.again)


@dataclass(slots=True, eq=False)
class RestartPlan:
    """Stop `stop` from its end, then start `start` from its end, one at a time."""

    stop: list[str]
    start: list[str]
    waiting: str | None = None
    boot: bool = False


@dataclass(slots=True, eq=False)
class SupervisorState:
    """One supervisor. `children` is in the order of their first start."""

    spec: SupervisorSpec
    phase: Phase = Phase.NEW
    children: dict[str, Child] = field(default_factory=dict)
    window: deque[float] = field(default_factory=deque)
    serial: int = 0
    alive: int = 0
    """Children that are STARTING, RUNNING or STOPPING."""
    plan: RestartPlan | None = None
    backlog: deque[Event] = field(default_factory=deque)
    ending: ExitReason | None = None
    to_stop: list[str] = field(default_factory=list)
    boot_failed: tuple[str, ExitReason] | None = None

    @property
    def dynamic(self) -> bool:
        """True for a supervisor whose children come and go."""
        return self.spec.strategy == "dynamic"


def new_state(spec: SupervisorSpec) -> SupervisorState:
    """Return the state of a supervisor that has not booted."""
    return SupervisorState(spec, children={child.id: Child(child_of(child)) for child in spec.children})


Actions = list[Action]


def decide(state: SupervisorState, event: Event) -> tuple[SupervisorState, Actions]:
    """Take one event. The actions are to be performed in their order, before the next event is given."""
    actions: Actions = []
    _RULES[type(event)](state, event, actions)
    while state.backlog and state.plan is None and state.phase is Phase.UP:
        held = state.backlog.popleft()
        _RULES[type(held)](state, held, actions)
    return state, actions


# --- the supervisor's own life --------------------------------------------------------------------------------------


def _boot(s: SupervisorState, _event: Boot, out: Actions) -> None:
    s.phase = Phase.BOOTING
    s.plan = RestartPlan([], list(reversed(s.children)), boot=True)
    _advance(s, out)


def _shutdown(s: SupervisorState, event: Shutdown, out: Actions) -> None:
    if s.phase not in (Phase.ENDING, Phase.ENDED):
        _begin_end(s, event.reason, out)


def _begin_end(s: SupervisorState, reason: ExitReason, out: Actions) -> None:
    booting = s.phase is Phase.BOOTING
    s.phase, s.ending, s.plan = Phase.ENDING, reason, None
    held, s.backlog = s.backlog, deque()
    for event in held:
        if isinstance(event, StartChild):
            out.append(AnswerRequest(event.request, "down", event.spec.id))
        elif isinstance(event, StopChild | RestartChild | DeleteChild):
            out.append(AnswerRequest(event.request, "down", event.id))
    for child in s.children.values():
        if child.status in (ChildStatus.EXITED, ChildStatus.RESTARTING):
            child.status = ChildStatus.STOPPED
    if booting and s.boot_failed is None:
        s.boot_failed = (s.spec.id, reason)
    if s.dynamic:
        limits: set[float] = set()
        for child in s.children.values():
            if child.status in (ChildStatus.STARTING, ChildStatus.RUNNING):
                limit = _ask_stop(child, out)
                if limit is not None:
                    limits.add(limit)
        out.extend(StopTimer(None, 0, limit) for limit in sorted(limits))
    else:
        s.to_stop = list(s.children)
    _advance_end(s, out)


def _advance_end(s: SupervisorState, out: Actions) -> None:
    while s.to_stop:
        child = s.children.get(s.to_stop[-1])
        if child is not None and child.status is ChildStatus.STOPPING:
            return
        if child is not None and child.status in (ChildStatus.STARTING, ChildStatus.RUNNING):
            _ask_stop_timed(child, out)
            return
        s.to_stop.pop()
    if s.alive == 0:
        assert s.ending is not None
        s.phase = Phase.ENDED
        if s.boot_failed is not None:
            out.append(BootFailed(*s.boot_failed))
        out.append(End(s.ending))


def _kill(s: SupervisorState, _event: Kill, out: Actions) -> None:
    if s.phase is Phase.ENDED:
        return
    if s.phase is not Phase.ENDING:
        _begin_end(s, KILLED, out)
    s.ending = KILLED
    for child in s.children.values():
        if child.status in (ChildStatus.STARTING, ChildStatus.RUNNING, ChildStatus.STOPPING):
            if child.status is not ChildStatus.STOPPING:
                _mark_stopping(child, out)
            out.append(KillChild(child.spec.id))


# --- what children report -------------------------------------------------------------------------------------------


def _live(s: SupervisorState, child_id: str, serial: int) -> Child | None:
    child = s.children.get(child_id)
    return child if child is not None and child.serial == serial else None


def _started(s: SupervisorState, event: Started, out: Actions) -> None:
    child = _live(s, event.id, event.serial)
    if child is None or child.status is not ChildStatus.STARTING:
        return
    child.status, child.started_at = ChildStatus.RUNNING, event.at
    _answer_start(child, "ok", None, out)
    _plan_goes_on(s, child, out)


def _ignored(s: SupervisorState, event: Ignored, out: Actions) -> None:
    child = _live(s, event.id, event.serial)
    if child is None:
        return
    if child.status is ChildStatus.STOPPING:
        _stopped(s, child, SHUTDOWN, out)
    else:
        s.alive -= 1
        _answer_start(child, "ignored", None, out)
        _rest(s, child, SHUTDOWN, out)
        _plan_goes_on(s, child, out)


def _start_failed(s: SupervisorState, event: StartFailed, out: Actions) -> None:
    child = _live(s, event.id, event.serial)
    if child is None:
        return
    child.last_exit = event.reason
    if child.status is ChildStatus.STOPPING:
        _stopped(s, child, event.reason, out)
        return
    s.alive -= 1
    if s.phase is Phase.ENDING:
        _answer_start(child, "start_failed", event.reason, out)
        child.status = ChildStatus.STOPPED
        return
    plan, s.plan = s.plan, None  # a child that starts while there is a plan is the one that the plan waits for
    if plan is not None and plan.boot:
        child.status = ChildStatus.STOPPED
        s.boot_failed = (event.id, event.reason)
        _begin_end(s, event.reason, out)
    elif child.start_request is not None:
        added = child.added
        _answer_start(child, "start_failed", event.reason, out)
        child.status = ChildStatus.DISABLED if s.dynamic else ChildStatus.STOPPED
        if added:
            _forget(s, child, event.reason, out)
        else:
            out.append(CloseMailbox(event.id, event.reason))
    else:
        child.status, child.counted = ChildStatus.RESTARTING, False
        _retry_later(child, out)


def _exited(s: SupervisorState, event: Exited, out: Actions) -> None:
    child = _live(s, event.id, event.serial)
    if child is None:
        return
    if child.status is ChildStatus.STOPPING:
        child.last_exit = event.reason
        _stopped(s, child, event.reason, out)
    elif child.status is ChildStatus.RUNNING:
        child.last_exit = event.reason
        s.alive -= 1
        if s.phase is Phase.ENDING:
            child.status = ChildStatus.STOPPED
        elif s.plan is not None:
            child.status = ChildStatus.EXITED
            s.backlog.append(event)
        else:
            _judge(s, child, event.reason, event.at, out)
    elif child.status is ChildStatus.EXITED:
        _judge(s, child, event.reason, event.at, out)


def _judge(s: SupervisorState, child: Child, reason: ExitReason, at: float, out: Actions) -> None:
    match child.spec.restart, reason.abnormal:
        case "permanent", _:
            _restart(s, child, at, out)
        case "transient", True:
            _restart(s, child, at, out)
        case "transient", False:
            _rest(s, child, reason, out)
            _auto_shutdown(s, child, out)
        case "temporary", _:
            _rest(s, child, reason, out)
            _auto_shutdown(s, child, out)
        case never:  # pragma: no cover
            assert_never(never)  # type: ignore[arg-type]  # checkers do not narrow tuples of literals


def _rest(s: SupervisorState, child: Child, reason: ExitReason, out: Actions) -> None:
    """Nothing of it runs and it is not to be started by itself."""
    child.status = ChildStatus.STOPPED
    if s.dynamic or child.spec.restart == "temporary":
        _forget(s, child, reason, out)
    else:
        out.append(CloseMailbox(child.spec.id, reason))


def _forget(s: SupervisorState, child: Child, reason: ExitReason, out: Actions) -> None:
    del s.children[child.spec.id]
    out.append(Forget(child.spec.id, reason))


def _auto_shutdown(s: SupervisorState, child: Child, out: Actions) -> None:
    match s.spec.auto_shutdown:
        case "never":
            return
        case "any_significant":
            due = child.spec.significant
        case "all_significant":
            idle = (ChildStatus.STOPPED, ChildStatus.DISABLED)
            others = (c for c in s.children.values() if c.spec.significant and c.status not in idle)
            due = child.spec.significant and next(others, None) is None
        case never:  # pragma: no cover
            assert_never(never)
    if due:
        _begin_end(s, ExitReason("shutdown", "significant children ended"), out)


# --- restarts -------------------------------------------------------------------------------------------------------


def _restart(s: SupervisorState, child: Child, at: float, out: Actions) -> None:
    if not _count(s, child, at, out):
        return
    child.status = ChildStatus.RESTARTING
    if child.spec.backoff is None:
        _start_again(s, child, out)
    else:
        child.counted = True
        reset_after_s = child.spec.backoff.reset_after_s
        if at - child.started_at >= (child.spec.backoff.max_s if reset_after_s is None else reset_after_s):
            child.attempt = 0
        _retry_later(child, out)


def _count(s: SupervisorState, child: Child, at: float, out: Actions) -> bool:
    """Count a restart; False when that was one too many, which is then dealt with."""
    alone = child.spec.intensity is not None or child.spec.on_exceed == "disable"
    if alone and child.window is None:
        child.window = deque()
    window = child.window if alone and child.window is not None else s.window
    intensity: Intensity = child.spec.intensity or s.spec.intensity
    while window and at > window[0] + intensity.period_s:
        window.popleft()
    window.append(at)
    if len(window) <= intensity.restarts:
        child.restarts += 1
        return True
    reason = child.last_exit or KILLED
    if child.spec.on_exceed == "disable":
        child.status = ChildStatus.DISABLED
        child.window = None
        out.append(Disabled(child.spec.id, reason))
        out.append(CloseMailbox(child.spec.id, reason))
    else:
        child.status = ChildStatus.STOPPED
        out.append(GivingUp(child.spec.id, reason))
        detail = f"{child.spec.id!r} reached the restart intensity"
        _begin_end(s, ExitReason("shutdown", detail, reason.error), out)
    return False


def _retry_later(child: Child, out: Actions) -> None:
    attempt = None
    if child.spec.backoff is not None:
        attempt = child.attempt
        child.attempt += 1
    out.append(RetryAfter(child.spec.id, child.serial, attempt))


def _retry_due(s: SupervisorState, event: RetryDue, out: Actions) -> None:
    child = _live(s, event.id, event.serial)
    if child is None or child.status is not ChildStatus.RESTARTING:
        return
    if s.plan is not None:
        s.backlog.append(event)
        return
    if child.counted or _count(s, child, event.at, out):
        _start_again(s, child, out)


def _start_again(s: SupervisorState, child: Child, out: Actions) -> None:
    child.again = True
    strategy = s.spec.strategy
    if strategy == "one_for_one" or strategy == "dynamic":
        _begin(s, child, out)
        return
    ids = list(s.children)
    if strategy == "rest_for_one":
        ids = ids[ids.index(child.spec.id) :]
    s.plan = RestartPlan(stop=ids, start=ids[::-1])
    child.status = ChildStatus.STOPPED
    _advance(s, out)


def _begin(s: SupervisorState, child: Child, out: Actions) -> None:
    s.serial += 1
    s.alive += 1
    child.serial, child.status = s.serial, ChildStatus.STARTING
    out.append(Start(child.spec.id, child.serial))


# --- plans ----------------------------------------------------------------------------------------------------------


def _advance(s: SupervisorState, out: Actions) -> None:
    """Take the plan as far as it goes without waiting."""
    plan = s.plan
    assert plan is not None
    while plan.stop:
        child = s.children[plan.stop.pop()]
        if child.status in (ChildStatus.STARTING, ChildStatus.RUNNING):
            plan.waiting = child.spec.id
            _ask_stop_timed(child, out)
            return
        if child.status in (ChildStatus.EXITED, ChildStatus.RESTARTING):
            child.status = ChildStatus.STOPPED
        if child.spec.restart == "temporary":
            _forget(s, child, SHUTDOWN, out)
    while plan.start:
        following = s.children.get(plan.start.pop())
        if following is None or following.status is not ChildStatus.STOPPED:
            continue
        plan.waiting = following.spec.id
        _begin(s, following, out)
        return
    s.plan = None
    if plan.boot:
        s.phase = Phase.UP
        out.append(Booted())


def _plan_goes_on(s: SupervisorState, child: Child, out: Actions) -> None:
    if s.plan is not None and s.plan.waiting == child.spec.id:
        _advance(s, out)


def _mark_stopping(child: Child, out: Actions) -> None:
    child.status = ChildStatus.STOPPING
    _answer_start(child, "start_failed", SHUTDOWN, out)


def _ask_stop(child: Child, out: Actions) -> float | None:
    """Return the seconds after which it is to be killed; None when no timer is wanted."""
    _mark_stopping(child, out)
    match child.spec.shutdown:
        case "brutal_kill":
            out.append(KillChild(child.spec.id))
            return None
        case "infinity" | None:
            out.append(AskStop(child.spec.id))
            return None
        case seconds:
            out.append(AskStop(child.spec.id))
            return seconds


def _ask_stop_timed(child: Child, out: Actions) -> None:
    limit = _ask_stop(child, out)
    if limit is not None:
        out.append(StopTimer(child.spec.id, child.serial, limit))


def _stop_timed_out(s: SupervisorState, event: StopTimedOut, out: Actions) -> None:
    if event.id is not None:
        child = _live(s, event.id, event.serial)
        if child is not None and child.status is ChildStatus.STOPPING:
            out.append(KillChild(event.id))
        return
    for child in s.children.values():
        if child.status is ChildStatus.STOPPING and child.spec.shutdown == event.seconds:
            out.append(KillChild(child.spec.id))


def _stopped(s: SupervisorState, child: Child, reason: ExitReason, out: Actions) -> None:
    """Take note that a stopping child has ended."""
    s.alive -= 1
    child.status = ChildStatus.STOPPED
    requests, child.stop_requests = child.stop_requests, None
    returns = s.plan is not None and requests is None and child.spec.restart != "temporary" and not child.added
    if s.phase is not Phase.ENDING and not returns:
        if child.added or s.dynamic or child.spec.restart == "temporary":
            _forget(s, child, reason, out)
        else:
            out.append(CloseMailbox(child.spec.id, reason))
    for request in requests or ():
        out.append(AnswerRequest(request, "ok", child.spec.id))
    if s.phase is Phase.ENDING:
        _advance_end(s, out)
    else:
        _plan_goes_on(s, child, out)


# --- requests -------------------------------------------------------------------------------------------------------


def _held(s: SupervisorState, event: Request, child_id: str, out: Actions) -> bool:
    """Return whether the request cannot be looked at now: it waits, or is turned down for good."""
    if s.phase in (Phase.ENDING, Phase.ENDED):
        out.append(AnswerRequest(event.request, "down", child_id))
        return True
    if s.plan is not None or s.phase is not Phase.UP:
        s.backlog.append(event)
        return True
    return False


def _answer_start(child: Child, verdict: Verdict, reason: ExitReason | None, out: Actions) -> None:
    if child.start_request is not None:
        out.append(AnswerRequest(child.start_request, verdict, child.spec.id, reason))
        child.start_request = None
    if child.status is not ChildStatus.STOPPING:
        child.added = False


def _begin_requested(s: SupervisorState, child: Child, request: object, out: Actions) -> None:
    child.start_request, child.again = request, False
    if s.spec.strategy in ("one_for_all", "rest_for_one"):
        s.plan = RestartPlan([], [child.spec.id])
        _advance(s, out)
    else:
        _begin(s, child, out)


def _start_child(s: SupervisorState, event: StartChild, out: Actions) -> None:
    child_id = event.spec.id
    if _held(s, event, child_id, out):
        return
    known = s.children.get(child_id)
    if known is not None:
        here = (
            known.status in (ChildStatus.STARTING, ChildStatus.RUNNING, ChildStatus.STOPPING) and not known.in_restart
        )
        out.append(AnswerRequest(event.request, "already_started" if here else "already_present", child_id))
    elif s.spec.max_children is not None and len(s.children) >= s.spec.max_children:
        out.append(AnswerRequest(event.request, "max_children", child_id))
    else:
        child = s.children[child_id] = Child(event.spec, added=True)
        _begin_requested(s, child, event.request, out)


def _stop_child(s: SupervisorState, event: StopChild, out: Actions) -> None:
    if _held(s, event, event.id, out):
        return
    child = s.children.get(event.id)
    if child is None:
        out.append(AnswerRequest(event.request, "not_found", event.id))
        return
    match child.status:
        case ChildStatus.STARTING | ChildStatus.RUNNING:
            child.stop_requests = [event.request]
            if s.spec.strategy in ("one_for_all", "rest_for_one"):
                s.plan = RestartPlan([event.id], [])
                _advance(s, out)
            else:
                _ask_stop_timed(child, out)
        case ChildStatus.STOPPING:
            child.stop_requests = [*(child.stop_requests or ()), event.request]
        case ChildStatus.RESTARTING:
            _rest(s, child, SHUTDOWN, out)
            out.append(AnswerRequest(event.request, "ok", event.id))
        case ChildStatus.STOPPED | ChildStatus.DISABLED:
            child.status = ChildStatus.STOPPED
            if s.dynamic:
                _forget(s, child, SHUTDOWN, out)
            out.append(AnswerRequest(event.request, "ok", event.id))
        case ChildStatus.EXITED:
            # Its end is in the backlog, behind this request: it is stopped already.
            _rest(s, child, SHUTDOWN, out)
            out.append(AnswerRequest(event.request, "ok", event.id))
        case never:  # pragma: no cover
            assert_never(never)


def _refused_to_dynamic(s: SupervisorState, child: Child | None) -> bool:
    """Dynamic children are forgotten when they end, so that none is there to restart or delete; but for one that is
    disabled."""
    return s.dynamic and (child is None or child.status is not ChildStatus.DISABLED)


def _restart_child(s: SupervisorState, event: RestartChild, out: Actions) -> None:
    if _held(s, event, event.id, out):
        return
    child = s.children.get(event.id)
    if _refused_to_dynamic(s, child):
        out.append(AnswerRequest(event.request, "not_allowed", event.id))
    elif child is None:
        out.append(AnswerRequest(event.request, "not_found", event.id))
    elif child.status in (ChildStatus.STOPPED, ChildStatus.DISABLED):
        child.status, child.attempt = ChildStatus.STOPPED, 0
        _begin_requested(s, child, event.request, out)
    elif child.in_restart:
        out.append(AnswerRequest(event.request, "restarting", event.id))
    else:
        out.append(AnswerRequest(event.request, "running", event.id))


def _delete_child(s: SupervisorState, event: DeleteChild, out: Actions) -> None:
    if _held(s, event, event.id, out):
        return
    child = s.children.get(event.id)
    if _refused_to_dynamic(s, child):
        out.append(AnswerRequest(event.request, "not_allowed", event.id))
    elif child is None:
        out.append(AnswerRequest(event.request, "not_found", event.id))
    elif child.status in (ChildStatus.STOPPED, ChildStatus.DISABLED):
        _forget(s, child, SHUTDOWN, out)
        out.append(AnswerRequest(event.request, "ok", event.id))
    elif child.in_restart:
        out.append(AnswerRequest(event.request, "restarting", event.id))
    else:
        out.append(AnswerRequest(event.request, "running", event.id))


def _withdraw(s: SupervisorState, event: Withdraw, out: Actions) -> None:
    for held in s.backlog:
        if isinstance(held, StartChild | RestartChild | StopChild | DeleteChild) and held.request is event.request:
            s.backlog.remove(held)
            return
    for child in s.children.values():
        if child.start_request is event.request:
            child.start_request = None
            if s.plan is not None:
                child.stop_requests = []
            _ask_stop_timed(child, out)
            return


_RULES: dict[type[Event], Callable[[SupervisorState, Event, Actions], None]] = {
    Boot: _boot,  # type: ignore[dict-item]  # each rule takes the one event class that it stands under
    Started: _started,  # type: ignore[dict-item]
    Ignored: _ignored,  # type: ignore[dict-item]
    StartFailed: _start_failed,  # type: ignore[dict-item]
    Exited: _exited,  # type: ignore[dict-item]
    RetryDue: _retry_due,  # type: ignore[dict-item]
    StopTimedOut: _stop_timed_out,  # type: ignore[dict-item]
    StartChild: _start_child,  # type: ignore[dict-item]
    StopChild: _stop_child,  # type: ignore[dict-item]
    RestartChild: _restart_child,  # type: ignore[dict-item]
    DeleteChild: _delete_child,  # type: ignore[dict-item]
    Withdraw: _withdraw,  # type: ignore[dict-item]
    Shutdown: _shutdown,  # type: ignore[dict-item]
    Kill: _kill,  # type: ignore[dict-item]
}
