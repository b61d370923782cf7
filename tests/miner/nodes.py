"""What the tests of the node share: a node without a process, and a node as a process."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import trio

from engram.clock import Clock, SeededIds, SystemClock
from engram.hotkeys import Keypair, miner_scheme, wallet
from engram.memory.embed.hash_embedder import HashEmbedder
from engram.memory.embed.protocol import Embedder
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
from engram.miner.auth import Gate
from engram.miner.service import Identity, Service
from engram.miner.signer import Signer
from engram.miner.stakes import NoSubnet, Subnet
from engram.miner.statistics import Statistics
from engram.miner.storage import StorageGauge
from engram.miner.uptime import Uptime
from engram.nodes import launch
from engram.nodes.agreement import NodeSecrets
from engram.telemetry.metrics import Metrics
from tests.memory.stores import DIMENSION, ExactIndex
from tests.warmed import WarmProgram, starts_alike

ROOT = Path(__file__).resolve().parent.parent.parent
CONTROLLER = Keypair.from_seed(bytes([1]) * 32)
STRANGER = Keypair.from_seed(bytes([2]) * 32)
NODE = Keypair.from_seed(bytes([3]) * 32)


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    *,
    clock: Clock | None = None,
    require_signature: bool = False,
    quota: int = 10**9,
    kept_share: float = 0.0,
    tenants: Literal["controller", "anyone"] = "controller",
    subnet: Subnet | None = None,
    private_bucket_s: float = 0.0,
    noise_sigma: float = 0.0,
    signer: Signer | None = None,
    use_secrets: Callable[[NodeSecrets], None] = lambda _: None,
    embedder: Embedder | None = None,
    waits_for_windows: bool = False,
) -> AsyncIterator[Service]:
    """A node's service over a real database and an exact index, without HTTP and without a process."""
    time_source = clock or SystemClock()
    truth = Truth.open(folder / "truth.db", time_source, SeededIds(1))
    store = IndexedStore(truth, ExactIndex())
    commitment = Commitment()
    embeds = embedder or HashEmbedder(DIMENSION)
    words = Words(folder / words_db.FILE, truth)
    windows = Windows(folder / windows_db.FILE, truth, embeds, of_private=noise_sigma == 0)

    def committed(changes: Sequence[Change]) -> None:
        commitment.follow(changes)
        words.hint(changes)
        windows.hint(changes)

    store.on_changes = committed
    notebook = Notebook.open(folder / "notebook.db")
    attestations = Attestations(notebook)
    await store.load()
    await commitment.load(truth)
    await attestations.load()
    service = Service(
        identity=Identity("session", "token", "boot", 1.0, 450, signer or Signer.with_hotkey(NODE)),
        gate=Gate(
            controller=CONTROLLER.public_key,
            require_signature=require_signature,
            clock=time_source,
            node=NODE.public_key,
            tenants=tenants,
        ),
        limits=RecordLimits(DIMENSION),
        store=store,
        truth=truth,
        embedder=embeds,
        commitment=commitment,
        notebook=notebook,
        attestations=attestations,
        subnet=subnet or NoSubnet(),
        storage=StorageGauge(folder, quota, keeper=CONTROLLER.public_key, kept_share=kept_share),
        statistics=Statistics(time_source),
        uptime=Uptime(truth, time_source),
        metrics=Metrics(),
        clock=time_source,
        searchable=lambda: store.usable,
        private_bucket_s=private_bucket_s,
        noise_sigma=noise_sigma,
        gauss=random.Random(1).gauss,
        use_secrets=use_secrets,
        words=words,
        windows=windows,
        waits_for_windows=waits_for_windows,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(words.run, lambda: None)
        nursery.start_soon(windows.run, lambda: None)
        nursery.start_soon(truth.run, lambda: None)
        nursery.start_soon(notebook.run, lambda: None)
        nursery.start_soon(store.run, lambda: None)
        with trio.fail_after(30):
            yield service
        nursery.cancel_scope.cancel()
    words.close()
    windows.close()
    truth.close()
    notebook.close()


def encoded(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode()


class Stamps:
    """Unix milliseconds, none of them twice and none ahead of the clock: the same request stamped alike is a replay."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            while (now_ms := time.time_ns() // 1_000_000) <= self._last:
                time.sleep(0.0001)
            self._last = now_ms
            return now_ms


STAMPS = Stamps()


def signed(keypair: Keypair, endpoint: str, fields: Mapping[str, Any], now_ms: int | None = None) -> bytes:
    stamp = now_ms if now_ms is not None else STAMPS.next()
    return encoded(miner_scheme.sign_body(keypair, endpoint, fields, stamp))


def in_namespace(keypair: Keypair, name: str, now_ms: int | None = None) -> dict[str, Any]:
    stamp = now_ms if now_ms is not None else STAMPS.next()
    return dict(miner_scheme.sign_namespace(keypair, name, stamp))


class NodeProcess:
    """A node as the gateway starts it. `start` it (again) on the same folder."""

    def __init__(self, folder: Path, *, is_warm: bool = True, **told: Any) -> None:
        """`is_warm`: it forks from a warmed interpreter. Where the start itself is the subject, it does not."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.folder = folder
        self.launch_file = folder / "launch.json"
        wallet.write_hotkey_file(folder / "hotkey", NODE)
        self.launch = launch.LaunchFile(
            **{
                "session_id": "session-1",
                "launch_token": "token-1",
                "port": self.port,
                "data_dir": str(folder / "data"),
                "hotkey_file": str(folder / "hotkey"),
                "controller_public_key": CONTROLLER.public_key.hex(),
                "embedder": launch.EmbedderLaunch(kind="hash"),
                "log_file": str(folder / "node.log"),
                **told,
            }
        )
        self.entry = ["-m", "engram.miner"]
        """What of Python the process runs."""
        self.is_warm = is_warm
        self.process: subprocess.Popen[bytes] | WarmProgram | None = None

    def start(self) -> float:
        """Starts it and returns the seconds until /health answered."""
        launch.write(self.launch_file, self.launch)
        began = time.monotonic()
        words = [*self.entry, "--config", str(self.launch_file)]
        self.process = (
            WarmProgram(words, start_new_session=True)
            if self.is_warm and starts_alike(os.environ)
            else subprocess.Popen([sys.executable, *words], cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
        )
        self.await_health()
        return time.monotonic() - began

    def await_health(self) -> None:
        """Waits until /health answers. Raises AssertionError with the log when it does not."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                self.get("/health")
                return
            if (self.process is not None and self.process.poll() is not None) or time.monotonic() - began > 20:
                raise AssertionError(f"the node did not start: {self.log()}")
            time.sleep(0.01)

    def log(self) -> str:
        path = self.folder / "node.log"
        return path.read_text() if path.exists() else ""

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> dict[str, Any]:
        return self.ask("GET", path)[1]

    def post(self, path: str, **fields: Any) -> dict[str, Any]:
        return self.ask("POST", path, encoded(fields))[1]

    def retrieve(self, cid: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        suffix = f"?{urlencode(parameters)}" if parameters else ""
        return self.ask("GET", f"/retrieve/{quote(cid, safe='')}{suffix}")

    def delete(self, cid: str) -> tuple[int, dict[str, Any]]:
        body = signed(CONTROLLER, "DeleteSynapse", {"cid": cid})
        return self.ask("DELETE", f"/retrieve/{quote(cid, safe='')}", body)

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout=10)


@contextlib.contextmanager
def node(folder: Path, *, is_warm: bool = True, **told: Any) -> Iterator[NodeProcess]:
    made = NodeProcess(folder, is_warm=is_warm, **told)
    try:
        made.start()
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()
