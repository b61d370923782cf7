"""From a launch to a healthy node in a container, beside a bare run of the same image in the same engine.

In turns: the backend launches a node (look, create, orders, start, look), and three calls create and start a container
that gets the same orders by its environment; both are asked for /health until they are ready. The engine is the one at
ENGRAM_ENGINE: `scripts/with-engine docker make bench NAME=docker`. `python -m bench.docker [--quick]`.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import trio

from bench.support.report import print_line
from config.engines import engine_at
from config.model import DockerSettings, MinerSettings, ProvisioningSettings, Settings
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import Keypair, wallet
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.provisioning import NodeBackend, NodeSpec
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.docker.factory import docker_backend
from engram.provisioning.docker.factory import engine as engine_of
from engram.provisioning.health import health_probe
from engram.provisioning.node_environment import environment_of, foreign_settings
from engram.sessions import TierName, rules
from engram.telemetry.metrics import Metrics

ADDRESS = os.environ.get("ENGRAM_ENGINE", "")
ROUNDS = 2 if "--quick" in sys.argv else 9
IMAGE = "engram-node:latest"
BUNDLE = Path(__file__).resolve().parents[1] / "build" / "image" / "engram-node.tar"
LEDGER_ID = "be9c0000"
FIRST_PORT = 28_500
POLL_S = 0.02
PATIENCE_S = 120.0
WANTED = {"overhead_s": "<= 0.5"}


class Round:
    """What one turn needs."""

    def __init__(self, folder: Path, number: int) -> None:
        key = folder / f"key-{number}"
        wallet.write_hotkey_file(key, Keypair.generate())
        self.spec = NodeSpec(
            token=f"{LEDGER_ID}-{number:04d}",
            session_id=f"session-{number}",
            tier=rules.tiers(0.10)[TierName.LITE],
            controller=b"\1" * 32,
            hotkey=wallet.read_hotkey_file(key).public_key,
            hotkey_file=str(key),
            port=FIRST_PORT + number,
            ends_at=SystemClock().now() + 3_600.0,
        )


def settings() -> Settings:
    return Settings(
        provisioning=ProvisioningSettings(backends=("docker",), miner_image=IMAGE),
        docker=DockerSettings(host=ADDRESS),
        miner=MinerSettings(embedder="hash"),
    )


def a_backend(folder: Path, http: HttpClient) -> NodeBackend:
    return docker_backend(
        BackendPorts(
            settings=settings(),
            data_dir=folder,
            ledger_id=LEDGER_ID,
            ledger=open_inline(),
            http=http,
            clock=SystemClock(),
            ids=SeededIds(),
            metrics=Metrics(),
            rng=Random(0),
        )
    )


async def until_healthy(http: HttpClient, spec: NodeSpec) -> None:
    is_healthy = health_probe(http)
    with trio.fail_after(PATIENCE_S):
        while not await is_healthy(f"http://127.0.0.1:{spec.port}", spec.token):  # noqa: ASYNC110  # a process's state
            await trio.sleep(POLL_S)


async def ours(backend: NodeBackend, http: HttpClient, spec: NodeSpec) -> tuple[float, float]:
    """Seconds from the launch to healthy, and those that the launch itself took."""
    began = trio.current_time()
    await backend.launch(spec)
    launched_s = trio.current_time() - began
    await until_healthy(http, spec)
    return trio.current_time() - began, launched_s


async def bare(engine: HttpClient, http: HttpClient, spec: NodeSpec) -> float:
    """The same by two calls, without a look at anything."""
    name, port = f"engram-bare-{spec.port}", f"{spec.port}/tcp"
    told = environment_of(spec, foreign_settings(settings()), port=spec.port or 0)
    body = {
        "Image": IMAGE,
        "Env": [f"{variable}={value}" for variable, value in told.items()],
        "ExposedPorts": {port: {}},
        "HostConfig": {"PortBindings": {port: [{"HostIp": "127.0.0.1", "HostPort": str(spec.port)}]}},
    }
    began = trio.current_time()
    await ask(engine, "POST", f"/containers/create?name={name}", body)
    await ask(engine, "POST", f"/containers/{name}/start")
    await until_healthy(http, spec)
    took_s = trio.current_time() - began
    await ask(engine, "DELETE", f"/containers/{name}?force=1&v=1")
    return took_s


async def ask(engine: HttpClient, method: str, path: str, body: object = None) -> None:
    url = f"http://engine/v1.41{path}"
    answer = await engine.request(method, url, json=body, read_s=60.0, total_s=60.0, fresh=True)
    if answer.status >= 400:
        raise RuntimeError(f"{method} {path}: {answer.status} {answer.content[:300]!r}")


async def measure() -> dict[str, Any]:
    http, engine = HttpClient(), HttpClient(unix_socket=engine_at(ADDRESS).path)
    launches: list[tuple[float, float]] = []
    runs: list[float] = []
    at = engine_of(DockerSettings(host=ADDRESS))
    if not await at.has_image(IMAGE):
        await at.load(BUNDLE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backend = a_backend(folder, http)
        for number in range(ROUNDS):
            mine, theirs = Round(folder, 2 * number).spec, Round(folder, 2 * number + 1).spec
            launches.append(await ours(backend, http, mine))
            await backend.destroy(mine.token)
            runs.append(await bare(engine, http, theirs))
    launch_s, run_s = statistics.median(took for took, _ in launches), statistics.median(runs)
    return {
        "launch_to_health_s": launch_s,
        "launch_call_s": statistics.median(call for _, call in launches),
        "run_to_health_s": run_s,
        "overhead_s": launch_s - run_s,
        "image_mb": BUNDLE.stat().st_size / 1e6 if BUNDLE.exists() else None,
    }


def main() -> None:
    if not ADDRESS:
        none = dict.fromkeys(("launch_to_health_s", "overhead_s", "image_mb"))
        print_line("docker", none, {}, {}, WANTED, reason="ENGRAM_ENGINE names no engine: scripts/with-engine docker …")
        return
    found = trio.run(measure)
    peer = {"run_to_health_s": found.pop("run_to_health_s")}
    print_line("docker", found, {"bare_run": peer}, {}, WANTED, rounds=ROUNDS)


if __name__ == "__main__":
    main()
