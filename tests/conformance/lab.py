"""A place to run a supervisor under test, and children that end as they are told.

OTP's suite compares process identifiers to see whether a child is a new process. Here a reference outlives its
actor's lives, so each life has a number instead.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors import (
    NORMAL,
    SHUTDOWN,
    Actor,
    ActorRef,
    ChildSpec,
    Context,
    Crashed,
    ExitReason,
    Ignore,
    Message,
    Registry,
    Stopped,
    SupervisorRef,
    SupervisorSpec,
    System,
    open_system,
)
from actors.testing import Recorder, recording, settle

_lives = itertools.count(1)

SHUTDOWN_X = ExitReason("shutdown", "x")
KILL = ExitReason("killed", "as a kill from outside")


class Boom(Exception):
    """An abnormal end."""


ABNORMAL = ExitReason("crashed", error=Boom("abnormal"))
EXITS = {"normal": NORMAL, "shutdown": SHUTDOWN, "shutdown_x": SHUTDOWN_X, "abnormal": ABNORMAL, "kill": KILL}


class Life(Message[int], frozen=True):
    """Replied to with the number of the life."""


class End(Message[None], frozen=True):
    """Ends the life for `reason`; raises the error of a crash."""

    reason: ExitReason


class Proc(Actor[Life | End]):
    """A child that records its starts and stops in `log` and takes its time."""

    def __init__(
        self,
        log: list[tuple[str, str]] | None = None,
        *,
        on_start: Callable[[Context], None] | None = None,
        start_s: float = 0.0,
        stop_s: float = 0.0,
        info: object = None,
    ) -> None:
        self.log = log if log is not None else []
        self.hook = on_start
        self.start_s = start_s
        self.stop_s = stop_s
        self.info = info
        self.life = next(_lives)

    async def on_start(self, context: Context) -> None:
        if self.start_s:
            await trio.sleep(self.start_s)
        if self.hook is not None:
            self.hook(context)
        context.ready(self.info)
        self.log.append(("start", context.path.rsplit("/", 1)[-1]))

    async def handle(self, message: Life | End) -> object:
        match message:
            case Life():
                return self.life
            case End(reason):
                if reason.kind == "crashed":
                    assert reason.error is not None
                    raise type(reason.error)(*reason.error.args)
                self.context.stop(reason)
                return None

    async def on_stop(self, reason: ExitReason) -> None:
        if reason.kind == "shutdown" and self.stop_s:
            await trio.sleep(self.stop_s)
        self.log.append((f"stop {reason.kind}", self.context.path.rsplit("/", 1)[-1]))


def ignore(_: Context) -> None:
    """A start that declines."""
    raise Ignore


def fail(_: Context) -> None:
    """A start that fails."""
    raise Boom("start")


class Switch:
    """A start hook whose behaviour is set from outside."""

    def __init__(self, hook: Callable[[Context], None] | None = None) -> None:
        self.hook = hook
        self.calls = 0

    def __call__(self, context: Context) -> None:
        self.calls += 1
        if self.hook is not None:
            self.hook(context)


class Lab:
    """One system whose root holds what is tested as temporary children, so that an end is seen and goes no further."""

    def __init__(self, system: System, registry: Registry, recorder: Recorder) -> None:
        self.system = system
        self.registry = registry
        self.recorder = recorder
        self.log: list[tuple[str, str]] = []

    @property
    def root(self) -> SupervisorRef:
        return self.registry.supervisor("lab")

    async def start(self, spec: SupervisorSpec) -> SupervisorRef:
        """Starts the supervisor under test; raises what its start raises."""
        await self.root.start_child(
            ChildSpec(spec.id, lambda: spec, restart="temporary", kind="supervisor", name=spec.name or spec.id)
        )
        return self.registry.supervisor(spec.name or spec.id)

    def child(self, id: str, **options: Any) -> ChildSpec:
        """A child that runs a Proc, registered under its id."""
        proc = {key: options.pop(key) for key in ("on_start", "start_s", "stop_s", "info") if key in options}
        options.setdefault("name", id)
        return ChildSpec(id, lambda: Proc(self.log, **proc), **options)

    def ref(self, name: str) -> ActorRef[Life | End]:
        return self.registry.ref(Proc, name)

    async def life(self, name: str) -> int:
        """The number of the life that runs under this name."""
        return await self.ref(name).call(Life())

    async def lives(self, *names: str) -> list[int]:
        return [await self.life(name) for name in names]

    async def end(self, name: str, reason: ExitReason | str = ABNORMAL) -> None:
        """Makes the child end and waits until everything that follows at once has happened."""
        self.ref(name).tell(End(EXITS[reason] if isinstance(reason, str) else reason))
        await settle()

    def running(self, supervisor: str) -> bool:
        return any(node.path == f"lab/{supervisor}" for node in self.system.tree())

    async def ended(self, supervisor: str) -> ExitReason:
        """Why the supervisor under test ended."""
        stopped = await self.recorder.wait_for(Stopped, lambda event: event.path == f"lab/{supervisor}", 100)
        return stopped.reason

    async def counts(self, supervisor: SupervisorRef) -> tuple[int, int, int, int]:
        count = await supervisor.count()
        return count.specs, count.active, count.supervisors, count.workers

    async def states(self, supervisor: SupervisorRef) -> dict[str, str]:
        """State by id, in the order of start."""
        return {info.id: info.state for info in reversed(await supervisor.children())}

    def no_stray_exit(self) -> bool:
        """Nothing but the tested supervisor itself was reported as ended."""
        return not self.recorder.of(Stopped) or all(e.path.count("/") > 0 for e in self.recorder.of(Stopped))

    def crashes(self, path: str) -> list[Crashed]:
        return [event for event in self.recorder.of(Crashed) if event.path == path]


@asynccontextmanager
async def open_lab() -> AsyncIterator[Lab]:
    registry = Registry()
    spec = SupervisorSpec("lab", strategy="dynamic", name="lab")
    async with open_system(spec, registry=registry, log_crashes=False) as system:
        with recording(system.events) as recorder:
            yield Lab(system, registry, recorder)
