"""Builds the parts of a memory node from its launch file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import msgspec
import structlog
import trio

from actors import Context
from config.model import HttpSettings, MinerSettings
from engram.clock import Clock, Ids
from engram.hotkeys import miner_scheme
from engram.hotkeys.replay_guard import ReplayFloor
from engram.http.client import HttpClient
from engram.memory.embed.openai_embedder import OpenAiEmbedder
from engram.memory.index.edge_index import EdgeIndex
from engram.memory.index.protocol import Index
from engram.memory.indexed_store import IndexedStore
from engram.memory.model import Change
from engram.memory.proof.commitment import Commitment
from engram.memory.rules import RecordLimits
from engram.memory.search import windows_db, words_db
from engram.memory.search.windows import Windows
from engram.memory.search.words import Words
from engram.memory.store.attestations import Attestations
from engram.memory.store.notebook_db import Notebook
from engram.memory.store.record_db import Truth
from engram.miner.app import MAX_BODY_BYTES, make_app
from engram.miner.auth import Gate
from engram.miner.chain_children import follow
from engram.miner.countersigning import Countersigner
from engram.miner.embedding import make_embedder
from engram.miner.errors import NodeError
from engram.miner.folder import NodeFile
from engram.miner.lifetime import Lifetime
from engram.miner.ops import ops_app
from engram.miner.readiness import Readiness
from engram.miner.service import Identity, Service
from engram.miner.signer import Signer
from engram.miner.statistics import Statistics
from engram.miner.storage import StorageGauge
from engram.miner.uptime import Uptime
from engram.nodes import launch as launches
from engram.nodes.agreement import NodeSecrets
from engram.nodes.launch import LaunchFile, LaunchFileError
from engram.telemetry.metrics import Metrics

TRUTH = "truth.db"
NOTEBOOK = "notebook.db"
INDEX = "index"

_log = structlog.get_logger("engram.miner")


class NodePorts(msgspec.Struct, frozen=True, kw_only=True):
    """What a node depends on from outside."""

    settings: MinerSettings
    launch: LaunchFile
    launch_file: Path | None
    """Reread before the node ends, because the end may have moved; None: the environment told the launch."""
    node_file: NodeFile
    signer: Signer
    clock: Clock
    ids: Ids
    metrics: Metrics


@final
class Node:
    """The parts of a node, with factories for the jobs that combine several."""

    def __init__(self, ports: NodePorts) -> None:
        """Open the databases (blocking), in a folder that this process has claimed.

        Raises MemoryAreaError, NodeError, OSError.
        """
        settings, launch, clock = ports.settings, ports.launch, ports.clock
        data = Path(launch.data_dir)
        self.truth = Truth.open(data / TRUTH, clock, ports.ids)
        self.embedder = make_embedder(launch, settings)
        self.store = IndexedStore(self.truth, _index(launch, data, self.embedder.dimension, self.truth.truth_id))
        self.notebook = Notebook.open(data / NOTEBOOK)
        self.attestations = Attestations(self.notebook)
        self.chain = follow(launch, settings, ports.signer.own_hotkey, clock, ports.metrics)
        self.commitment = Commitment()
        private_windows = settings.private_noise_sigma == 0
        self.words = Words(data / words_db.FILE, self.truth)
        self.windows = (
            None
            if settings.windows == "off"
            else Windows(data / windows_db.FILE, self.truth, self.embedder, of_private=private_windows)
        )
        self.store.on_changes = self._committed
        self.store.kept_after = self._kept_after
        self.storage = StorageGauge(
            data,
            launch.storage_bytes,
            keeper=launch.controller(),
            kept_share=settings.controller_share,
            reusable=self.truth.free_bytes,
        )
        self.uptime = Uptime(self.truth, clock)
        self.readiness = Readiness(
            self.embedder,
            lambda: self.store.index_has_answered,
            lambda: any(msgspec.structs.astuple(self.store.count())),
        )
        self.service = self._service(ports)
        self.http = HttpSettings(max_body_bytes=MAX_BODY_BYTES, requests_per_minute_per_ip=settings.requests_per_minute)
        ids, metrics = ports.ids, ports.metrics
        self.app = make_app(self.service, settings=self.http, clock=clock, ids=ids, metrics=metrics)
        self.ops_app = ops_app(self.service, clock=clock, ids=ids, metrics=metrics, chain=self.chain.status)
        self.lifetime = Lifetime(clock, launch.ends_at, lambda: _end_in(ports, launch), lambda: _has_current_end(ports))
        self._loaded = False

    def _service(self, ports: NodePorts) -> Service:
        settings, launch, node_file = ports.settings, ports.launch, ports.node_file
        return Service(
            identity=Identity(
                session_id=launch.session_id,
                launch_token=launch.launch_token,
                boot_id=node_file.boot_id,
                started_at=node_file.started_at,
                netuid=launch.netuid,
                signer=ports.signer,
            ),
            gate=Gate(
                controller=launch.controller(),
                require_signature=settings.require_signature or launch.environment == "mainnet",
                clock=ports.clock,
                node=ports.signer.hotkey,
                tenants=settings.tenants,
                floor=ReplayFloor(
                    Path(launch.data_dir),
                    now_ms=int(ports.clock.now() * 1000),
                    longest_ms=miner_scheme.NAMESPACE_WINDOW_MS,
                ),
            ),
            limits=RecordLimits(self.embedder.dimension, settings.max_text_chars, settings.max_metadata_bytes),
            store=self.store,
            truth=self.truth,
            embedder=self.embedder,
            commitment=self.commitment,
            notebook=self.notebook,
            attestations=self.attestations,
            subnet=self.chain.subnet,
            storage=self.storage,
            statistics=Statistics(ports.clock),
            uptime=self.uptime,
            metrics=ports.metrics,
            clock=ports.clock,
            searchable=lambda: self.store.usable,
            ready=lambda: self.readiness.ready,
            private_bucket_s=settings.private_bucket_ms / 1000,
            noise_sigma=settings.private_noise_sigma,
            use_secrets=self._use_secrets,
            countersigner=Countersigner(HttpClient(), launch.gateway, ports.signer, ports.clock),
            words=self.words,
            windows=self.windows,
            waits_for_windows=settings.windows == "before",
        )

    def _committed(self, changes: Sequence[Change]) -> None:
        self.commitment.follow(changes)
        self.words.hint(changes)
        if self.windows is not None:
            self.windows.hint(changes)

    def _kept_after(self) -> int:
        after = self.words.kept_after
        return after if self.windows is None else min(after, self.windows.kept_after)

    def _use_secrets(self, secrets: NodeSecrets) -> None:
        if secrets.embedding_api_key and isinstance(self.embedder, OpenAiEmbedder):
            self.embedder.use_key(secrets.embedding_api_key)

    async def keep_open(self, context: Context) -> None:
        """Return the job that closes the databases, last of all."""
        context.ready()
        try:
            await trio.sleep_forever()
        finally:
            self.words.close()
            if self.windows is not None:
                self.windows.close()
            self.truth.close()
            self.notebook.close()

    async def serve_store(self, context: Context) -> None:
        """Return the job of the store: loads the in-memory state once and runs the index."""
        if not self._loaded:
            await self.store.load()
            await self.commitment.load(self.truth)
            await self.attestations.load()
            self._loaded = True
        context.ready()
        await self.store.run(lambda: _log.info("index_ready"))

    async def live(self, context: Context) -> None:
        """Return the job that ends when the node's time is up."""
        context.ready()
        await self.lifetime.over()


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


def _end_in(ports: NodePorts, launch: LaunchFile) -> float | None:
    """Return the end in the launch file; the known one when the file is unreadable or belongs to another launch.

    Where there is no file, the last certificate names the end.
    """
    config = ports.launch_file
    if config is None:
        return launch.ends_at if ports.signer.ends_at is None else ports.signer.ends_at
    try:
        found = launches.read(config)
    except LaunchFileError as error:
        _log.warning("launch_file_unreadable", reason=str(error))
        return launch.ends_at
    return found.ends_at if found.launch_token == launch.launch_token else launch.ends_at


def _has_current_end(ports: NodePorts) -> bool:
    """Return whether what names the end can be of now: a launch file, or a certificate, which has not come yet."""
    signer = ports.signer
    return ports.launch_file is not None or signer.own_hotkey is not None or signer.ends_at is not None
