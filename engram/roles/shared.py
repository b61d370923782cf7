"""The parts that roles of one process share: one data folder, one ledger, one loop."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Protocol, final

import structlog
import trio

import config
from actors import ChildSpec, Context, SupervisorSpec
from config.model import LogSettings, Settings
from engram.hotkeys import HotkeyError
from engram.http.client import HttpClient
from engram.http.listener import Listener
from engram.http.sockets import Address
from engram.http.tls import Certificates
from engram.ledger import (
    LEDGER_FILE,
    FolderInUse,
    Group,
    LedgerActor,
    LedgerClient,
    LedgerError,
    data_folder,
    identity,
)
from engram.ledger.backups import keep_backing_up
from engram.ledger.folder import mark_of
from engram.ledger.opening import server_of
from engram.provisioning.errors import ProvisioningError
from engram.relay.signer import Keyring
from engram.roles.process import Process, begin
from engram.roles.reloading import Reloading
from engram.telemetry.disk import disk_gauges

LEDGER: Final = "ledger"
"""The registered name of the ledger's actor."""
REFUSALS: Final = (FolderInUse, HotkeyError, LedgerError, ProvisioningError, OSError, ValueError)
"""Exceptions that prevent these roles from starting."""

_log = structlog.get_logger("engram")


class Bound(Protocol):
    """A surface that knows where it listens, once it does."""

    @property
    def bound(self) -> Address | None:
        """Where it listens; None until then."""
        ...


class Role(Protocol):
    """One role of a process, with its keys opened."""

    @property
    def settings(self) -> Settings:
        """The process's settings, completed by this role."""
        ...

    async def tree(self, shared: "Shared") -> SupervisorSpec:
        """Return the whole tree of a process that has this role alone."""
        ...

    async def close(self) -> None:
        """Release resources after the tree has stopped."""
        ...


OpenRole = Callable[[Settings, Path], Role]
"""Takes (settings, data folder), opens the keys and returns the role. Called before the loop runs, since this may block
and ask for a password. Raises the exceptions in REFUSALS."""


@final
class Shared:
    """The parts that every role may use; a Program that runs all its roles in one tree."""

    def __init__(
        self,
        process: Process,
        roles: Sequence[Role],
        settings: Settings,
        folder: Path,
        ledger_id: str,
        own_folder: Path | None = None,
    ) -> None:
        self.process = process
        self.registry, self.metrics = process.registry, process.metrics
        self.clock, self.ids, self.rng = process.clock, process.ids, process.rng
        self.settings = settings
        self.folder = folder
        """What the roles keep: keys, nodes, and the ledger where it is a file."""
        self.is_worker = own_folder is not None and own_folder != folder
        self.own_folder = own_folder or folder
        """What this process alone keeps; the same, but for one of several workers."""
        self.metrics.ledger_queue.set(0)
        self.metrics.before_scrape(disk_gauges(self.metrics, folder))
        self.ledger_id = ledger_id
        self.keyring = Keyring()
        """What the relay's emitter signs with, whichever role has started it."""
        self.listeners: dict[str, Listener] = {}
        self._surfaces: dict[str, Bound] = {}
        self._roles = roles
        address = f"{settings.ops.host}:{settings.ops.port}"
        mark = mark_of(self.own_folder) if settings.ledger.url else ""
        self._server = server_of(settings.ledger, address, mark, _end)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SupervisorSpec]:
        """Yield the tree of all roles; see Program."""
        self.http = HttpClient()
        self.ledger = LedgerClient(self.registry.ref(LedgerActor, LEDGER), self.folder, self._server)
        try:
            yield together([await role.tree(self) for role in self._roles])
        finally:
            with trio.CancelScope(shield=True):
                for role in self._roles:
                    await role.close()
                await self.http.aclose()
                self.ledger.close()

    def listener(self, name: str, host: str, port: int, certificates: Certificates | None = None) -> Listener:
        """Return the listener of the surface of that name, created at the first call."""
        settings = self.settings
        made = Listener(host, port, settings.http, settings.shutdown.drain_s, certificates)
        return self.listeners.setdefault(name, made)

    def serves(self, name: str, surface: Bound) -> None:
        """Name a surface that has a listener of its own among those that are ready."""
        self._surfaces[name] = surface

    def started(self) -> None:
        """Log the URLs of all surfaces."""
        surfaces: dict[str, Bound] = {**self.listeners, **self._surfaces}
        bound = {f"{name}_url": at.bound.url for name, at in surfaces.items() if at.bound is not None}
        self.process.say_ready(**bound)

    def ended(self) -> None:
        """Log the end; see Program."""
        _log.info("stopped")

    def ledger_actor(self) -> LedgerActor:
        """Return the ledger's only writer, whose loss ends the process."""
        return LedgerActor(self.folder, self._on_ledger_lost, self._on_group, self._server)

    async def back_up(self, context: Context) -> None:
        """Make backups of the ledger on the timer, for ever; a job."""
        context.ready()
        await keep_backing_up(self.settings.backup, self.folder, self.clock, self._on_backups)

    def _on_backups(self, newest: float | None, due: float) -> None:
        self.metrics.backup_time.set(newest or 0.0)
        self.metrics.backup_due.set(due)

    def _on_group(self, group: Group) -> None:
        self.metrics.ledger_commits.labels(group.word).inc()
        self.metrics.ledger_commit_seconds.observe(group.seconds)
        self.metrics.ledger_queue.set(group.waiting)
        for outcome in group.outcomes:
            self.metrics.ledger_writes.labels(outcome.word).inc()

    def _on_ledger_lost(self, error: LedgerError) -> None:
        path = self._server.place if self._server else str(self.folder / LEDGER_FILE)
        self.process.fail(lambda: _log.error("ledger_lost", error=str(error), path=path))


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def main(
    roles: Sequence[str],
    openers: Sequence[OpenRole],
    loaded: config.Loaded,
    ready_fd: int | None,
    load: Callable[[], config.Loaded] | None = None,
    worker: int | None = None,
) -> int:
    """Run the roles in one process until SIGTERM or Ctrl-C; returns the exit status. At SIGHUP `load` is called.

    `worker` is its number among those that share a data folder: workers.py holds that folder, and each has one in it.
    """
    settings = loaded.settings
    json_logs = writes_json(settings.log)
    begin(settings.log.level, json_logs=json_logs)
    for caution in config.cautions(settings, roles):
        _log.warning("setting_to_look_at", key=caution.key, reason=caution.message)
    for unread in loaded.unread:
        _log.warning("variable_not_read", name=unread.key, reason=unread.message)

    @contextmanager
    def claimed(process: Process) -> Iterator[Shared]:
        own = Path(settings.data_dir) if worker is None else worker_folder(Path(settings.data_dir), worker)
        with data_folder(own) as own_folder:
            folder = own_folder if worker is None else own_folder.parents[1]
            shared = open_shared(process, openers, settings, folder, own_folder)
            if load is not None:
                process.reload = Reloading(loaded, load, roles, shared.listeners.values, json_logs=json_logs)
            yield shared

    return Process("engram", REFUSALS, ready_fd).live(claimed)


def writes_json(log: LogSettings) -> bool:
    """Return whether log lines are JSON: as the settings say, or where nobody reads them from a terminal."""
    return log.format == "json" or (log.format == "auto" and not sys.stderr.isatty())


async def end_with_parent(context: Context) -> None:
    """End this worker when its standard input ends, as it does with its parent, however that ends; a job."""
    context.ready()
    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, 1):
            _log.error("parent_gone")
            _end()
            return


def worker_folder(data_dir: Path, number: int) -> Path:
    """Return the folder of a worker's own."""
    return data_dir / "workers" / str(number)


def open_shared(
    process: Process,
    openers: Sequence[OpenRole],
    settings: Settings,
    folder: Path,
    own_folder: Path | None = None,
) -> Shared:
    """Open the ledger of `folder` and each role's keys. Raises what is in REFUSALS.

    This process has locked the folder, or the one that has started it as a worker; `own_folder` it has locked itself.
    """
    ledger_id, roles = identity.claim(folder, settings.environment, settings.ledger), []
    for open_role in openers:
        role = open_role(settings, folder)
        roles.append(role)
        settings = role.settings
    return Shared(process, roles, settings, folder, ledger_id, own_folder)


def together(trees: Sequence[SupervisorSpec]) -> SupervisorSpec:
    """Return one root with the children of all trees; a shared child (the ledger) is kept once, at its first place."""
    children: dict[str, ChildSpec | SupervisorSpec] = {}
    for tree in trees:
        for child in tree.children:
            children.setdefault(child.id, child)
    first = trees[0]
    return SupervisorSpec("root", list(children.values()), strategy=first.strategy, intensity=first.intensity)
