"""References to actors, and the names that they resolve by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final
from weakref import WeakValueDictionary

import trio
from outcome import Error, Value

from actors._errors import CallTimeout, ReplyTypeError, SupervisorDown
from actors._mailbox import Asked, Mailbox
from actors._messages import Asks, reply_classes
from actors._waits import asker, refuse_cycle

if TYPE_CHECKING:
    from actors._actor import Actor
    from actors._supervisor import Supervisor, SupervisorRef

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
        """Where in the tree its holder is; the name while nobody holds it."""
        return self._mailbox.path

    @property
    def alive(self) -> bool:
        """True while a message would be queued: the actor runs, starts, or will be restarted."""
        return self._mailbox.owner is not None

    def tell(self, message: M_contra) -> None:
        """Puts `message` into the mailbox, at once. No reply, no proof that it was handled.

        Raises MailboxFull (policy "refuse"), ActorDown, WrongMessage.
        """
        mailbox = self._mailbox
        queue = mailbox.queue
        if (len(queue) >= mailbox.limit or type(message) not in mailbox.accepts) and not mailbox.make_room(message):
            return
        queue.append(message)
        if mailbox.consumer is not None:
            mailbox.wake()

    async def send(self, message: M_contra) -> None:
        """As `tell`, but waits for room; in the order of arrival among those who wait. Cancelled while it waits,
        nothing was sent. It is no checkpoint when there is room.

        Raises ActorDown, WrongMessage, CallCycle (the wait for room would never end).
        """
        mailbox = self._mailbox
        if (mailbox.senders or len(mailbox.queue) >= mailbox.limit or type(message) not in mailbox.accepts) and not (
            mailbox.has_room(message) and not mailbox.senders
        ):
            me = asker.get()
            if me is None:
                await mailbox.wait_for_room(message)
                return
            refuse_cycle(me, mailbox)
            me.waiting.append(mailbox)
            try:
                await mailbox.wait_for_room(message)
            finally:
                me.waiting.remove(mailbox)
            return
        mailbox.queue.append(message)
        if mailbox.consumer is not None:
            mailbox.wake()

    async def call(self: ActorRef[M], message: Asks[M, R], timeout: float = 5.0) -> R:
        """Puts `message` (waiting for room within `timeout` seconds) and returns the reply.

        Cancelled or expired while queued, the message is never handled; once taken it is handled to its end and a
        late reply is dropped and counted.

        Raises CallTimeout and ActorDown (with `taken`, the outcome is unknown), WrongMessage, CallCycle,
        ReplyTypeError, and whatever error the actor refused the message with.
        """
        mailbox = self._mailbox
        asked = Asked(message, mailbox, timeout)
        if mailbox.senders or len(mailbox.queue) >= mailbox.limit or type(message) not in mailbox.accepts:
            room = mailbox.has_room(message) and not mailbox.senders
        else:
            room = True
        me = asker.get()
        if me is not None:
            refuse_cycle(me, mailbox)
            me.waiting.append(mailbox)
        if room:
            mailbox.queue.append(asked)
            if mailbox.consumer is not None:
                mailbox.wake()
        else:
            mailbox.senders.append(asked)
        timer = None
        if timeout != math.inf and mailbox.owner is not None:
            timer = mailbox.owner.timers.at(trio.current_time() + timeout, _Expiry(asked))

        def abort(_: object) -> trio.lowlevel.Abort:
            asked.abandon()
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            if asked.outcome is None:
                asked.task = trio.lowlevel.current_task()
                reply = await trio.lowlevel.wait_task_rescheduled(abort)
            else:
                reply = asked.outcome.unwrap()
        finally:
            if timer is not None:
                timer.cancel()
            if me is not None:
                me.waiting.remove(mailbox)
        return reply  # type: ignore[no-any-return]  # checked against the message's reply class by the replier


class _Expiry:
    __slots__ = ("asked",)

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    def __call__(self) -> None:
        asked = self.asked
        if not asked.done:
            error = CallTimeout(asked.mailbox.name, asked.timeout_s, taken=asked.taken)
            task = asked.task
            asked.abandon()
            if task is not None:
                trio.lowlevel.reschedule(task, Error(error))
            else:
                asked.outcome = Error(error)


def make_ref(mailbox: Mailbox) -> ActorRef[Any]:
    """The only constructor of references."""
    ref: ActorRef[Any] = object.__new__(ActorRef)
    ref._mailbox = mailbox  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the constructor is closed
    return ref


def mailbox_of(ref: ActorRef[Any]) -> Mailbox:
    """What `ref` refers to."""
    return ref._mailbox  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # same module


def settle_reply(asked: Asked, reply: object) -> bool:
    """Replies, unless `reply` is not what the message names: then that is the outcome. False when too late."""
    wanted = reply_classes(type(asked.message))
    if wanted is not None and not isinstance(reply, wanted):
        return asked.settle(Error(ReplyTypeError(type(asked.message), type(reply))))
    return asked.settle(Value(reply))


@final
class ReplyTo:
    """The right to reply to one message later, once. Taken with `context.reply_to()`."""

    __slots__ = ("_asked", "_worker_kept")

    def __init__(self, asked: Asked | None, kept: set[Asked]) -> None:
        self._asked = asked
        self._worker_kept = kept
        if asked is not None:
            kept.add(asked)

    @property
    def awaited(self) -> bool:
        """True while somebody waits for the reply."""
        return self._asked is not None and not self._asked.done

    def reply(self, value: object) -> None:
        """Replies; a reply that nobody waits for any more is dropped and counted."""
        if self._asked is not None:
            self._worker_kept.discard(self._asked)
            if not settle_reply(self._asked, value):
                self._count_late()

    def refuse(self, error: Exception) -> None:
        """Raises `error` at the caller."""
        if self._asked is not None:
            self._worker_kept.discard(self._asked)
            if not self._asked.settle(Error(error)):
                self._count_late()

    def _count_late(self) -> None:
        if self._asked is not None and self._asked.mailbox.events is not None:
            self._asked.mailbox.events.counters.late_replies += 1


class Registry:
    """The names of one system. A reference may be taken before anybody holds its name."""

    def __init__(self) -> None:
        self._mailboxes: WeakValueDictionary[str, Mailbox] = WeakValueDictionary()
        self._supervisors: dict[str, Supervisor] = {}

    def ref(self, actor: type[Actor[M]], name: str) -> ActorRef[M]:
        """The reference that resolves to whoever holds `name` when it is used. `actor` gives it its type."""
        del actor
        return make_ref(self.mailbox(name))

    def supervisor(self, name: str) -> SupervisorRef:
        """The supervisor that holds `name` when the reference is used."""
        from actors._supervisor import SupervisorRef

        return SupervisorRef(lambda: self.find_supervisor(name))

    def mailbox(self, name: str) -> Mailbox:
        """The mailbox of a name, made when needed and dropped when nobody refers to it."""
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            mailbox = self._mailboxes[name] = Mailbox(name)
        return mailbox

    def find_supervisor(self, name: str) -> Supervisor:
        """Raises SupervisorDown when nobody holds the name."""
        try:
            return self._supervisors[name]
        except KeyError:
            raise SupervisorDown(f"no supervisor is registered as {name!r}") from None

    def hold_supervisor(self, name: str, supervisor: Supervisor) -> bool:
        """False when another one holds the name."""
        return self._supervisors.setdefault(name, supervisor) is supervisor

    def release_supervisor(self, name: str, supervisor: Supervisor) -> None:
        """Gives the name back if `supervisor` holds it."""
        if self._supervisors.get(name) is supervisor:
            del self._supervisors[name]
