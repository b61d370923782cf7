"""What a system tells about itself: lifecycle events, dead letters, counters.

| event             | when                                                          | fields                        |
|-------------------|---------------------------------------------------------------|-------------------------------|
| Started           | a start was acknowledged                                      | path, kind                    |
| Restarted         | the same, after an automatic restart                          | path, kind, restarts          |
| Stopped           | an end by normal, shutdown or killed                          | path, kind, reason            |
| Crashed           | an end by an escaped error; also a failed start               | path, kind, reason, starting  |
| StartSlow         | a start is not acknowledged after a while; said once          | path, kind, seconds           |
| GaveUp            | restarts exceeded the intensity                               | path, child, reason, disabled |
| DeadLetter        | a message was taken and lost, or had nobody left to take it   | name, message, cause          |
| HintLost          | a hint found its mailbox down or full                         | name, message, cause          |
| MailboxHighWater  | a mailbox filled up to 3/4 (again, after it was down to 1/2)  | name, depth, bound            |

Every event has `at`, seconds of the system's clock. Counters are kept whether or not anybody listens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec
import trio

from actors._exits import ExitReason
from actors._interrupts import protect
from actors._specs import Kind, is_whole

DeadLetterCause = Literal["crashed", "killed", "down", "dropped_oldest", "dropped_newest", "refused", "timer"]


class Started(msgspec.Struct, frozen=True):
    """A start was acknowledged."""

    path: str
    kind: Kind
    at: float


class Restarted(msgspec.Struct, frozen=True):
    """An automatic restart was acknowledged; `restarts` counts those of this child so far."""

    path: str
    kind: Kind
    restarts: int
    at: float


class Stopped(msgspec.Struct, frozen=True):
    """Something ended without a crash."""

    path: str
    kind: Kind
    reason: ExitReason
    at: float


class Crashed(msgspec.Struct, frozen=True):
    """`reason.error` escaped; `starting` when that was in its start."""

    path: str
    kind: Kind
    reason: ExitReason
    starting: bool
    at: float


class StartSlow(msgspec.Struct, frozen=True):
    """The start of `path` has taken `seconds` so far: an `on_start` that waits, or a job that did not call `ready`."""

    path: str
    kind: Kind
    seconds: float
    at: float


class GaveUp(msgspec.Struct, frozen=True):
    """The supervisor `path` gives up because of `child` (a path), or `disabled` the child alone."""

    path: str
    child: str
    reason: ExitReason
    disabled: bool
    at: float


class DeadLetter(msgspec.Struct, frozen=True):
    """`message` to `name` was not handled to its end: it crashed its actor, was cut off by a kill, lay in a mailbox
    that was closed, was dropped by the mailbox's policy, was told and refused, or a timer found no room."""

    name: str
    message: object
    cause: DeadLetterCause
    at: float


class HintLost(msgspec.Struct, frozen=True):
    """`message` was put by `ActorRef.hint`, and `name` was down or its mailbox full."""

    name: str
    message: object
    cause: Literal["down", "full"]
    at: float


class MailboxHighWater(msgspec.Struct, frozen=True):
    """A mailbox is filling up."""

    name: str
    depth: int
    bound: int
    at: float


ActorEvent = Started | Restarted | Stopped | Crashed | StartSlow | GaveUp | DeadLetter | HintLost | MailboxHighWater


class Counters(msgspec.Struct):
    """Totals since the stream was made."""

    dead_letters: int = 0
    late_replies: int = 0
    """Replies given after their caller was gone."""
    hints_lost: int = 0
    """Hints that found their mailbox down or full; those that its policy dropped are dead letters."""
    refused_messages: int = 0
    """Messages refused with MailboxFull."""
    dropped_events: int = 0
    """Events that a subscriber was too slow for."""
    listener_errors: int = 0


class Subscription:
    """The events since `subscribe`, oldest first, as an async iterator for one task."""

    def __init__(self, bound: int, counters: Counters) -> None:
        self._events: deque[ActorEvent] = deque()
        self._bound = bound
        self._counters = counters
        self._arrived = trio.Event()
        self.dropped = 0
        """Events lost because `bound` of them waited; the oldest go first."""

    def put(self, event: ActorEvent) -> None:
        """Takes an event; never waits."""
        if len(self._events) >= self._bound:
            self._events.popleft()
            self.dropped += 1
            self._counters.dropped_events += 1
        self._events.append(event)
        self._arrived.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ActorEvent:
        while not self._events:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._events.popleft()


class EventStream:
    """Where a system's events go. Costs nothing while nobody listens."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[ActorEvent], None], ...] = ()
        self.listening = False
        self.counters = Counters()
        self.on_listener_error: Callable[[BaseException], None] = _goes_no_further
        """Used by the system."""

    @contextmanager
    def listen(self, callback: Callable[[ActorEvent], None]) -> Iterator[None]:
        """Calls `callback` with every event while the context is open: on the loop, at once, it must not block.
        An error from it is counted in `counters.listener_errors` and goes no further; KeyboardInterrupt and
        SystemExit end the system. A callback for good is added with `add_listener`."""
        self.add_listener(callback)
        try:
            yield
        finally:
            self.remove_listener(callback)

    def add_listener(self, callback: Callable[[ActorEvent], None]) -> None:
        """As `listen`, until `remove_listener`."""
        self._listeners = (*self._listeners, callback)
        self.listening = True

    def remove_listener(self, callback: Callable[[ActorEvent], None]) -> None:
        """Raises ValueError when `callback` does not listen."""
        listeners = list(self._listeners)
        listeners.remove(callback)
        self._listeners = tuple(listeners)
        self.listening = bool(listeners)

    @contextmanager
    def subscribe(self, bound: int = 1024) -> Iterator[Subscription]:
        """The events as an async iterator that holds at most `bound` of them. Raises ValueError unless that is a whole
        number >= 1."""
        if not is_whole(bound, 1):
            raise ValueError(f"subscribe(bound) is {bound!r}; wanted a whole number >= 1")
        subscription = Subscription(bound, self.counters)
        with self.listen(subscription.put):
            yield subscription

    def publish(self, event: ActorEvent) -> None:
        """Hands `event` to every listener."""
        for listener in self._listeners:
            try:
                listener(event)
            except BaseException as error:  # noqa: BLE001  # a listener's fault must not become its publisher's
                self.counters.listener_errors += 1
                self.on_listener_error(error)


def _goes_no_further(_: BaseException) -> None:
    pass


protect(globals())
