"""The role `miner`: a memory node, alone in its process, configured by its launch file."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, final

import structlog

from actors import Actor, Backoff, ChildSpec, Context, Intensity, Job, SupervisorSpec
from config.model import MinerSettings
from engram.hotkeys import HotkeyError, wallet
from engram.hotkeys.passwords import at_terminal, password_for
from engram.http.listener import Listener
from engram.memory.errors import MemoryAreaError
from engram.miner import folder
from engram.miner.errors import NodeError
from engram.miner.folder import FolderClaim
from engram.miner.node import Node, NodePorts
from engram.miner.ops import ops_job
from engram.miner.signer import Signer
from engram.nodes import environment
from engram.nodes import launch as launches
from engram.nodes.launch import LaunchFile, LaunchFileError
from engram.roles.process import Process, begin
from engram.telemetry.disk import disk_gauges
from engram.telemetry.loop_lag import loop_lag_job

DRAIN_S: Final = 2.5
REFUSALS: Final = (LaunchFileError, NodeError, HotkeyError, MemoryAreaError, OSError)
"""Exceptions that prevent a node from starting."""
_log = structlog.get_logger("engram.miner")


def tree(node: Node, ports: NodePorts) -> SupervisorSpec:
    """Return the whole tree of a node. Children start from the top and stop from the bottom."""
    chain, launch = node.chain, ports.launch
    listener = Listener(launch.host, launch.port, node.http, DRAIN_S)
    return SupervisorSpec(
        "node",
        [
            ChildSpec("folder", lambda: Job(node.keep_open)),
            ChildSpec("truth", lambda: _job(node.truth.run)),
            ChildSpec("notebook", lambda: _job(node.notebook.run)),
            ChildSpec(
                "store",
                lambda: Job(node.serve_store),
                # Unlimited: an index that cannot run (a full disk) must not end a node that still has its records.
                backoff=Backoff(0.05, 5.0),
                intensity=Intensity(restarts=200, period_s=120.0),
            ),
            ChildSpec("embedder", lambda: _job(node.embedder.run)),
            _spare("words", node.words.run),
            *([_spare("windows", node.windows.run)] if node.windows is not None else []),
            ChildSpec("readiness", lambda: _job(node.readiness.run), backoff=Backoff(0.5, 30.0), on_exceed="disable"),
            ChildSpec("loop_lag", lambda: loop_lag_job(ports.metrics)),
            ChildSpec("storage", lambda: _job(node.storage.run)),
            ChildSpec("uptime", lambda: _job(node.uptime.run)),
            *([_tireless("chain", chain.syncer)] if chain.syncer else []),
            *([_tireless("announcer", chain.announcer)] if chain.announcer else []),
            ChildSpec(
                "ops",
                lambda: ops_job(node.ops_app, ports.settings.ops_port, Path(launch.data_dir), drain_s=DRAIN_S),
                shutdown=DRAIN_S + 1.0,
                backoff=Backoff(0.2, 5.0),
                on_exceed="disable",
            ),
            ChildSpec("lifetime", lambda: Job(node.live), restart="transient", significant=True),
            ChildSpec(
                "http",
                lambda: listener.job(lambda: node.app),
                shutdown=DRAIN_S + 1.0,
                backoff=Backoff(0.2, 5.0),
            ),
        ],
        auto_shutdown="any_significant",
    )


def main(launch_file: Path | None, settings: MinerSettings, log_level: str = "INFO") -> int:
    """Run the node that the launch file describes until its end, SIGTERM or SIGINT; returns the exit status.

    Without a launch file the environment describes it (engram.nodes.environment).
    0: ended as it should; 1: failed while it ran; 2: cannot start, and standard error says what to do.
    """

    @contextmanager
    def claimed(process: Process) -> Iterator[Miner]:
        launch = environment.read(os.environ) if launch_file is None else launches.read(launch_file)
        _redirect_output(launch)
        begin(log_level, json_logs=not sys.stderr.isatty())
        with folder.claim(Path(launch.data_dir)) as claim:
            folder.refuse_lost(Path(launch.data_dir))
            own = launch.miner or settings
            yield Miner(process, claim, launch, launch_file, own, _signer(launch, own))

    return Process("this node", REFUSALS).live(claimed)


@final
class Miner:
    """A node as the program of a process; see Program."""

    def __init__(
        self,
        process: Process,
        claim: FolderClaim,
        launch: LaunchFile,
        launch_file: Path | None,
        settings: MinerSettings,
        signer: Signer,
    ) -> None:
        """Take the node's parts; `claim` is this process's lock on the data folder."""
        self._process = process
        self._launch = launch
        process.metrics.before_scrape(disk_gauges(process.metrics, Path(launch.data_dir)))
        self._ports = NodePorts(
            settings=settings,
            launch=launch,
            launch_file=launch_file,
            node_file=claim.write_node_file(launch, process.clock.now()),
            signer=signer,
            clock=process.clock,
            ids=process.ids,
            metrics=process.metrics,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SupervisorSpec]:
        """Open the node and yield its tree, whose first child closes what is opened here."""
        yield tree(Node(self._ports), self._ports)

    def started(self) -> None:
        self._process.serves(f"node http://{self._launch.host}:{self._launch.port}")
        _log.info("node_started", session_id=self._launch.session_id, port=self._launch.port, pid=os.getpid())

    def ended(self) -> None:
        _log.info("node_ended", session_id=self._launch.session_id)


def _tireless(name: str, start: Callable[[], Actor[Any]]) -> ChildSpec:
    """Return a child that may fail any number of times without ending the node, as when the chain is unreachable."""
    return ChildSpec(name, start, backoff=Backoff(1.0, 60.0), intensity=Intensity(1_000_000, 1.0), on_exceed="disable")


def _spare(name: str, run: Callable[[Callable[[], None]], Awaitable[None]]) -> ChildSpec:
    """Return a child whose failures never end the node: what it makes can be made again."""
    return ChildSpec(name, lambda: _job(run), backoff=Backoff(0.5, 30.0), on_exceed="disable")


def _signer(launch: LaunchFile, settings: MinerSettings) -> Signer:
    """Return what signs for the node. Blocks for seconds when its key is encrypted; call it before the loop runs."""
    hotkey = launch.named_hotkey()
    if hotkey is not None:
        return Signer.with_session_key(hotkey)
    path = Path(launch.hotkey_file)
    password = password_for(
        path, settings.hotkey_password_file, "miner.hotkey_password_file", os.environ, at_terminal()
    )
    return Signer.with_hotkey(wallet.read_private_hotkey_file(path, password))


def _job(run: Callable[[Callable[[], None]], Awaitable[None]]) -> Job:
    async def started(context: Context) -> None:
        await run(context.ready)

    return Job(started)


def _redirect_output(launch: LaunchFile) -> None:
    """Redirect standard output and error to the log file: a pipe would end the node when its reader exits."""
    if launch.log_file is None:
        return
    descriptor = os.open(launch.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
