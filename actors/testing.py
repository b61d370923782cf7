"""Doubles and recorders for tests of actors; the framework's own tests use only these."""

from __future__ import annotations

import importlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar, TypeVarTuple

import msgspec
import trio
import trio.testing

from actors._actor import Actor, Context
from actors._crashes import witnesses
from actors._events import ActorEvent, Crashed, DeadLetter, EventStream
from actors._exits import ExitReason, without_frames
from actors._interrupts import interrupt_in

M = TypeVar("M")
T = TypeVar("T")
E = TypeVar("E", bound=ActorEvent)
Ts = TypeVarTuple("Ts")
_LISTED: Final = 20


class Journal(Generic[M]):
    """What a Probe saw, over all its lives; outlives it."""

    def __init__(self) -> None:
        self.messages: list[M] = []
        self.starts = 0
        self.stops: list[ExitReason] = []
        self._unread: deque[M] = deque()
        self._changed = trio.Event()

    async def next(self, timeout_s: float = 5.0) -> M:
        """Return the next message not yet returned by this method. Raises trio.TooSlowError."""
        with trio.fail_after(timeout_s):
            while not self._unread:
                await self._changed.wait()
        return self._unread.popleft()

    async def wait_until(self, true: Callable[[Journal[M]], bool], timeout_s: float = 5.0) -> None:
        """Return once `true(self)` holds. Raises trio.TooSlowError."""
        with trio.fail_after(timeout_s):
            while not true(self):
                await self._changed.wait()

    def note_message(self, message: M) -> None:
        """Keep a message; for Probe."""
        self.messages.append(message)
        self._unread.append(message)
        self.note()

    def note(self) -> None:
        """Wake those who wait for a change; for Probe."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()


class Probe(Actor[Any], Generic[M]):
    """An actor that records what it is sent and answers from `replies`: message class -> reply, exception to raise
    (an Exception instance crashes it, a `Refuse` refuses), or function of the message (async or not)."""

    def __init__(self, journal: Journal[M], replies: dict[type, object] | None = None) -> None:
        self.journal = journal
        self.replies = replies or {}

    async def on_start(self, context: Context) -> None:
        """Count the start."""
        self.journal.starts += 1
        self.journal.note()

    async def handle(self, message: Any) -> object:
        """Record a message, then answer it."""
        self.journal.note_message(message)
        reply = self.replies.get(type(message))
        if isinstance(reply, BaseException):
            raise reply
        if callable(reply):
            answer = reply(message)
            return await answer if isinstance(answer, Awaitable) else answer
        return reply

    async def on_stop(self, reason: ExitReason) -> None:
        """Record the reason."""
        self.journal.stops.append(reason)
        self.journal.note()


class Recorder:
    """The events of a stream from the moment it listens."""

    def __init__(self) -> None:
        self.events: list[ActorEvent] = []
        self._changed = trio.Event()

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """Those that are dead letters."""
        return self.of(DeadLetter)

    def of(self, kind: type[E]) -> list[E]:
        """Return those of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def put(self, event: ActorEvent) -> None:
        """Record an event."""
        self.events.append(event)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_for(self, kind: type[E], true: Callable[[E], bool] | None = None, timeout_s: float = 5.0) -> E:
        """Return the first event of the class, past or to come, for which `true` holds. Raises trio.TooSlowError."""
        with trio.fail_after(timeout_s):
            while True:
                for event in self.of(kind):
                    if true is None or true(event):
                        return event
                await self._changed.wait()


@contextmanager
def recording(events: EventStream) -> Iterator[Recorder]:
    """Record while the context is open."""
    recorder = Recorder()
    with events.listen(recorder.put):
        yield recorder


class Crashes:
    """The crashes in every system of this process since it was made, and which of them were expected."""

    def __init__(self, expected: tuple[type[BaseException], ...]) -> None:
        self.events: list[Crashed] = []
        """Without the tracebacks of their errors, which would hold what the dead lives held."""
        self._classes: list[type[BaseException]] = []
        self._expected: list[tuple[tuple[type[BaseException], ...], str | None]] = [(expected, None)]

    def expect(self, *kinds: type[BaseException], path: str | None = None) -> None:
        """From now on and before, a crash by one of `kinds` (in the child `path`, if given) is fine. It need not
        happen."""
        self._expected.append((kinds, path))

    @property
    def unexpected(self) -> list[Crashed]:
        """Those that nothing expected."""
        seen = zip(self.events, self._classes, strict=True)
        return [event for event, kind in seen if not self._is_expected(kind, event.path)]

    def _is_expected(self, kind: type[BaseException], path: str) -> bool:
        return any(issubclass(kind, kinds) and wanted in (None, path) for kinds, wanted in self._expected)

    def note(self, event: Crashed) -> None:
        """Keep a crash, for `no_unexpected_crashes`. An interrupt is none."""
        error = event.reason.error
        if error is not None and interrupt_in(error, replaced=True) is None:
            self.events.append(msgspec.structs.replace(event, reason=without_frames(event.reason)))
            self._classes.append(type(error))


@contextmanager
def no_unexpected_crashes(*expected: type[BaseException]) -> Iterator[Crashes]:
    """Raise AssertionError at its end when an actor, a job or a start crashed by an error of no `expected` class, in
    any system of this process; also when a supervisor restarted it and nobody noticed. The log has the tracebacks.

    Works around `trio.run` and inside it. Interrupts are no crashes. In pytest, write a fixture of it.
    """
    crashes = Crashes(expected)
    witnesses.append(crashes.note)
    try:
        yield crashes
    finally:
        witnesses.remove(crashes.note)
    found = crashes.unexpected
    if found:
        listed = "".join(f"\n- {event.path}: {event.reason}" for event in found[:_LISTED])
        raise AssertionError(f"{len(found)} unexpected crashes:{listed}") from found[0].reason.error


async def settle() -> None:
    """Return when every other task waits for something; virtual time stands still."""
    await trio.testing.wait_all_tasks_blocked()


def run_deterministic(run: Callable[[*Ts], Awaitable[T]], *args: *Ts, seed: int = 0) -> T:
    """`trio.run` in virtual time, with an order of tasks that `seed` decides: the same seed, the same run.

    Not for code that uses threads, sockets or processes: virtual time does not wait for them.
    """
    # trio offers no public switch; Hypothesis uses the same two names.
    core = importlib.import_module("trio._core._run")
    former = {name: getattr(core, name) for name in ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r")}
    vars(core).update(_ALLOW_DETERMINISTIC_SCHEDULING=True, _r=random.Random(seed))
    try:
        return trio.run(run, *args, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        vars(core).update(former)
