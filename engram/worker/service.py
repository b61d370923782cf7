"""The worker as one child of the tree: its jobs, its link, and their end."""

import random
from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
import trio

from actors import Context, DrainingJob
from config.model import WorkerSettings
from engram.clock import Clock
from engram.gpu import clear_gpu_memory
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import Ledger
from engram.telemetry.metrics import Metrics
from engram.worker.introduction import Introducer
from engram.worker.kinds import JobKind
from engram.worker.link import Link, ReadGpu
from engram.worker.release import MemoryRelease
from engram.worker.runner import JobRunner

FLUSH_S: Final = 5.0
"""Seconds that the orchestrator gets at the end to acknowledge results."""


class WorkerPorts(msgspec.Struct, frozen=True):
    """What a worker needs."""

    settings: WorkerSettings
    keypair: Keypair
    http: HttpClient
    ledger: Ledger
    clock: Clock
    rng: random.Random
    kinds: Mapping[str, JobKind]
    gpu: ReadGpu
    metrics: Metrics


@final
class WorkerService:
    """One life of the worker."""

    def __init__(self, ports: WorkerPorts) -> None:
        self._settings = ports.settings
        self._metrics = ports.metrics
        self._release = MemoryRelease(clear_gpu_memory)
        self.runner = JobRunner(ports.ledger, ports.clock, ports.kinds, ports.settings, self)
        self.link = Link(
            ports.http,
            Introducer(ports.keypair, ports.clock),
            ports.ledger,
            ports.clock,
            ports.rng,
            ports.settings,
            self.runner,
            ports.gpu,
            lambda outcome: ports.metrics.worker_connections.labels(outcome).inc(),
        )

    def job(self) -> DrainingJob:
        """Return it as a child; its ChildSpec needs a `shutdown` of more than `drain_s` + FLUSH_S."""
        return DrainingJob(self.run)

    async def run(self, context: Context) -> None:
        """Work until asked to stop; then let running jobs end, deliver their results, and close.

        Raises LedgerError.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.runner.run)
            nursery.start_soon(self.link.run)
            if self._settings.release_gpu_memory:
                nursery.start_soon(self._release.run)
            context.ready()
            await context.stop_requested.wait()
            with trio.move_on_after(self._settings.drain_s):
                await self.runner.drain()
            with trio.move_on_after(FLUSH_S):
                await self.link.flush()
            await self.link.close()
            nursery.cancel_scope.cancel()

    def measure(self) -> None:
        """Set the gauges to the current values."""
        metrics, runner = self._metrics, self.runner
        metrics.worker_connected.set(self.link.status.phase == "serving")
        metrics.worker_in_flight.show({"running": runner.running, "waiting": max(0, runner.in_flight - runner.running)})
        metrics.worker_unacknowledged.set(runner.unacknowledged)

    # ---------------------------------------------------------------------------------------- RunnerEvents

    def ended(self, kind: str, outcome: str, seconds: float) -> None:
        """Count a job."""
        self._metrics.worker_jobs.labels(kind, outcome).inc()
        self._metrics.worker_job_seconds.labels(kind).observe(seconds)

    def idle(self) -> None:
        """Let memory be released that jobs have left behind."""
        self._release.ask()

    def refused(self, error: str) -> None:
        """Count a refusal."""
        self._metrics.worker_refused.inc()

    def unwritten(self) -> None:
        """Count a write that the ledger did not take."""
        self._metrics.worker_unwritten.inc()

    async def kept(self, job_id: str, result: Any) -> None:
        """Hand a result to the link."""
        await self.link.deliver(job_id, result)
