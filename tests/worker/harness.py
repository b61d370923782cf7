"""A worker under test in this process, and an orchestrator on npm's socket.io or on python-socketio in another."""

import json
import random
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final, Literal

import msgspec
import pytest
import trio

from config.model import WorkerSettings
from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.http.head import Bounds
from engram.http.server import Limits
from engram.ledger import InlineLedger, Ledger, open_inline
from engram.telemetry.metrics import Metrics
from engram.worker.kinds import JobKind
from engram.worker.model import WorkerJob
from engram.worker.service import WorkerPorts, WorkerService
from tests.doubles.orchestrator.app import Orchestrator
from tests.doubles.orchestrator.desk import Desk
from tests.http.servers import bare
from tests.sampling import SEED

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "tests" / "node"
ALICE = Keypair.from_uri("//Alice")
GPU = {"gpu_count": 1, "gpu_name": "NVIDIA H100 PCIe", "vram_gb": 85.0}
FAST = WorkerSettings(
    orchestrator_url="http://127.0.0.1:1",
    concurrency=4,
    waiting=16,
    connect_s=2.0,
    backoff_min_s=0.01,
    backoff_max_s=0.05,
    steady_s=0.001,
    drain_s=5.0,
    ack_s=2.0,
    resend_s=30.0,
)

needs_socket_io = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules" / "socket.io").is_dir(),
    reason="needs Node and socket.io: run scripts/setup-node",
)


class Echo:
    """Jobs whose result is their payload; a `hold` in it waits until the test lets go."""

    def __init__(self, *, repeatable: bool = False) -> None:
        self.repeatable = repeatable
        self.runs: list[WorkerJob] = []
        self.holds: dict[str, trio.Event] = {}

    async def run(self, job: WorkerJob) -> Any:
        self.runs.append(job)
        if isinstance(job.payload, dict) and (name := job.payload.get("hold")) is not None:
            await self.holds.setdefault(name, trio.Event()).wait()
        return job.payload

    def let_go(self, name: str) -> None:
        self.holds.setdefault(name, trio.Event()).set()


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until what the other side of a socket or a process brings about holds."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- no event crosses
            await trio.sleep(0.001)


class Stopping:
    """A supervised job's context."""

    def __init__(self) -> None:
        self.stop_requested = trio.Event()
        self.started = trio.Event()

    def ready(self, info: object = None) -> None:
        self.started.set()


class Bench:
    """A worker that runs."""

    def __init__(self, service: WorkerService, context: Stopping, ledger: Ledger) -> None:
        self.service, self.context, self.ledger = service, context, ledger
        self.ended = trio.Event()

    async def stop(self) -> None:
        """Stop it as a supervisor does, and wait for its end."""
        self.context.stop_requested.set()
        with trio.fail_after(10):
            await self.ended.wait()


@asynccontextmanager
async def working(
    url: str,
    kinds: Mapping[str, JobKind] | None = None,
    *,
    ledger: InlineLedger | None = None,
    metrics: Metrics | None = None,
    **changes: Any,
) -> AsyncIterator[Bench]:
    """Run a worker for this orchestrator; it is cut, not drained, at the end."""
    settings = msgspec.structs.replace(FAST, orchestrator_url=url, **changes)
    http, context, own = HttpClient(), Stopping(), ledger or open_inline()

    async def gpu() -> object:
        return GPU

    service = WorkerService(
        WorkerPorts(
            settings=settings,
            keypair=ALICE,
            http=http,
            ledger=own,
            clock=SystemClock(),
            rng=random.Random(SEED),
            kinds=kinds or {"inference": Echo()},
            gpu=gpu,
            metrics=metrics or Metrics(),
        )
    )
    bench = Bench(service, context, own)

    async def run() -> None:
        await service.run(context)  # type: ignore[arg-type]  # the part of a Context that it needs
        bench.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(5):
            await context.started.wait()
        yield bench
        nursery.cancel_scope.cancel()
    await http.aclose()
    if ledger is None:
        own.close()


@asynccontextmanager
async def orchestrating(desk: Desk | None = None, port: int = 0, **options: Any) -> AsyncIterator[Orchestrator]:
    """Serve the reference orchestrator on loopback; its `url` says where."""
    orchestrator = Orchestrator(desk, **options)
    async with bare(orchestrator, Limits(bounds=Bounds(websocket=True)), port=port) as server:
        orchestrator.port = server.port
        orchestrator.url = f"http://127.0.0.1:{server.port}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(orchestrator.run)
            yield orchestrator
            nursery.cancel_scope.cancel()


class Peer:
    """A program of somebody else's Socket.IO, spoken to by lines of JSON."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.port = 0
        self.lines: list[dict[str, Any]] = []
        self._news = trio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def read(self) -> None:
        """Take its lines until it ends."""
        assert self.process.stdout is not None
        rest = b""
        async for part in self.process.stdout:
            *whole, rest = (rest + part).split(b"\n")
            self.lines += [json.loads(line) for line in whole]
            self._news.set()
            self._news = trio.Event()

    async def do(self, word: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps({"do": word, **fields}).encode() + b"\n")

    def of(self, key: str) -> list[dict[str, Any]]:
        """The lines that have this key."""
        return [line for line in self.lines if key in line]

    async def next(self, key: str, count: int = 1, seconds: float = 10.0) -> dict[str, Any]:
        """Wait for the `count`-th line with this key."""
        with trio.fail_after(seconds):
            while len(found := self.of(key)) < count:
                await self._news.wait()
        return found[count - 1]

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        with trio.fail_after(seconds):
            while not condition():
                await self._news.wait()


@asynccontextmanager
async def peer_program(*words: str, cwd: Path = ROOT) -> AsyncIterator[Peer]:
    """Run a program; it is killed at the end."""
    async with trio.open_nursery() as nursery:
        begin = partial(trio.run_process, list(words), cwd=cwd, stdin=PIPE, stdout=PIPE, check=False)
        peer = Peer(await nursery.start(begin))
        nursery.start_soon(peer.read)
        try:
            yield peer
        finally:
            peer.process.kill()
        nursery.cancel_scope.cancel()


Side = Literal["npm", "python-socketio"]
SIDES: Final = [
    pytest.param("npm", marks=[needs_socket_io, pytest.mark.external]),
    pytest.param("python-socketio"),
]
"""Whose Socket.IO is at the other side."""
_ORCHESTRATORS: Final[dict[Side, tuple[str, ...]]] = {
    "npm": ("node", str(NODE / "orchestrator.mjs")),
    "python-socketio": (sys.executable, "-m", "tests.worker.socketio_orchestrator"),
}
_WORKERS: Final[dict[Side, tuple[str, ...]]] = {
    "npm": ("node", str(NODE / "worker_client.mjs")),
    "python-socketio": (sys.executable, "-m", "tests.worker.socketio_worker"),
}


@asynccontextmanager
async def peer_orchestrator(side: Side, port: int = 0, *pings_ms: int) -> AsyncIterator[Peer]:
    """An orchestrator on somebody else's server."""
    async with peer_program(*_ORCHESTRATORS[side], str(port), *map(str, pings_ms)) as peer:
        peer.port = (await peer.next("listening", seconds=60))["listening"]
        yield peer


@asynccontextmanager
async def peer_worker(side: Side, url: str, introduction: str, *transports: str) -> AsyncIterator[Peer]:
    """A worker on somebody else's client; without `transports` it begins by polling."""
    async with peer_program(*_WORKERS[side], url, introduction, *transports) as peer:
        yield peer
