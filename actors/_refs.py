"""References to actors, and the names that they resolve by."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final
from weakref import WeakValueDictionary

from trio.lowlevel import current_task, wait_task_rescheduled

from actors._errors import ActorDown, MailboxFull, ReplyTypeError, SupervisorDown
from actors._interrupts import protect
from actors._mailbox import Blocked, Mailbox, PendingCall
from actors._messages import Asks, reply_classes
from actors._waits import Wait, asker, attached, refuse_cycle

if TYPE_CHECKING:
    from actors._actor import Actor
    from actors._administration import SupervisorRef
    from actors._events import EventStream
    from actors._supervisor import Supervisor

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)
R = TypeVar("R")


@final
class ActorRef(Generic[M_contra]):
    """Where messages to an actor are put. Taken from a Registry or from `start_child`; never constructed.

    It survives restarts, and for a name also the replacement of one holder by another. To be used from the trio
    thread of the system only; another thread goes through `trio.from_thread`.
    """

    __slots__ = ("_mailbox",)
    _mailbox: Mailbox

    def __init__(self) -> None:
        raise TypeError("take references from a Registry or from start_child")

    def __repr__(self) -> str:
        return f"<ActorRef {self._mailbox.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorRef) and other._mailbox is self._mailbox

    def __hash__(self) -> int:
        return id(self._mailbox)

    @property
    def name(self) -> str:
        """The registered name; the path for an actor without one."""
        return self._mailbox.name

    @property
    def path(self) -> str:
        """The path of its holder in the tree; the name while it is not held."""
        return self._mailbox.path

    @property
    def alive(self) -> bool:
        """True while a message would be queued: the actor runs, starts, or will be restarted."""
        return self._mailbox.owner is not None

    def tell(self, message: M_contra) -> None:
        """Put `message` into the mailbox, at once. No reply, no proof that it was handled.

        Raises MailboxFull (policy "refuse"), ActorDown, WrongMessage, WrongThread.
        """
        mailbox = self._mailbox
        if get_ident() != mailbox.thread:
            mailbox.require_thread()
        queue = mailbox.queue
        depth = len(queue)
        if (depth >= mailbox.limit or type(message) not in mailbox.accepts) and not mailbox.make_room(message):
            return
        queue.append(message)
        if not depth:
            mailbox.wake()

    def hint(self, message: M_contra) -> bool:
        """As `tell`, for a message whose loss costs time only: the receiver also looks for itself. Returns False when
        it was lost, which is counted and published (HintLost; DeadLetter where the mailbox's policy dropped it).

        Raises WrongMessage, WrongThread.
        """
        mailbox = self._mailbox
        if get_ident() != mailbox.thread:
            mailbox.require_thread()
        queue = mailbox.queue
        depth = len(queue)
        if depth >= mailbox.limit or type(message) not in mailbox.accepts:
            try:
                if not mailbox.make_room(message):
                    return False
            except (ActorDown, MailboxFull) as error:
                mailbox.lose_hint(message, full=isinstance(error, MailboxFull))
                return False
        queue.append(message)
        if not depth:
            mailbox.wake()
        return True

    async def send(self, message: M_contra) -> None:
        """As `tell`, but waits for room; in the order of arrival among those who wait. Cancelled while it waits,
        nothing was sent. It is no checkpoint when there is room.

        Raises ActorDown, WrongMessage, WrongThread, CallCycle (there would never be room).
        """
        mailbox = self._mailbox
        if get_ident() != mailbox.thread:
            mailbox.require_thread()
        queue = mailbox.queue
        depth = len(queue)
        if (depth >= mailbox.limit or type(message) not in mailbox.accepts) and mailbox.must_wait(message):
            me = asker.get()
            if me is not None:
                me = attached(me)
            blocked = Blocked(message, current_task())
            if me is None:
                await mailbox.wait_for_room(blocked)
                return
            refuse_cycle(me, mailbox)
            wait = Wait(mailbox, blocked)
            me.wait_begins(wait)
            try:
                await mailbox.wait_for_room(blocked)
            finally:
                me.wait_ends(wait)
            return
        queue.append(message)
        if not depth:
            mailbox.wake()

    async def call(self: ActorRef[M], message: Asks[M, R], timeout: float = 5.0) -> R:
        """Put `message` (waiting for room within `timeout` seconds) and return the reply.

        Cancelled or expired while queued, the message is never handled; once taken it is handled to its end and a
        late reply is dropped and counted.

        Raises CallTimeout and ActorDown (with `taken`, the outcome is unknown), WrongMessage, WrongThread, CallCycle,
        ValueError (`timeout` is NaN, negative or a bool; infinity is fine), ReplyTypeError, and whatever error the
        actor refused the message with.
        """
        # No checkpoint between putting the message and parking: it cannot be settled before its task can be woken.
        mailbox = self._mailbox
        if get_ident() != mailbox.thread:
            mailbox.require_thread()
        queue = mailbox.queue
        me = asker.get()
        if me is not None:
            me = attached(me)
        if me is not None:
            refuse_cycle(me, mailbox, timeout)
        call = PendingCall(message, mailbox, timeout, current_task())
        waits = (len(queue) >= mailbox.limit or type(message) not in mailbox.accepts) and mailbox.must_wait(message)
        mailbox.timers.expire(call, timeout)  # type: ignore[union-attr]  # an open mailbox has them
        if waits:
            mailbox.add_sender(call)
        else:
            queue.append(call)
            if len(queue) == 1:
                mailbox.wake()
        if me is None:
            return await wait_task_rescheduled(call.abort)  # type: ignore[no-any-return]  # settle_reply checked it
        wait = Wait(mailbox, call)
        me.wait_begins(wait)
        try:
            return await wait_task_rescheduled(call.abort)  # type: ignore[no-any-return]
        finally:
            me.wait_ends(wait)


def make_ref(mailbox: Mailbox) -> ActorRef[Any]:
    """Return the only constructor of references."""
    ref: ActorRef[Any] = object.__new__(ActorRef)
    ref._mailbox = mailbox  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the constructor is closed
    return ref


def mailbox_of(ref: ActorRef[Any]) -> Mailbox:
    """Return what `ref` refers to."""
    return ref._mailbox  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # same module


def settle_reply(call: PendingCall, reply: object) -> bool:
    """Reply, unless `reply` is not what the message names: then that is the outcome. False when too late."""
    kind = type(call.message)
    fine = fine_replies.get(kind)
    if fine is None or type(reply) not in fine:
        wanted = reply_classes(kind)
        if wanted is not None and not isinstance(reply, wanted):
            return call.refuse(ReplyTypeError(kind, type(reply)))
        fine_replies.setdefault(kind, set()).add(type(reply))
    return call.settle(reply)


fine_replies: dict[type, set[type]] = {}
"""For each message class the reply classes that were found to be fine."""


@final
class ReplyTo:
    """The right to reply to one message later, once. Taken with `context.reply_to()`."""

    __slots__ = ("_call", "_worker_kept")

    def __init__(self, call: PendingCall | None, kept: set[PendingCall]) -> None:
        self._call = call
        self._worker_kept = kept
        if call is not None and not call.done:
            kept.add(call)
            call.kept = kept

    @property
    def wanted(self) -> bool:
        """Whether a caller still waits for the reply."""
        return self._call is not None and not self._call.done

    def reply(self, value: object) -> None:
        """Reply; a reply that comes too late is dropped and counted."""
        if self._call is not None:
            self._call.mailbox.require_thread()
            self._worker_kept.discard(self._call)
            if not settle_reply(self._call, value):
                self._count_late()

    def refuse(self, error: Exception) -> None:
        """Raise `error` at the caller."""
        if self._call is not None:
            self._call.mailbox.require_thread()
            self._worker_kept.discard(self._call)
            if not self._call.refuse(error):
                self._count_late()

    def _count_late(self) -> None:
        if self._call is not None and self._call.mailbox.events is not None:
            self._call.mailbox.events.counters.late_replies += 1


class Registry:
    """The names of one system. A reference may be taken before anybody holds its name."""

    def __init__(self) -> None:
        self._mailboxes: WeakValueDictionary[str, Mailbox] = WeakValueDictionary()
        self._supervisors: dict[str, Supervisor] = {}
        self._events: EventStream | None = None

    def attach(self, events: EventStream) -> None:
        """Serve the system: what is lost on the way to a name that nothing has held yet is counted there."""
        self._events = events
        for mailbox in self._mailboxes.values():
            mailbox.events = events

    def ref(self, actor: type[Actor[M]], name: str) -> ActorRef[M]:
        """Return a reference that resolves to the holder of `name` at each use. `actor` gives it its type."""
        del actor
        return make_ref(self.mailbox(name))

    def supervisor(self, name: str) -> SupervisorRef:
        """Return the supervisor that holds `name` when the reference is used."""
        from actors._administration import SupervisorRef

        return SupervisorRef(lambda: self.find_supervisor(name))

    def mailbox(self, name: str) -> Mailbox:
        """Return the mailbox of a name, created on demand and dropped once nothing refers to it."""
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            mailbox = self._mailboxes[name] = Mailbox(name)
            mailbox.events = self._events
        return mailbox

    def find_supervisor(self, name: str) -> Supervisor:
        """Raise SupervisorDown when the name is not held."""
        try:
            return self._supervisors[name]
        except KeyError:
            raise SupervisorDown(f"no supervisor is registered as {name!r}") from None

    def hold_supervisor(self, name: str, supervisor: Supervisor) -> bool:
        """Return whether the name is free or its own."""
        return self._supervisors.setdefault(name, supervisor) is supervisor

    def release_supervisor(self, name: str, supervisor: Supervisor) -> None:
        """Give the name back if `supervisor` holds it."""
        if self._supervisors.get(name) is supervisor:
            del self._supervisors[name]


protect(globals())
