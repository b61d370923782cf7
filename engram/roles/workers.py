"""`engram gateway --workers N`: several gateways on one machine and one port, on one PostgreSQL ledger.

The parent holds the data folder and the listening sockets, hands the sockets down, starts each worker again that ends,
and shows all of them to the operator. It sells nothing and has no lease. A worker has a folder of its own in it (its
lock and control socket); keys and nodes are in the common one, so that nodes live on when their worker ends, and are
found by its next start, or by the worker that takes its sessions over (docs/scaling.md).

```
starting --(its ready line)--> up --(it ends)--> starting (after a pause that grows)
    |                           |
    +--(the parent is stopped)--+--> SIGTERM to all, each drains --> gone
```
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, final

import msgspec
import structlog
import trio

import config
from actors import Backoff, ChildSpec, Context, Intensity, Job, SupervisorSpec
from config.model import Settings
from engram import children
from engram.children import Program
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.http.listener import Listener
from engram.http.sockets import Address, listen, passed
from engram.ledger import FolderInUse, data_folder
from engram.roles import workers_ops
from engram.roles.gateway import Gateway
from engram.roles.process import EXIT_CANNOT_START, Process, begin
from engram.roles.shared import REFUSALS, writes_json
from engram.roles.workers_control import pass_on_commands
from engram.roles.workers_ops import GatewayWorker
from engram.wire import decode

MOST: Final = 64
READY_S: Final = 120.0
"""A worker that does not serve by then is ended and started again."""
LOOK_S: Final = 5.0
MISSES: Final = 6
"""A worker that has answered nothing so many times is killed: its lease alone does not show that its loop hangs."""
SLACK_S: Final = 10.0
"""A worker may take so much longer to end than its drain."""

_OWN: Final = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
)
"""What a service manager says to the parent alone."""

_log = structlog.get_logger("engram.workers")


class ServingLine(msgspec.Struct):
    """The line that a worker writes once it serves."""

    pid: int
    ops_url: str
    facilitator_url: str = ""


class WorkerEnded(Exception):
    """A worker has ended by itself; it is started again."""


@final
class Workers:
    """The parent's program; see process.Program."""

    def __init__(self, process: Process, loaded: config.Loaded, folder: Path, count: int, given: Sequence[str]) -> None:
        """Open the sockets. `given` are the options of the command line for each worker. Raises OSError."""
        self._process = process
        self._settings = loaded.settings
        self._folder = folder
        self._given = tuple(given)
        self.workers = [GatewayWorker(number) for number in range(1, count + 1)]
        self._sockets = _opened(self._settings)
        at, ops = self._settings.gateway, self._settings.ops
        secure = bool(at.tls_certificate)
        self.url = msgspec.structs.replace(Address.of(self._sockets["gateway"][0]), secure=secure).url
        self._ops = Listener(ops.host, ops.port, self._settings.http, self._settings.shutdown.drain_s)
        self._facilitator_url = ""
        self._environ = {name: value for name, value in os.environ.items() if name not in _OWN}
        self._changed = trio.Event()
        self._refused: list[int] = []
        """Workers that could not start the first time: they have said why."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SupervisorSpec]:
        """Yield the tree: the workers, and the operator's listener."""
        self._http = HttpClient()
        application = workers_ops.application(
            self.url, self.workers, self._http, self._settings.http, self._process.clock, self._process.ids
        )
        end_s = self._settings.shutdown.drain_s + SLACK_S
        try:
            yield SupervisorSpec(
                "root",
                [
                    *(self._child(worker, end_s + 1.0) for worker in self.workers),
                    ChildSpec("serving", lambda: Job(self._until_all_serve), restart="temporary"),
                    ChildSpec("control", lambda: Job(partial(pass_on_commands, self._folder, self.workers))),
                    ChildSpec("ops", lambda: self._ops.job(application), shutdown=end_s, backoff=Backoff(0.1, 5.0)),
                ],
                strategy="one_for_one",
                intensity=Intensity(restarts=30 * len(self.workers), period_s=60.0),
            )
        finally:
            with trio.CancelScope(shield=True):
                await self._http.aclose()
            for held in self._sockets.values():
                for each in held:
                    each.close()

    def started(self) -> None:
        """Log the URLs."""
        urls = {"gateway_url": self.url, "ops_url": self._ops.url, "facilitator_url": self._facilitator_url}
        self._process.say_ready(**{name: url for name, url in urls.items() if url})

    def ended(self) -> None:
        """Log the end."""
        _log.info("stopped")

    def hang_up(self) -> None:
        """Let each worker read its settings again."""
        for worker in self.workers:
            if (process := worker.running) is not None:
                process.send_signal(signal.SIGHUP)

    def _child(self, worker: GatewayWorker, end_s: float) -> ChildSpec:
        return ChildSpec(
            f"worker_{worker.number}",
            lambda: Job(partial(self._run, worker)),
            backoff=Backoff(0.2, 30.0, reset_after_s=60.0),
            shutdown=end_s,
        )

    def _end_all(self) -> None:
        """Ask each worker once to end: they drain beside each other."""
        for worker in self.workers:
            if (process := worker.running) is not None and not worker.ending:
                worker.ending = True
                process.terminate()

    async def _run(self, worker: GatewayWorker, context: Context) -> None:
        """Run a worker for one life. Raises WorkerEnded, trio.TooSlowError."""
        reads, ready_fd = os.pipe2(os.O_CLOEXEC)
        descriptors = [each.fileno() for held in self._sockets.values() for each in held]
        try:
            process = await trio.lowlevel.open_process(
                [*self._command(worker.number), "--ready-fd", str(ready_fd)],
                stdin=subprocess.PIPE,  # ends with this process: see `end_with_parent`
                pass_fds=(ready_fd, *descriptors),
                env=children.environment(self._environ),
                start_new_session=True,  # Ctrl-C on a terminal is the parent's alone
            )
        finally:
            os.close(ready_fd)
        worker.process, worker.ending = process, False
        context.ready()
        try:
            async with trio.lowlevel.FdStream(reads) as stream:
                with trio.fail_after(READY_S):
                    line = b"".join([part async for part in stream])
            if line:
                ready = decode(line, ServingLine)
                worker.ops_url, self._facilitator_url = ready.ops_url, ready.facilitator_url
                _log.info("worker_serves", worker=worker.number, pid=process.pid, ops_url=ready.ops_url)
                self._changed.set()
            status = await self._watched(worker, process)
            if not worker.restarts and not line and status == EXIT_CANNOT_START:
                self._refused.append(worker.number)
                self._changed.set()
            worker.restarts += 1
            _log.error("worker_ended", worker=worker.number, pid=process.pid, status=status)
            raise WorkerEnded(f"worker {worker.number} has ended with status {status}")
        except trio.Cancelled:
            self._end_all()
            raise
        finally:
            worker.ops_url = ""
            with context.cleanup():
                await self._end(worker, process)

    async def _watched(self, worker: GatewayWorker, process: trio.Process) -> int:
        """Return the status of a worker that has ended; kill one whose loop answers no more."""
        async with trio.open_nursery() as nursery:
            if worker.ops_url:
                nursery.start_soon(self._kill_when_silent, worker, process)
            status = await process.wait()
            nursery.cancel_scope.cancel()
        return status

    async def _kill_when_silent(self, worker: GatewayWorker, process: trio.Process) -> None:
        misses = 0
        while misses < MISSES:
            await trio.sleep(LOOK_S)
            try:
                await self._http.request("GET", f"{worker.ops_url}/health", total_s=LOOK_S)
                misses = 0
            except HttpError:
                misses += 1
        _log.error("worker_silent", worker=worker.number, pid=process.pid, after_s=MISSES * 2 * LOOK_S)
        process.kill()

    async def _until_all_serve(self, context: Context) -> None:
        """Hold up the parent's own readiness. Raises WorkerEnded when a worker cannot start, trio.TooSlowError."""
        with trio.fail_after(READY_S):
            while not all(worker.ops_url for worker in self.workers):
                if self._refused:
                    raise WorkerEnded(f"worker {self._refused[0]} cannot start: its own line above says why")
                await self._changed.wait()
                self._changed = trio.Event()
        context.ready()

    async def _end(self, worker: GatewayWorker, process: trio.Process) -> None:
        if process.returncode is None:
            if not worker.ending:
                worker.ending = True
                process.terminate()
            with trio.move_on_after(self._settings.shutdown.drain_s + SLACK_S):
                await process.wait()
            if process.returncode is None:
                _log.error("worker_killed", pid=process.pid)
                process.kill()
                await process.wait()

    def _command(self, number: int) -> Sequence[str]:
        handed = [f"{name}:{each.fileno()}" for name, held in self._sockets.items() for each in held]
        sockets = [word for one in handed for word in ("--socket", one)]
        own = ("gateway", *self._given, "--ops-port", "0", "--worker", str(number), *sockets)
        return children.command(Program.ENGRAM, *own)


def main(loaded: config.Loaded, count: int, given: Sequence[str], ready_fd: int | None) -> int:
    """Run the parent until SIGTERM or Ctrl-C; return the exit status, as `shared.main` does."""
    settings = loaded.settings
    begin(settings.log.level, json_logs=writes_json(settings.log))

    @contextmanager
    def claimed(process: Process) -> Iterator[Workers]:
        with data_folder(Path(settings.data_dir)) as folder:
            wait_for_former(folder, settings.shutdown.drain_s + SLACK_S)
            Gateway(settings, folder)  # makes the keys that all workers read, once
            workers = Workers(process, loaded, folder, count, given)
            process.reload = workers.hang_up
            yield workers

    return Process("engram", REFUSALS, ready_fd).live(claimed)


def wait_for_former(folder: Path, patience_s: float) -> None:
    """Wait until the workers of a parent that was killed have ended, which drain and hold its port; blocks.

    Raises FolderInUse when they take too long.
    """
    deadline = time.monotonic() + patience_s
    for own in sorted((folder / "workers").glob("*")):
        while True:
            try:
                with data_folder(own):
                    break
            except FolderInUse:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _opened(settings: Settings) -> dict[str, list[socket.socket]]:
    at = settings.gateway
    held = {"gateway": passed(os.environ, "gateway") or listen(at.host, at.port)}
    if settings.payments.facilitator_url == "embedded":
        play = settings.facilitator
        held["facilitator"] = passed(os.environ, "facilitator") or listen(play.host, play.port)
    return held
