"""What callers of actors and supervisors must be ready for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors._exits import ExitReason
    from actors._refs import ActorRef


class ActorsError(Exception):
    """Base of every error of this package. Never raised itself."""

    def __init__(self, *args: object) -> None:
        if type(self) is ActorsError:
            raise TypeError("ActorsError is a base class: raise one of its subclasses")
        super().__init__(*args)


class MailboxFull(ActorsError):
    """The mailbox of `name` holds `bound` messages; this one was not taken. Nothing happened: try later or shed."""

    def __init__(self, name: str, bound: int) -> None:
        super().__init__(f"the mailbox of {name!r} is full ({bound} messages)")
        self.name, self.bound = name, bound


class ActorDown(ActorsError):
    """No actor answers at `name`. With `taken` the message had been taken: whether it took effect is unknown."""

    def __init__(self, name: str, reason: ExitReason | None = None, *, taken: bool = False) -> None:
        super().__init__(f"{name!r} is down" + ("" if reason is None else f": {reason}"))
        self.name, self.reason, self.taken = name, reason, taken


class CallTimeout(ActorsError):
    """No reply from `name` within `timeout_s`. With `taken` the outcome is unknown; without it, it never ran."""

    def __init__(self, name: str, timeout_s: float, *, taken: bool) -> None:
        how = "taken, outcome unknown" if taken else "never taken"
        super().__init__(f"no reply from {name!r} within {timeout_s:g} s ({how})")
        self.name, self.timeout_s, self.taken = name, timeout_s, taken


class CallCycle(ActorsError):
    """The answer could never come: the wait would close the circle `path` of waits. Nothing was sent."""

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__("refused, it would wait for itself: " + " -> ".join(path))
        self.path = path


class WrongMessage(ActorsError, TypeError):
    """The actor at `name` does not take messages of this class. Nothing was sent."""

    def __init__(self, name: str, message_type: type) -> None:
        super().__init__(f"{name!r} takes no {message_type.__name__}")
        self.name, self.message_type = name, message_type


class WrongThread(ActorsError, RuntimeError):
    """`name` was used from another thread than the one in which its system runs. Nothing happened; there, write
    `trio.from_thread.run_sync(ref.tell, message)`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} belongs to the thread of its system; elsewhere use trio.from_thread")
        self.name = name


class ReplyTypeError(ActorsError, TypeError):
    """The actor handled the message but its reply is not of the class that the message names."""

    def __init__(self, message_type: type, got: type) -> None:
        super().__init__(f"the reply to {message_type.__name__} was a {got.__name__}")
        self.message_type, self.got = message_type, got


class InvalidSpec(ActorsError, ValueError):
    """A child or supervisor specification is wrong; `field` names the culprit."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


class StartFailed(ActorsError):
    """The child `child_id` did not start; `reason.error` (also `__cause__`) is what its start raised."""

    def __init__(self, child_id: str, reason: ExitReason) -> None:
        super().__init__(f"{child_id!r} failed to start: {reason}")
        self.child_id, self.reason = child_id, reason
        self.__cause__ = reason.error


class StartTimeout(ActorsError):
    """The start of `path` was not done within its `start_within_s`: its `on_start` did not return, or the job did not
    call `context.ready()`."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(f"{path!r} was not ready within {seconds:g} s")
        self.path, self.seconds = path, seconds


class BadReturn(ActorsError, TypeError):
    """A child's `start` returned neither an actor, a job, a supervisor's specification nor None."""

    def __init__(self, got: type) -> None:
        super().__init__(f"start returned a {got.__name__}; wanted an Actor, a Job, a SupervisorSpec or None")
        self.got = got


class NameTaken(ActorsError):
    """Another running actor holds the name; `owner` is its reference."""

    def __init__(self, name: str, owner: ActorRef[Any]) -> None:
        super().__init__(f"the name {name!r} is held by {owner.path!r}")
        self.name, self.owner = name, owner


class SupervisorDown(ActorsError):
    """No supervisor answers at this name, or it is stopping."""


class NotFound(ActorsError):
    """The supervisor has no such child."""


class AlreadyStarted(ActorsError):
    """A child of this id runs; `ref` is its reference (None for a supervisor)."""

    def __init__(self, child_id: str, ref: ActorRef[Any] | None) -> None:
        super().__init__(f"{child_id!r} is already started")
        self.child_id, self.ref = child_id, ref


class AlreadyPresent(ActorsError):
    """A child of this id is specified but does not run: restart or delete it."""


class ChildRunning(ActorsError):
    """The child runs (or is ending): stop it first."""


class ChildRestarting(ActorsError):
    """The child waits for its next restart: stop it first."""


class MaxChildren(ActorsError):
    """The supervisor has as many children as its `max_children` allows."""


class NotAllowed(ActorsError):
    """This supervisor's strategy does not offer the request."""


class SystemFailed(ActorsError):
    """The root of the tree gave up. `__cause__` is the innermost error that led to it."""

    def __init__(self, reason: ExitReason) -> None:
        super().__init__(f"the system failed: {reason}")
        self.reason = reason
        self.__cause__ = reason.error
