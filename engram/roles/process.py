"""The life of a process: umask, limits and logs; then the program's claims (a folder, keys; this may block); then, on
the loop, signals, the supervision tree with its events observed, and readiness; and an exit status.
"""

import gc
import json
import os
import random
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from typing import Any, Final, Protocol, final

import structlog
import trio

from actors import (
    Actor,
    Backoff,
    ChildSpec,
    EventStream,
    Intensity,
    Job,
    NodeInfo,
    Registry,
    StartFailed,
    SupervisorSpec,
    System,
    SystemFailed,
    open_system,
)
from engram.clock import Clock, Ids, SystemClock, SystemIds
from engram.http import descriptors
from engram.service_manager import ServiceManager
from engram.telemetry import logs
from engram.telemetry.actor_events import observer
from engram.telemetry.metrics import Metrics

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_CANNOT_START: Final = 2
TURN_S: Final = 0.001
"""The interpreter's switch interval: computing threads yield to the loop after this (Python's default is 5 ms)."""

_log = structlog.get_logger("engram")


class Program(Protocol):
    """The program that a process runs."""

    def opened(self) -> AbstractAsyncContextManager[SupervisorSpec]:
        """Open resources and return the tree to run; on exit, after the tree has stopped, close them."""
        ...

    def started(self) -> None:
        """Note that the whole tree is running."""
        ...

    def ended(self) -> None:
        """Note that the tree has stopped normally."""
        ...


@final
class Process:
    """The parts that every program shares, and the process's life on the loop."""

    def __init__(self, name: str, refusals: tuple[type[Exception], ...], ready_fd: int | None = None) -> None:
        """Take the `name` for the "cannot start" message of `refusals`, which are raised before the tree runs."""
        self.name = name
        self.refusals = refusals
        self.registry = Registry()
        self.clock: Clock = SystemClock()
        self.ids: Ids = SystemIds()
        self.rng = random.Random(secrets.randbits(64))
        self.metrics = Metrics()
        self.manager = ServiceManager()
        self.reload: Callable[[], None] | None = None
        """Reads the settings again, at SIGHUP."""
        self.system: System | None = None
        self._ready_fd = ready_fd
        self._status = "starting"
        self._lost: Callable[[], None] | None = None

    def live(self, claimed: Callable[["Process"], AbstractContextManager[Program]]) -> int:
        """Claim what the program needs, then run it until its end or a signal; return the exit status.

        0: ended as it should; 1: failed while it ran, or what it needs from elsewhere is away (the error's `may_pass`);
        2: cannot start, and standard error says why.
        """
        try:
            with ExitStack() as claims:
                with self.manager.opening():
                    program = claims.enter_context(claimed(self))
                return trio.run(self.run, program)
        except self.refusals as error:
            return self._cannot_start(error)

    async def run(self, program: Program) -> int:
        """Run the part of `live` that is on the loop; return the exit status."""
        async with trio.open_nursery() as nursery:
            boot, status = trio.CancelScope(), EXIT_OK
            nursery.start_soon(self._stop_on_signals, boot)
            nursery.start_soon(self.manager.feed_watchdog)
            if self.reload is not None:
                nursery.start_soon(self._reload_on_hangup, self.reload)
            with boot:
                try:
                    status = await self._run_tree(program)
                except self.refusals as error:
                    status = self._cannot_start(error)
            nursery.cancel_scope.cancel()
        return status

    def nodes(self) -> list[NodeInfo]:
        """Return the live tree; empty until it is up."""
        return [] if self.system is None else self.system.tree()

    def fail(self, report: Callable[[], None]) -> None:
        """End the process as failed, because of a loss that no restart repairs; `report` logs it at the end."""
        self._lost = report
        if self.system is not None:
            self.system.request_stop()

    def say_ready(self, **urls: str) -> None:
        """Log that everything serves, and write it as a JSON line to the descriptor given at the start, if any."""
        line = {"ready": True, "pid": os.getpid(), "url": urls.get("gateway_url"), **urls}
        _log.info("ready", **urls)
        self.serves(" ".join(f"{name.removesuffix('_url')} {url}" for name, url in urls.items()) or "running")
        if self._ready_fd is not None:
            os.write(self._ready_fd, json.dumps(line).encode() + b"\n")
            os.close(self._ready_fd)

    def serves(self, status: str) -> None:
        """Tell the service manager that everything serves; it shows `status`."""
        self._status = status
        self.manager.ready(status)

    async def _run_tree(self, program: Program) -> int:
        events = EventStream()
        try:
            with events.listen(observer(self.metrics)):
                async with (
                    program.opened() as tree,
                    open_system(tree, registry=self.registry, rng=self.rng, events=events, log_crashes=False) as system,
                ):
                    self.system = system
                    # Imported modules and the tree live until the end; scanning them in each full collection
                    # would stop the loop for 50 to 80 ms.
                    gc.collect()
                    gc.freeze()
                    program.started()
                    if self._lost is not None:  # while the tree was starting
                        system.request_stop()
                    await system.wait()
        except (StartFailed, SystemFailed) as failed:
            if isinstance(cause := _innermost(failed), OSError):
                raise cause from failed
            _log.error("tree_gave_up", error=str(failed))
            return EXIT_FAILED
        if self._lost is not None:
            self._lost()
            return EXIT_FAILED
        program.ended()
        return EXIT_OK

    async def _reload_on_hangup(self, reload: Callable[[], None]) -> None:
        """Reload; but where a terminal shows the log, its end is the end of the process, as it is of other programs."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                if sys.stderr.isatty():
                    os.kill(os.getpid(), signal.SIGTERM)
                    continue
                self.manager.reloading()
                reload()
                self.manager.ready(self._status)

    async def _stop_on_signals(self, boot: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                _log.info("stopping", signal=signal.Signals(number).name)
                self.manager.stopping("ending event streams, answering what was started")
                if self.system is None:
                    boot.cancel()
                else:
                    self.system.request_stop()
                break
            async for number in signals:
                _log.warning("stopping_at_once", signal=signal.Signals(number).name)
                if self.system is not None:
                    self.system.kill()

    def _cannot_start(self, error: Exception) -> int:
        print(f"{self.name} cannot start: {error}", file=sys.stderr)
        return EXIT_FAILED if getattr(error, "may_pass", False) else EXIT_CANNOT_START


def begin(log_level: str, *, json_logs: bool) -> None:
    """Set umask, limits and logs first: the files of a process contain signed payments and paths of keys."""
    os.umask(0o077)
    descriptors.raise_limit()
    yield_to_the_loop()
    logs.configure(log_level, json=json_logs)


def yield_to_the_loop() -> None:
    """Let threads that compute, as a ledger's writer does, give way to the loop after TURN_S."""
    sys.setswitchinterval(min(sys.getswitchinterval(), TURN_S))


def spare(name: str, start: Callable[[], Actor[Any] | Job | None]) -> ChildSpec:
    """Return a child whose failures never end the process: restarts back off, and finally it stays down."""
    return ChildSpec(
        name,
        start,
        name=name,
        backoff=Backoff(0.2, 30.0, reset_after_s=60.0),
        intensity=Intensity(restarts=20, period_s=600.0),
        on_exceed="disable",
    )


def _innermost(failed: StartFailed | SystemFailed) -> BaseException | None:
    cause: BaseException | None = failed
    while isinstance(cause, StartFailed):
        cause = cause.__cause__
    return cause
