"""What users write: actors and jobs; and the context that they are given."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, TypeVarTuple, final

import trio

from actors._exits import NORMAL, ExitReason
from actors._interrupts import let_in, protect
from actors._mailbox import PendingCall
from actors._refs import ActorRef, ReplyTo, make_ref
from actors._specs import MailboxPolicy, require_seconds

if TYPE_CHECKING:
    from actors._administration import SupervisorRef
    from actors._timers import TimerEntry
    from actors._worker import Worker

M_contra = TypeVar("M_contra", contravariant=True)
Ts = TypeVarTuple("Ts")


class Actor(Generic[M_contra]):
    """State and behaviour behind a mailbox: `class Store(Actor[Get | Put])`.

    One message is handled at a time. An error that escapes ends this life of the actor: the message becomes a dead
    letter, its caller gets ActorDown, and the supervisor decides; a next life is a new object with the old mailbox.
    """

    __actor_base__: ClassVar[bool] = True
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy()
    context: Context
    """Set before `on_start`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for hook in ("handle", "on_start", "on_stop"):
            own = getattr(cls, hook)
            if own is not getattr(Actor, hook):
                let_in(own)

    async def on_start(self, context: Context) -> None:
        """Before the first message; the start of the next sibling waits for it. An error is a failed start,
        `Ignore` a start with nothing to run."""

    async def handle(self, message: M_contra) -> object:
        """Handle one message. What it returns is the reply (LATER: given by `context.reply_to()`); for a message
        sent by `tell` it is dropped. `Refuse(error)` raises `error` at the caller and the actor goes on."""
        raise NotImplementedError

    async def on_stop(self, reason: ExitReason) -> None:
        """After the last message of this life, also after a crash; not when killed. Bounded by the shutdown time."""


class Job:
    """A child that takes no messages: `run(context)` until it returns (an end by `normal`).

    It is started once it calls `context.ready()`, or returns. Asked to stop, it is cancelled and has the shutdown
    time to clean up, under `context.cleanup()` where it must wait.
    """

    def __init__(self, run: Callable[[Context], Awaitable[object]]) -> None:
        self.run = run


class DrainingJob(Job):
    """A job that is not cancelled when asked to stop: it waits for `context.stop_requested` and then ends by itself
    within its shutdown time."""


@final
class Timer:
    """A message to be sent later."""

    __slots__ = ("_entry", "_timers")

    def __init__(self, timers: set[Timer]) -> None:
        self._timers = timers
        self._entry: TimerEntry | None = None
        timers.add(self)

    def arm(self, entry: TimerEntry) -> None:
        """Note the entry that will fire it; for Context."""
        self._entry = entry

    def disarm(self) -> None:
        """Note that it fires no more; for Context."""
        self._timers.discard(self)

    @property
    def armed(self) -> bool:
        """True until it fired for the last time or was cancelled."""
        return self in self._timers

    def cancel(self) -> None:
        """Keep it from firing; once it has, do nothing. Raises WrongThread."""
        if self._entry is not None:
            self._entry.require_thread()
        self._timers.discard(self)
        if self._entry is not None:
            self._entry.cancel()


@final
class Context:
    """What an actor or job may do beyond handling messages, in the thread of its system. Valid for one life."""

    __slots__ = ("_kept", "_stop_requested", "_stopping", "_timers", "_worker", "pending_call")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.pending_call: PendingCall | None = None
        self._kept: set[PendingCall] | None = None
        self._timers: set[Timer] | None = None
        self._stop_requested: trio.Event | None = None
        self._stopping = False

    @property
    def stop_requested(self) -> trio.Event:
        """Set when the supervisor asks for the end."""
        if self._stop_requested is None:
            self._stop_requested = trio.Event()
            if self._stopping:
                self._stop_requested.set()
        return self._stop_requested

    def note_stop_requested(self) -> None:
        """Note that a stop was requested; for the worker."""
        self._stopping = True
        if self._stop_requested is not None:
            self._stop_requested.set()

    def close(self, reason: ExitReason | None) -> None:
        """End this life: its timers, and its calls that wait; for the worker."""
        for timer in tuple(self._timers or ()):
            timer.cancel()
        for pending_call in tuple(self._kept or ()):
            pending_call.fail(reason)

    @property
    def name(self) -> str:
        """The registered name; the path for an actor without one."""
        return self._worker.mailbox.name

    @property
    def path(self) -> str:
        """The place in the tree: the ids from the root, joined by '/'."""
        return self._worker.path

    @property
    def ref(self) -> ActorRef[Any]:
        """The actor's own reference."""
        return make_ref(self._worker.mailbox)

    @property
    def rng(self) -> random.Random:
        """The system's source of randomness."""
        return self._worker.supervisor.system.rng

    @property
    def supervisor(self) -> SupervisorRef:
        """The parent."""
        from actors._administration import SupervisorRef

        return SupervisorRef(lambda: self._worker.supervisor)

    def reply_to(self) -> ReplyTo:
        """Return the right to reply to the message at hand later; `handle` then returns LATER."""
        self._worker.supervisor.system.require_thread()
        pending_call, self.pending_call = self.pending_call, None
        if self._kept is None:
            self._kept = set()
        return ReplyTo(pending_call, self._kept)

    def require_taken(self) -> None:
        """Raise TypeError when `handle` returned LATER but did not take the right to reply."""
        if self.pending_call is not None:
            raise TypeError("handle returned LATER without having taken context.reply_to()")

    def ready(self, info: object = None) -> None:
        """Report that the start is done: a job must, an actor may, before its `on_start` returns.

        `info` is shown in listings (`ChildInfo.info`), for instance a bound address.
        """
        self._worker.supervisor.system.require_thread()
        self._worker.ready(self, info)

    def stop(self, reason: ExitReason = NORMAL) -> None:
        """End this life once the message at hand is handled (its reply is given). For a job: cancels it."""
        self._worker.supervisor.system.require_thread()
        self._worker.stop_self(self, reason)

    def after(self, seconds: float, message: object) -> Timer:
        """Tell itself `message` after `seconds`; a dead letter if there is no room then. Ends with this life.

        Raises ValueError unless `seconds` is finite and >= 0, and ActorDown once this life is over.
        """
        require_seconds(seconds, "after(seconds)")
        timer = self._new_timer()
        self._arm(timer, seconds, message, None, 0.0)
        return timer

    def every(self, seconds: float, message: object, jitter: float = 0.0) -> Timer:
        """As `after`, again and again; each wait is spread by +-`jitter`, a share of `seconds` (0 to 1).

        Raises ValueError unless `seconds` is finite and > 0 and `jitter` from 0 to 1, ActorDown once this life is over.
        """
        require_seconds(seconds, "every(seconds)", above_zero=True)
        require_seconds(jitter, "every(jitter)", at_most=1.0)
        timer = self._new_timer()
        self._arm(timer, self._spread(seconds, jitter), message, seconds, jitter)
        return timer

    def start_soon(self, run: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run `run(*args)` in a task of this life: it is cancelled when the life ends, and an error from it is a
        crash of the actor."""
        self._worker.supervisor.system.require_thread()
        self._worker.start_aside(self, run, args)

    def cleanup(self) -> trio.CancelScope:
        """Return a scope in which a stopped job may still wait; a kill ends it."""
        self._worker.supervisor.system.require_thread()
        return self._worker.cleanup_scope()

    def _new_timer(self) -> Timer:
        self._worker.supervisor.system.require_thread()
        self._worker.require_life(self)
        if self._timers is None:
            self._timers = set()
        return Timer(self._timers)

    def _spread(self, seconds: float, jitter: float) -> float:
        return seconds * (1 + jitter * (2 * self.rng.random() - 1)) if jitter else seconds

    def _arm(self, timer: Timer, wait_s: float, message: object, period_s: float | None, jitter: float) -> None:
        def fire() -> None:
            if not timer.armed:
                return
            if period_s is None:
                timer.disarm()
            else:
                self._arm(timer, self._spread(period_s, jitter), message, period_s, jitter)
            self._worker.tell_from_timer(message)

        now = trio.current_time()
        due = now + wait_s
        if period_s is not None:  # one too short to move the clock on would be due for ever, and nothing else
            due = max(due, math.nextafter(now, math.inf))
        timer.arm(self._worker.timers.at(due, fire))


protect(globals())
