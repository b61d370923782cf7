"""A memory node: its parts, its supervision tree, its life as a process."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog
import trio

from actors import Backoff, ChildSpec, Context, EventStream, Intensity, Job, SupervisorSpec, System, open_system
from config.model import HttpSettings, MinerSettings
from engram.clock import Clock, Ids, SystemClock, SystemIds
from engram.hotkeys import HotkeyError, Keypair, wallet
from engram.hotkeys.passwords import at_terminal, password_for
from engram.http.listener import http_job
from engram.memory.errors import MemoryAreaError
from engram.memory.index.edge_index import EdgeIndex
from engram.memory.index.protocol import Index
from engram.memory.indexed_store import IndexedStore
from engram.memory.proof.commitment import Commitment
from engram.memory.rules import Limits
from engram.memory.store.attestations import Attestations
from engram.memory.store.notebook_db import Notebook
from engram.memory.store.record_db import Truth
from engram.miner import folder
from engram.miner.app import MAX_BODY_BYTES, make_app
from engram.miner.auth import Gate
from engram.miner.chain_children import follow
from engram.miner.embedding import make_embedder
from engram.miner.errors import NodeError
from engram.miner.folder import FolderClaim, NodeFile
from engram.miner.lifetime import Lifetime
from engram.miner.ops import ops_app, ops_job
from engram.miner.readiness import Readiness
from engram.miner.replay_floor import StampsAhead
from engram.miner.service import Identity, Service
from engram.miner.statistics import Statistics
from engram.miner.storage import StorageGauge
from engram.miner.uptime import Uptime
from engram.nodes import launch as launches
from engram.nodes.launch import LaunchFile, LaunchFileError
from engram.telemetry import logs
from engram.telemetry.actor_events import observer
from engram.telemetry.loop_lag import loop_lag_job
from engram.telemetry.metrics import Metrics

TRUTH = "truth.db"
NOTEBOOK = "notebook.db"
INDEX = "index"
INDEX_BACKOFF = Backoff(0.05, 5.0)
INDEX_INTENSITY = Intensity(restarts=200, period_s=120.0)
"""Never reached with that backoff: an index that cannot run (a full disk) ends no node that still has its records."""
_DRAIN_S = 2.5
_TURN_S = 0.001
"""After which a thread that computes lets the loop go on (Python's own: 5 ms, for each thread that is in its way)."""

_log = structlog.get_logger("engram.miner")


def main(config: Path, settings: MinerSettings, log_level: str = "INFO") -> int:
    """Runs the node that the launch file describes until its end, SIGTERM or SIGINT. Returns the exit status.

    0: ended as it should; 2: it could not start, and standard error says what to do. A node whose tree gives up
    raises what it gave up for.
    """
    try:
        launch = launches.read(config)
        settings = launch.miner or settings
        _redirect_output(launch)
        logs.configure(log_level, json=not sys.stderr.isatty())
        with folder.claim(Path(launch.data_dir)) as claim:
            folder.refuse_lost(Path(launch.data_dir))
            trio.run(run, claim, launch, config, settings, _keypair(launch, settings))
    except (LaunchFileError, NodeError, HotkeyError, MemoryAreaError, OSError) as error:
        print(f"this node cannot start: {error}", file=sys.stderr)
        return 2
    return 0


async def run(claim: FolderClaim, launch: LaunchFile, config: Path, settings: MinerSettings, keypair: Keypair) -> None:
    """Runs the node until its end or a signal; `claim` is this process's right to the data folder."""
    clock = SystemClock()
    node_file = claim.write_node_file(launch, clock.now())
    metrics, events = Metrics(), EventStream()
    tree = supervision(
        settings, launch, node_file, keypair, config=config, clock=clock, ids=SystemIds(), metrics=metrics
    )
    with events.listen(observer(metrics)):
        async with (
            open_system(tree, rng=random.Random(), events=events, log_crashes=False) as system,
            trio.open_nursery() as nursery,
        ):
            # What is there now stays: looked through again by each full collection, it stops the loop for 50 ms.
            gc.collect()
            gc.freeze()
            sys.setswitchinterval(_TURN_S)
            nursery.start_soon(_stop_on_signals, system)
            _log.info("node_started", session_id=launch.session_id, port=launch.port, pid=os.getpid())
            await system.wait()
            nursery.cancel_scope.cancel()
    _log.info("node_ended", session_id=launch.session_id)


def supervision(
    settings: MinerSettings,
    launch: LaunchFile,
    node_file: NodeFile,
    keypair: Keypair,
    *,
    config: Path,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
) -> SupervisorSpec:
    """Returns the tree of one node; opens its database (blocking), whose folder this process must have claimed.

    `config` is the launch file, read again for a moved end. Raises MemoryAreaError, NodeError, OSError.
    """
    data = Path(launch.data_dir)
    truth = Truth.open(data / TRUTH, clock, ids)
    embedder = make_embedder(launch, settings)
    store = IndexedStore(truth, _index(launch, data, embedder.dimension, truth.truth_id))
    notebook = Notebook.open(data / NOTEBOOK)
    attestations = Attestations(notebook)
    chain = follow(launch, settings, keypair, clock, metrics)
    commitment = Commitment()
    store.on_changes = commitment.follow
    storage = StorageGauge(
        data,
        launch.storage_bytes,
        keeper=launch.controller(),
        kept_share=settings.controller_share,
        reusable=truth.free_bytes,
    )
    uptime = Uptime(truth, clock)
    readiness = Readiness(
        embedder, lambda: store.index_has_answered, lambda: any(msgspec.structs.astuple(store.count()))
    )
    require_signature = settings.require_signature or launch.environment == "mainnet"
    service = Service(
        identity=Identity(
            session_id=launch.session_id,
            launch_token=launch.launch_token,
            boot_id=node_file.boot_id,
            started_at=node_file.started_at,
            netuid=launch.netuid,
            keypair=keypair,
        ),
        gate=Gate(
            controller=launch.controller(),
            require_signature=require_signature,
            clock=clock,
            node=keypair.public_key,
            tenants=settings.tenants,
            ahead=StampsAhead(data, clock),
        ),
        limits=Limits(embedder.dimension, settings.max_text_chars, settings.max_metadata_bytes),
        store=store,
        truth=truth,
        embedder=embedder,
        commitment=commitment,
        notebook=notebook,
        attestations=attestations,
        subnet=chain.subnet,
        storage=storage,
        statistics=Statistics(clock),
        uptime=uptime,
        metrics=metrics,
        clock=clock,
        searchable=lambda: store.usable,
        ready=lambda: readiness.ready,
        private_bucket_s=settings.private_bucket_ms / 1000,
        noise_sigma=settings.private_noise_sigma,
    )
    http = HttpSettings(max_body_bytes=MAX_BODY_BYTES, requests_per_minute_per_ip=settings.requests_per_minute)
    app = make_app(service, settings=http, clock=clock, ids=ids, metrics=metrics)
    ops = ops_app(service, clock=clock, ids=ids, metrics=metrics, chain=chain.status)
    lifetime = Lifetime(clock, launch.ends_at, lambda: _end_in(config, launch))

    async def keep_open(context: Context) -> None:
        context.ready()
        try:
            await trio.sleep_forever()
        finally:
            truth.close()
            notebook.close()

    loaded = trio.Event()

    async def serve_store(context: Context) -> None:
        if not loaded.is_set():
            await store.load()
            await commitment.load(truth)
            await attestations.load()
            loaded.set()
        context.ready()
        await store.run(lambda: _log.info("index_ready"))

    async def live(context: Context) -> None:
        context.ready()
        await lifetime.over()

    return SupervisorSpec(
        "node",
        [
            ChildSpec("folder", lambda: Job(keep_open)),
            ChildSpec("truth", lambda: _job(truth.run)),
            ChildSpec("notebook", lambda: _job(notebook.run)),
            ChildSpec(
                "store",
                lambda: Job(serve_store),
                backoff=INDEX_BACKOFF,
                intensity=INDEX_INTENSITY,
            ),
            ChildSpec("embedder", lambda: _job(embedder.run)),
            ChildSpec("readiness", lambda: _job(readiness.run), backoff=Backoff(0.5, 30.0), on_exceed="disable"),
            ChildSpec("loop_lag", lambda: loop_lag_job(metrics)),
            ChildSpec("storage", lambda: _job(storage.run)),
            ChildSpec("uptime", lambda: _job(uptime.run)),
            *chain.children,
            ChildSpec(
                "ops",
                lambda: ops_job(ops, settings.ops_port, data, drain_s=_DRAIN_S),
                shutdown=_DRAIN_S + 1.0,
                backoff=Backoff(0.2, 5.0),
                on_exceed="disable",
            ),
            ChildSpec("lifetime", lambda: Job(live), restart="transient", significant=True),
            ChildSpec(
                "http",
                lambda: http_job(app, launch.host, launch.port, settings=http, drain_s=_DRAIN_S),
                shutdown=_DRAIN_S + 1.0,
                backoff=Backoff(0.2, 5.0),
            ),
        ],
        auto_shutdown="any_significant",
    )


def _keypair(launch: LaunchFile, settings: MinerSettings) -> Keypair:
    """The node's own key. Blocks, for seconds when it is encrypted: there is no loop yet to hold up."""
    path = Path(launch.hotkey_file)
    password = password_for(
        path, settings.hotkey_password_file, "miner.hotkey_password_file", os.environ, at_terminal()
    )
    return wallet.read_private_hotkey_file(path, password)


def _index(launch: LaunchFile, data: Path, dimension: int, truth_id: str) -> Index:
    if launch.qdrant is None:
        return EdgeIndex(data / INDEX, dimension, truth_id, truth_path=data / TRUTH)
    try:
        from engram.memory.index.qdrant_index import QdrantIndex
    except ImportError as error:
        raise NodeError("qdrant-client is not installed: install engram with its extra `qdrant`") from error
    return QdrantIndex(launch.qdrant.url, dimension, truth_id, api_key=_key(launch.qdrant.api_key_file))


def _key(file: str | None) -> str | None:
    return None if file is None else Path(file).read_text(encoding="utf-8").strip()


def _job(run: Callable[[Callable[[], None]], Awaitable[None]]) -> Job:
    async def started(context: Context) -> None:
        await run(context.ready)

    return Job(started)


def _end_in(config: Path, launch: LaunchFile) -> float | None:
    """The end that the launch file names now; the one known when it cannot be read or is another launch's."""
    try:
        found = launches.read(config)
    except LaunchFileError as error:
        _log.warning("launch_file_unreadable", reason=str(error))
        return launch.ends_at
    return found.ends_at if found.launch_token == launch.launch_token else launch.ends_at


def _redirect_output(launch: LaunchFile) -> None:
    """Sends standard output and error to the log file: a pipe would end the node with whoever reads it."""
    if launch.log_file is None:
        return
    descriptor = os.open(launch.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


async def _stop_on_signals(system: System) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            _log.info("stopping", signal=signal.Signals(number).name)
            system.request_stop()
