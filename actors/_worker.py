"""The lives of an actor or job: one task, a cancel scope around each life, nothing ever escapes to the nursery.

Shielding: a scope, which serves one life after another until it is cancelled, is shielded, so that a cancellation of
the whole system reaches only whoever opened the system, which then stops the tree in order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import trio
from trio.lowlevel import reschedule

from actors._actor import Actor, Context, DrainingJob, Job
from actors._errors import ActorDown, MailboxFull, StartTimeout, WrongMessage
from actors._events import Restarted, StartSlow, Stopped
from actors._events import Started as StartedEvent
from actors._exits import KILLED, NORMAL, SHUTDOWN, ExitReason, crashed
from actors._interrupts import protect, run_unprotected
from actors._mailbox import Accepted, Mailbox, PendingCall
from actors._messages import LATER, Ignore, Refuse, message_classes
from actors._refs import fine_replies, settle_reply
from actors._specs import MailboxPolicy
from actors._supervision import Exited, Ignored, Started, StartFailed
from actors._waits import asker

if TYPE_CHECKING:
    from actors._supervision import Child
    from actors._supervisor import Supervisor
    from actors._timers import TimerEntry

SLICE_MESSAGES = 64
SLICE_S = 0.001
"""The consumer lets others run after so many messages or seconds."""

_accepted: dict[type, Accepted] = {}


def _accepted_by(actor_type: type) -> Accepted:
    if actor_type not in _accepted:
        _accepted[actor_type] = Accepted(message_classes(actor_type))
    return _accepted[actor_type]


class Worker:
    """A child's place in the shell: survives its lives. `begin` starts one, `ask_stop` and `kill` end it."""

    __slots__ = (
        "_again",
        "_alarms",
        "_asides",
        "_asides_gone",
        "_begun",
        "_carried",
        "_cleanups",
        "_context",
        "_cut",
        "_made",
        "_open",
        "_reporting",
        "_scope",
        "_serial",
        "_stop_at",
        "_stop_reason",
        "_why",
        "child",
        "info",
        "mailbox",
        "path",
        "restarts_reported",
        "supervisor",
        "timers",
    )

    def __init__(self, supervisor: Supervisor, child: Child, mailbox: Mailbox, path: str) -> None:
        self.supervisor = supervisor
        self.child = child
        self.mailbox = mailbox
        self.path = path
        self.timers = supervisor.system.timers
        self.info: object = None
        self.restarts_reported = 0
        self._made: Actor[Any] | Job | None = None
        self._serial = 0
        self._context: Context | None = None
        self._scope: trio.CancelScope | None = None
        self._open: trio.CancelScope | None = None
        """The scope that the task is in; a life that crashed leaves it to the next one."""
        self._cut = False
        """Whether that scope is cancelled; only this object does so. (`cancel_called` reads the clock.)"""
        self._begun = False
        self._reporting = False
        self._again = False
        self._stop_at = 0.0
        self._carried = 0.0
        """When the slice of the former life ends, if this one goes on in it; else 0."""
        self._stop_reason: ExitReason | None = None
        self._why: ExitReason | None = None
        self._asides: set[trio.CancelScope] | None = None
        self._asides_gone: trio.Event | None = None
        self._alarms: list[TimerEntry] | None = None
        """While a start goes on: when it is reported, and when it has failed."""
        self._cleanups: WeakSet[trio.CancelScope] | None = None

    # --- orders of the supervisor

    def begin(self, made: Actor[Any] | Job, serial: int) -> None:
        """Start a life. The report of the former life may be under way: then the task goes on with this one."""
        self._made, self._serial = made, serial
        self._begun, self._stop_reason, self._why, self.info = False, None, None, None
        self._context = Context(self)
        if isinstance(made, Actor):
            kind: type[Actor[Any]] = type(made)
            self.mailbox.open(self, kind.mailbox, _accepted_by(kind))
            made.context = self._context
        else:
            self.mailbox.open(self, _NO_MAILBOX, _NOTHING)
        if self._reporting:
            self._again = True
        else:
            self.supervisor.system.spawn(self.run, self.path)
        if isinstance(made, Actor) and type(made).on_start is Actor.on_start:
            self._acknowledge()
        else:
            self._set_alarms()

    def _set_alarms(self) -> None:
        timers, now, serial = self.timers, trio.current_time(), self._serial
        slow_s, within_s = self.supervisor.system.slow_start_s, self.child.spec.start_within_s
        self._alarms = [timers.at(now + slow_s, lambda: self._report_slow(slow_s))] if slow_s < math.inf else []
        if within_s is not None:
            self._alarms.append(timers.at(now + within_s, lambda: self._give_up_start(within_s, serial)))

    def _drop_alarms(self) -> None:
        for alarm in self._alarms or ():
            alarm.cancel()
        self._alarms = None

    def _report_slow(self, seconds: float) -> None:
        self.supervisor.system.note_slow(StartSlow(self.path, "worker", seconds, trio.current_time()))

    def _give_up_start(self, seconds: float, serial: int) -> None:
        if self._serial == serial and not self._begun and self._stop_reason is None:
            self._stop_reason = crashed(StartTimeout(self.path, seconds))
            self._cancel(self._stop_reason)

    def ask_stop(self) -> None:
        """Stop after the message at hand, running `on_stop`."""
        if self._stop_reason is not None or self._context is None:
            return
        self._stop_reason = SHUTDOWN
        self._context.note_stop_requested()
        if not self._begun or (isinstance(self._made, Job) and not isinstance(self._made, DrainingJob)):
            self._cancel(SHUTDOWN)
        else:
            self._stop_at = 0.0
            self._nudge()

    def kill(self) -> None:
        """Stop now."""
        self._stop_reason = self._stop_reason or KILLED
        self._cancel(KILLED)
        for scope in tuple(self._cleanups or ()):
            scope.shield = False
            scope.cancel()

    @property
    def ends_at_once(self) -> bool:
        """Whether a stop cancels what it waits for, so that no other actor waits for that through it."""
        cancelled = isinstance(self._made, Job) and not isinstance(self._made, DrainingJob)
        return cancelled or self.child.spec.shutdown == "brutal_kill"

    @property
    def starts_within_s(self) -> float:
        """After how many seconds a start of it has failed at the latest."""
        within_s = self.child.spec.start_within_s
        return math.inf if within_s is None else within_s

    @property
    def stops_within_s(self) -> float:
        """After how many seconds a stop kills it; infinity for never."""
        shutdown = self.child.spec.shutdown
        return shutdown if isinstance(shutdown, int | float) else math.inf

    def close(self, reason: ExitReason) -> None:
        """Note that it has no next life in sight. A name that another worker holds stays with that."""
        if self.mailbox.owner is self:
            self.mailbox.close(reason)

    def _cancel(self, why: ExitReason) -> None:
        if self._why is None or why is KILLED:
            self._why = why
        if self._scope is not None:
            self._cut = True
            self._scope.cancel()
        else:
            self._nudge()

    def _nudge(self) -> None:
        consumer, self.mailbox.consumer = self.mailbox.consumer, None
        if consumer is not None:
            trio.lowlevel.reschedule(consumer)

    # --- what the context offers

    def ready(self, context: Context, info: object) -> None:
        """Note that the start is acknowledged."""
        if context is not self._context:
            return
        self.info = info
        self._acknowledge()

    def _acknowledge(self) -> None:
        if self._begun:
            return
        self._begun = True
        if self._alarms is not None:
            self._drop_alarms()
        system = self.supervisor.system
        if system.events.listening:
            restarts, at = self.child.restarts, trio.current_time()
            if restarts > self.restarts_reported:
                system.events.publish(Restarted(self.path, "worker", restarts, at))
            else:
                system.events.publish(StartedEvent(self.path, "worker", at))
        self.restarts_reported = self.child.restarts
        self.child.forget_frames()
        self.supervisor.feed(Started(self.child.spec.id, self._serial, self.timers.now()))

    def stop_self(self, context: Context, reason: ExitReason) -> None:
        """End this life for a reason of its own."""
        if context is not self._context or self._stop_reason is not None:
            return
        self._stop_reason = reason
        if isinstance(self._made, Job):
            self._cancel(reason)
        else:
            self._stop_at = 0.0
            self._nudge()

    def require_life(self, context: Context) -> None:
        """Raise ActorDown when the life of `context` is over: what it starts would belong to the next one."""
        if context is not self._context:
            raise ActorDown(self.path)

    def start_aside(self, context: Context, run: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Start a task that ends with this life."""
        self.require_life(context)
        scope = trio.CancelScope(shield=True)
        if self._asides is None:
            self._asides = set()
        self._asides.add(scope)
        if self._asides_gone is not None:
            scope.cancel()
        self.supervisor.system.spawn(self._aside, self.path, scope, run, args)

    async def _aside(
        self, scope: trio.CancelScope, run: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        error: BaseException | None = None
        task = trio.lowlevel.current_task()
        try:
            with scope:
                await run_unprotected(run, *args)
        except BaseException as escaped:  # the supervision seam
            if _is_closed(task):
                raise
            error = escaped
        if self._asides is not None:
            self._asides.discard(scope)
        if error is not None:
            if self._why is None:
                self._stop_reason = self._stop_reason or crashed(error)
                self._cancel(crashed(error))
            self.supervisor.system.note_interrupt(error)
        if not self._asides and self._asides_gone is not None:
            self._asides_gone.set()

    def cleanup_scope(self) -> trio.CancelScope:
        """Shielded until a kill."""
        killed = self._why is KILLED
        scope = trio.CancelScope(shield=not killed)
        if self._cleanups is None:
            self._cleanups = WeakSet()
        self._cleanups.add(scope)
        return scope

    def tell_from_timer(self, message: object) -> None:
        """Put a timer's message; a full mailbox makes it a dead letter, since there is no caller to refuse."""
        mailbox = self.mailbox
        try:
            if not mailbox.make_room(message):
                return
        except (MailboxFull, ActorDown, WrongMessage):
            mailbox.dead_letter(message, "timer")
            return
        mailbox.queue.append(message)
        if len(mailbox.queue) == 1:
            mailbox.wake()

    # --- the task

    async def run(self) -> None:
        """One life after another, while the supervisor starts the next at once.

        The next life goes on in the slice of the former one: a pass of the scheduler costs as much as the decision
        to restart. A row of crashing messages still lets others run after `SLICE_S`.
        """
        try:
            while True:
                reason = await self._live()
                if self._asides:
                    await self._end_asides()
                context = self._context
                assert context is not None
                context.close(reason)
                if self._alarms is not None:
                    self._drop_alarms()
                self._scope = self._context = self._made = self._cleanups = None
                self._again, self._reporting = False, True
                self._report(reason)
                reason = None  # its traceback holds the life that is over
                self._reporting = False
                if not self._again:
                    return
                if time.perf_counter() < self._stop_at:
                    self._carried = self._stop_at
                else:
                    await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._leave_scope(None)

    def _report(self, reason: ExitReason | None) -> None:
        supervisor, child_id = self.supervisor, self.child.spec.id
        system, at = supervisor.system, self.timers.now()
        if reason is None:
            supervisor.feed(Ignored(child_id, self._serial))
            return
        if reason.kind == "crashed":
            system.note_crash(self.path, "worker", reason, starting=not self._begun)
        elif self._begun and system.events.listening:
            system.events.publish(Stopped(self.path, "worker", reason, at))
        if self._begun:
            supervisor.feed(Exited(child_id, self._serial, reason, at))
        else:
            supervisor.feed(StartFailed(child_id, self._serial, reason, at))

    async def _live(self) -> ExitReason | None:
        """Return why the life ended; None when the start declined."""
        made = self._made
        assert made is not None
        if self._begun:
            await self._wait_for_something()
        reason = await self._work(made)
        if reason is None or not self._begun or not isinstance(made, Actor):
            return reason
        hooked = type(made).on_stop is not Actor.on_stop
        if not hooked or reason.kind == "killed" or self._why is KILLED or self.child.spec.shutdown == "brutal_kill":
            return reason
        return await self._stop_hook(made, reason)

    async def _work(self, made: Actor[Any] | Job) -> ExitReason | None:
        context = self._context
        assert context is not None
        self._enter_scope()
        error: BaseException | None = None
        task = trio.lowlevel.current_task()
        try:
            asker.set(self.mailbox)
            self.mailbox.task = task
            if isinstance(made, Job):
                await run_unprotected(made.run, context)
                self._acknowledge()
            else:
                if not self._begun:
                    await made.on_start(context)
                    self._acknowledge()
                await self._consume(made, task)
        except BaseException as escaped:  # the supervision seam: everything a child raises ends here
            if _is_closed(task):
                raise
            error = escaped
        try:
            if error is None:
                return self._stop_reason or NORMAL
            if self._cut:
                try:
                    if self._leave_scope(error):
                        return self._why or KILLED
                except BaseException as left:  # noqa: BLE001  # what is left of a group without its cancellations
                    error = left
            if isinstance(error, Ignore) and not self._begun:
                return None
            self.supervisor.system.note_interrupt(error)
            return crashed(error)
        finally:
            del error  # its traceback holds this frame: a cycle

    def _enter_scope(self) -> None:
        """Return the scope of this life: the former life's, unless that was cancelled (5 us for a new one)."""
        scope = self._open
        if scope is not None and self._cut:
            self._leave_scope(None)
            scope = None
        if scope is None:
            scope = self._open = trio.CancelScope(shield=True)
            scope.__enter__()
            self._cut = False
        self._scope = scope
        if self._why is not None:
            self._cut = True
            scope.cancel()

    def _leave_scope(self, error: BaseException | None) -> bool:
        """Return whether `error` was this scope's cancellation. Raises what is left of a group that held one."""
        scope, self._open = self._open, None
        if scope is None:
            return False
        return bool(scope.__exit__(None if error is None else type(error), error, None))

    async def _stop_hook(self, made: Actor[Any], reason: ExitReason) -> ExitReason:
        """Run `on_stop` for at most the shutdown time. A crash stays the reason whatever becomes of it."""
        limit = self.child.spec.shutdown
        task = trio.lowlevel.current_task()
        try:
            with trio.CancelScope(shield=True) as scope:
                self._scope = scope
                if isinstance(limit, int | float):
                    scope.deadline = trio.current_time() + limit
                await made.on_stop(reason)
                return reason
        except BaseException as error:  # the supervision seam
            if _is_closed(task):
                raise
            self.supervisor.system.note_interrupt(error)
            return reason if reason.kind == "crashed" else crashed(error)
        return reason if reason.kind == "crashed" else KILLED

    async def _wait_for_something(self) -> None:
        """Wait, at first without a cancel scope, which costs 5 us and 1 kB for each actor."""
        mailbox = self.mailbox
        if not mailbox.queue and mailbox.senders is None and self._stop_reason is None:
            mailbox.consumer = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(_never_abort)

    async def _end_asides(self) -> None:
        for scope in tuple(self._asides or ()):
            scope.cancel()
        gone = self._asides_gone = trio.Event()
        with trio.CancelScope(shield=True):
            await gone.wait()
        self._asides_gone = None

    async def _consume(self, actor: Actor[Any], task: trio.lowlevel.Task) -> None:
        """Handle messages until the end is wanted or one crashes."""
        mailbox = self.mailbox
        queue = mailbox.queue
        take = queue.popleft
        handle = actor.handle
        context = self._context
        assert context is not None
        clock = time.perf_counter
        fine = fine_replies
        most = SLICE_MESSAGES
        item: object = None
        taken = 0
        try:
            while not self._is_over():
                taken = 0
                self._stop_at = self._carried or clock() + SLICE_S
                self._carried = 0.0
                while queue:
                    item = take()
                    taken += 1
                    if type(item) is PendingCall:
                        if item.abandoned:
                            mailbox.abandoned -= 1
                            continue
                        item.taken = True
                        context.pending_call = item
                        try:
                            reply = await handle(item.message)
                        except Refuse as refusal:
                            settled = item.refuse(refusal.error)
                        else:
                            if reply is LATER:
                                context.require_taken()
                                settled = True
                            elif type(reply) in (fine.get(type(item.message)) or ()) and not item.done:
                                # settle_reply without its calls
                                item.done = settled = True
                                item.reply = reply
                                reschedule(item.task, item)  # type: ignore[arg-type]  # it has `unwrap`
                            else:
                                settled = settle_reply(item, reply)
                        if not settled and mailbox.events is not None:
                            mailbox.events.counters.late_replies += 1
                        context.pending_call = None
                    else:
                        try:
                            await handle(item)
                        except Refuse:
                            mailbox.dead_letter(item, "refused")
                    if taken >= most or clock() >= self._stop_at:
                        break
                item = None
                mailbox.mark(taken)
                if self._is_over():
                    return
                if queue:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                else:
                    assert mailbox.consumer is None, "a mailbox has one consumer"
                    mailbox.consumer = task
                    await trio.lowlevel.wait_task_rescheduled(self._abort_park)
        except BaseException as error:
            if item is not None and not _is_closed(task):
                killed = self._cut
                mailbox.taken += taken
                mailbox.dispose(item, "killed" if killed else "crashed", KILLED if killed else crashed(error))
            raise

    def _is_over(self) -> bool:
        return self._stop_reason is not None

    def _abort_park(self, _: object) -> trio.lowlevel.Abort:
        self.mailbox.consumer = None
        return trio.lowlevel.Abort.SUCCEEDED


def _is_closed(task: trio.lowlevel.Task) -> bool:
    """Return whether the interpreter closes the coroutine of `task`, whose run is over: it must not wait any more.

    False for a GeneratorExit that a child raised.
    """
    try:
        return trio.lowlevel.current_task() is not task
    except RuntimeError:
        return True


def _never_abort(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


_NO_MAILBOX = MailboxPolicy(bound=1)
_NOTHING = Accepted(())

protect(globals())
