"""Backend `local`: each node is the real miner, a child process with its own port and folder.

A node outlives the gateway. It is found again by its node file (boot id, pid, start time), and, when a kill -9 came
between the start and the node file, by its command line, which names its launch file in our data folder.
"""

import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import final

import msgspec
import structlog
import trio

from engram import kill_points
from engram.nodes.launch import LaunchFileError
from engram.provisioning import node_folder, processes
from engram.provisioning.cgroups import NodeGroups
from engram.provisioning.errors import NoCapacity, Rejected, Unavailable, Unknown
from engram.provisioning.model import Node, NodeSpec, Offers
from engram.provisioning.node_folder import NodeFile, NodeSettings
from engram.provisioning.records import is_ours

PORT_COUNT = 1_000
KILL_CONFIRM_S = 5.0
"""A killed process is seen to be dead within this, or the outcome is unknown."""
OUTPUT_LIMIT_BYTES = 8 * 1024**2
_DISK_EVERY = 15
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
)

_log = structlog.get_logger("engram.provisioning.local")


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend is built with."""

    nodes_dir: Path
    ledger_id: str
    command: tuple[str, ...]
    """Starts a node; `--config <launch file>` is appended. The first word is an absolute path."""
    common: NodeSettings
    offers: Offers
    grace_s: float
    watch_interval_s: float
    environment: Mapping[str, str]
    """What every node gets; see `scrubbed`."""


class _Tracked(msgspec.Struct):
    file: NodeFile
    folder: Path


@final
class LocalBackend:
    """The nodes of this machine that belong to one ledger."""

    name = "local"

    def __init__(self, settings: LocalSettings, groups: NodeGroups | None = None) -> None:
        self._settings = settings
        self._groups = groups
        self._boot = processes.boot_id()
        self._nodes: dict[str, _Tracked] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._found = False
        self._finding = trio.Lock()
        self._watch: tuple[trio.Nursery, Callable[[str], None]] | None = None

    async def offers(self) -> Offers:
        await trio.lowlevel.checkpoint()
        return self._settings.offers

    async def launch(self, spec: NodeSpec) -> Node:
        if spec.port is None:
            raise Rejected("a local node needs a port of the ledger")
        if not is_ours(spec.token, self._settings.ledger_id):
            raise Rejected("the token is of another ledger")
        await self._find()
        async with self._lock(spec.session_id):
            tracked = self._nodes.get(spec.token)
            if tracked is not None and self._is_alive(tracked):
                return self._node(tracked)
            if tracked is not None:
                await self._end(tracked)
            for other in [n for n in self._nodes.values() if n.file.session_id == spec.session_id]:
                await self._end(other)
                del self._nodes[other.file.token]
            tracked = await self._start(spec, spec.port)
            self._nodes[spec.token] = tracked
            if self._watch is not None:
                self._watch[0].start_soon(self._await_exit, tracked)
            return self._node(tracked)

    async def inspect(self, token: str) -> Node | None:
        tracked = await self._look_up(token)
        return None if tracked is None else self._node(tracked)

    async def extend(self, token: str, ends_at: float) -> None:
        tracked = await self._look_up(token)
        if tracked is None:
            return
        async with self._lock(tracked.file.session_id):
            with _disk():
                await trio.to_thread.run_sync(node_folder.move_end, tracked.folder, ends_at)

    async def stop(self, token: str) -> None:
        tracked = await self._look_up(token)
        if tracked is not None:
            async with self._lock(tracked.file.session_id):
                await self._end(tracked)

    async def destroy(self, token: str) -> None:
        tracked = await self._look_up(token)
        if tracked is None:
            return
        async with self._lock(tracked.file.session_id):
            if self._nodes.get(token) is not tracked:
                return
            with _disk():
                there = await trio.to_thread.run_sync(node_folder.read_node, tracked.folder)
            if there is not None and there.token != token:  # another gateway has its session's next node there
                del self._nodes[token]
                return
            await self._end(tracked)
            with _disk():
                await trio.to_thread.run_sync(node_folder.remove, tracked.folder)
            if self._groups is not None:
                self._groups.remove(token)
            del self._nodes[token]
            if not self._lock(tracked.file.session_id).statistics().tasks_waiting:
                del self._locks[tracked.file.session_id]

    async def list(self) -> Sequence[Node]:
        await self._find()
        return [self._node(tracked) for tracked in self._nodes.values()]

    async def watch(self, exited: Callable[[str], None]) -> None:
        await self._find()
        try:
            async with trio.open_nursery() as nursery:
                self._watch = (nursery, exited)
                for tracked in self._nodes.values():
                    nursery.start_soon(self._await_exit, tracked)
                await self._enforce_limits()
        finally:
            self._watch = None

    # Starting and ending.

    async def _start(self, spec: NodeSpec, port: int) -> _Tracked:
        folder = self._settings.nodes_dir / spec.session_id
        if not await self._kill(folder, None):
            raise Unknown(f"something that runs in {folder} does not die")
        node = NodeFile(
            token=spec.token,
            session_id=spec.session_id,
            host=self._settings.common.host,
            port=port,
            memory_bytes=spec.tier.memory_bytes,
            storage_bytes=spec.tier.storage_bytes,
            cpu_vcpu=spec.tier.cpu_vcpu,
        )
        argv = [*self._settings.command, "--config", str(folder / node_folder.LAUNCH_FILE)]
        environment = {**self._settings.environment, "OMP_NUM_THREADS": str(spec.tier.cpu_vcpu)}

        def start() -> NodeFile:
            _require_free(node.host, port)
            node_folder.prepare(folder, spec, node, self._settings.common)
            pid = processes.spawn(argv, environment, folder / node_folder.OUTPUT_FILE)
            kill_points.point("spawn:unrecorded")
            started = msgspec.structs.replace(node, process=processes.identify(pid, self._boot))
            if started.process is None:
                processes.reap(pid)
            elif self._groups is not None:
                self._groups.confine(spec.token, [pid], spec.tier.memory_bytes, spec.tier.cpu_vcpu)
            node_folder.write_node(folder, started)
            return started

        with _disk():
            return _Tracked(await trio.to_thread.run_sync(start), folder)

    async def _end(self, tracked: _Tracked) -> None:
        """TERM, grace, KILL, to the whole session; returns when nothing of it lives. Raises Unknown."""
        process = tracked.file.process
        if process is not None and self._is_alive(tracked):
            processes.signal_leader(process, signal.SIGTERM)
            with trio.move_on_after(self._settings.grace_s):
                await processes.wait_exit(process, self._boot)
        if not await self._kill(tracked.folder, process):
            raise Unknown(f"node {tracked.file.token} does not die")

    async def _kill(self, folder: Path, process: processes.ProcessId | None) -> bool:
        """Kill what lives of a node, known or only found by its command line; False when something does not die."""
        launch_file = str(folder / node_folder.LAUNCH_FILE)
        ours = process if process is not None and process.boot == self._boot else None

        def kill() -> int:
            killed = processes.signal_named(launch_file, signal.SIGKILL)
            return killed if ours is None else killed + processes.signal_session(ours, signal.SIGKILL)

        with trio.move_on_after(KILL_CONFIRM_S):
            while await trio.to_thread.run_sync(kill):  # noqa: ASYNC110  # the kernel's doing, not a task's
                await trio.sleep(0.01)
            if ours is not None:
                processes.reap(ours.pid)
            return True
        return False

    async def _kill_rest(self, process: processes.ProcessId) -> None:
        """Kill what a dead leader left behind, then reap it."""
        with trio.move_on_after(KILL_CONFIRM_S):
            kill_session = partial(processes.signal_session, process, signal.SIGKILL)
            while await trio.to_thread.run_sync(kill_session):  # noqa: ASYNC110  # the kernel's doing, not a task's
                await trio.sleep(0.01)
        processes.reap(process.pid)

    def _is_alive(self, tracked: _Tracked) -> bool:
        process = tracked.file.process
        return process is not None and processes.is_alive(process, self._boot)

    # Finding.

    async def _look_up(self, token: str) -> _Tracked | None:
        """Return the node of that token, also where another gateway with this folder has started it."""
        await self._find()
        tracked = self._nodes.get(token)
        if tracked is None or not self._is_alive(tracked):
            await self._find(again=True)
            tracked = self._nodes.get(token)
        return tracked

    async def _find(self, *, again: bool = False) -> None:
        if self._found and not again:
            await trio.lowlevel.checkpoint()
            return
        async with self._finding:
            if again or not self._found:
                with _disk():
                    found = await trio.to_thread.run_sync(self._search)
                    if self._groups is not None and not self._found:
                        await trio.to_thread.run_sync(self._confine_again, self._groups, found)
                    for tracked in found:
                        known = self._nodes.get(tracked.file.token)
                        if known is None or (self._is_alive(tracked) and not self._is_alive(known)):
                            self._nodes[tracked.file.token] = tracked
                            if self._watch is not None:
                                self._watch[0].start_soon(self._await_exit, tracked)
                self._found = True

    def _search(self) -> Sequence[_Tracked]:
        nodes_dir = self._settings.nodes_dir
        nodes_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        running: dict[Path, int] = {}
        for pid, arguments in processes.session_leaders_naming(node_folder.LAUNCH_FILE):
            for argument in arguments:
                path = Path(argument)
                if path.name == node_folder.LAUNCH_FILE and path.parent.parent == nodes_dir:
                    running[path.parent] = pid
        found: Sequence[_Tracked] = ()
        for entry in sorted(nodes_dir.iterdir()):
            file = node_folder.read_node(entry)
            if file is None or not is_ours(file.token, self._settings.ledger_id):
                continue
            known = file.process is not None and processes.is_alive(file.process, self._boot)
            if not known and entry in running:
                file = msgspec.structs.replace(file, process=processes.identify(running[entry], self._boot))
                node_folder.write_node(entry, file)
            found = (*found, _Tracked(file, entry))
        return found

    def _confine_again(self, groups: NodeGroups, found: Sequence[_Tracked]) -> None:
        """Hold nodes that an earlier gateway started to the limits of their tier, which may be set nowhere now."""
        for tracked in found:
            node, process = tracked.file, tracked.file.process
            if process is not None and self._is_alive(tracked):
                members = processes.members_of_session(process.pid)
                try:
                    groups.confine(node.token, members, node.memory_bytes, node.cpu_vcpu)
                except OSError as error:
                    _log.warning("node_not_confined", node=node.token, error=str(error))

    # Watching.

    async def _await_exit(self, tracked: _Tracked) -> None:
        process = tracked.file.process
        if process is not None:
            await processes.wait_exit(process, self._boot)
            await self._kill_rest(process)
        if self._watch is not None and self._nodes.get(tracked.file.token) is tracked:
            self._watch[1](tracked.file.token)

    async def _enforce_limits(self) -> None:
        rounds = 0
        while True:
            await trio.sleep(self._settings.watch_interval_s)
            rounds += 1
            living = [tracked for tracked in self._nodes.values() if self._is_alive(tracked)]
            if living:
                await trio.to_thread.run_sync(_enforce, living, rounds % _DISK_EVERY == 0)

    def _node(self, tracked: _Tracked) -> Node:
        file = tracked.file
        return Node(
            token=file.token,
            session_id=file.session_id,
            endpoint=f"http://{file.host}:{file.port}",
            alive=self._is_alive(tracked),
            reference=msgspec.json.encode(file.process).decode(),
        )

    def _lock(self, session_id: str) -> trio.Lock:
        return self._locks.setdefault(session_id, trio.Lock())


def _require_free(host: str, port: int) -> None:
    """Raise NoCapacity when another program has the port, on which the node could never listen."""
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise NoCapacity(f"port {port} is in use by another program") from error
        raise


def _enforce(living: Sequence[_Tracked], look_at_disk: bool) -> None:
    resident = processes.rss_by_session()
    for tracked in living:
        file, process = tracked.file, tracked.file.process
        if process is not None and resident.get(process.pid, 0) > file.memory_bytes:
            _log.warning("node_over_memory", node=file.token, rss_bytes=resident[process.pid], limit=file.memory_bytes)
            processes.signal_session(process, signal.SIGKILL)
        node_folder.bound_output(tracked.folder, OUTPUT_LIMIT_BYTES)
        if look_at_disk:
            used = node_folder.size_bytes(tracked.folder)
            if used > file.storage_bytes:
                _log.warning("node_over_disk", node=file.token, bytes=used, limit=file.storage_bytes)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{error.strerror}: {error.filename}") from error
    except LaunchFileError as error:
        raise Unavailable(str(error)) from error


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without anything that could be a secret, for a node."""
    return {name: value for name, value in environment.items() if name in _PASSED_ON}
