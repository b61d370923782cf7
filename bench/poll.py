"""Polling 5,000 nodes every 30 s: what it costs and what it does to the loop.

Each node has an address of its own (127.x.y.z); one process answers for them all. Supervision tree, ledger, poller and
HTTP client are the gateway's own. In turns with it a bare trio loop makes the same requests at the same rate
(bench/support/bare_poller.py). `python -m bench.poll [--quick]`.
"""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import trio

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from bench.support import bare_poller
from bench.support.report import print_line
from bench.support.sessions import fill
from config.model import StatsSettings
from engram.clock import SystemClock
from engram.hints import Hints
from engram.http.client import HttpClient
from engram.ledger import LedgerActor, LedgerClient
from engram.sessions import SystemInstants
from engram.stats import StatsPoller, StatsPorts, StatsView, ask_stats
from engram.telemetry.metrics import Metrics

QUICK = "--quick" in sys.argv
NODES = 5_000
ROUNDS, MEASURE_S = (2, 10) if QUICK else (3, 20)
WANTED = {"cpu_vs_yardstick": "<= 2.5", "loop_lag_p99_vs_yardstick": "<= 3"}

STATS = {
    "status": "ok",
    "vectors": 1234,
    "peers": 0,
    "uid": None,
    "queries_today": 56,
    "p50_latency_ms": 7.8,
    "proof_rate": 1.0,
    "uptime_pct": 100.0,
    "block": 5_000_000,
    "avg_score": None,
    "hotkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
}


class Node(asyncio.Protocol):
    """Answers one request, whatever it asks."""

    BODY = json.dumps(STATS).encode()
    ANSWER = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        % len(BODY)
    ) + BODY

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self.transport.write(self.ANSWER)
            self.transport.close()


async def respond() -> None:
    server = await asyncio.get_running_loop().create_server(Node, "0.0.0.0", 0, backlog=1_000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def host_of(n: int) -> str:
    return f"127.{1 + n // 62_500}.{n // 250 % 250}.{1 + n % 250}"


async def measure(folder: Path) -> dict[str, float]:
    """Seconds of the gateway's own poller on the ledger in `folder`."""
    registry = Registry()
    ledger = LedgerClient(registry.ref(LedgerActor, "ledger"), folder)
    http = HttpClient()
    clock = SystemClock()
    view = StatsView(clock)
    settings = StatsSettings()
    pollers: list[StatsPoller] = []
    ports = StatsPorts(
        ledger=ledger,
        ask=partial(_ask, http, settings),
        view=view,
        instants=SystemInstants(),
        settings=settings,
        rng=random.Random(1),
        hints=Hints(),
        metrics=Metrics(),
    )

    def start() -> StatsPoller:
        pollers.append(StatsPoller(ports))
        return pollers[-1]

    spec = SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", lambda: LedgerActor(folder, lambda error: None), name="ledger"),
            ChildSpec("stats_poller", start, name="stats_poller"),
        ],
    )
    lags: list[float] = []
    async with open_system(spec, registry=registry):
        await trio.sleep(3)
        polls, cpu, began = pollers[0].polls, time.process_time(), time.perf_counter()
        with trio.move_on_after(MEASURE_S):
            while True:
                due = time.perf_counter() + 0.02
                await trio.sleep(0.02)
                lags.append((time.perf_counter() - due) * 1e3)
        passed = time.perf_counter() - began
        made = pollers[0].polls - polls
        figures = {
            "cpu_share": (time.process_time() - cpu) / passed,
            "cpu_ms_per_poll": (time.process_time() - cpu) * 1e3 / max(made, 1),
            "loop_lag_p99_ms": statistics.quantiles(lags, n=100)[98],
            "loop_lag_max_ms": max(lags),
            "polls_per_s": made / passed,
            "answered_share": len(view) / NODES,
        }
    ledger.close()
    await http.aclose()
    return figures


async def _ask(http: HttpClient, settings: StatsSettings, endpoint: str):  # type: ignore[no-untyped-def]  # as ask_stats
    return await ask_stats(http, endpoint, settings)


def main() -> None:
    if "--respond" in sys.argv:
        asyncio.run(respond())
        return
    responder = subprocess.Popen(
        [sys.executable, "-m", "bench.poll", "--respond"], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    try:
        assert responder.stdout is not None
        port = int(responder.stdout.readline())
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), NODES, lambda n: f"http://{host_of(n)}:{port}")
            ours, bare = [], []
            for _ in range(ROUNDS):
                ours.append(trio.run(measure, Path(folder)))
                every_s = StatsSettings().interval_s
                bare.append(trio.run(bare_poller.measure, lambda n: (host_of(n), port), NODES, every_s, MEASURE_S))
    finally:
        responder.kill()
        responder.wait()
    ratios = {
        f"{name}_vs_yardstick": statistics.median(a[figure] / b[figure] for a, b in zip(ours, bare, strict=True))
        for name, figure in (("cpu", "cpu_ms_per_poll"), ("loop_lag_p99", "loop_lag_p99_ms"))
    }
    print_line("poll", _middle(ours), {"yardstick": _middle(bare)}, ratios, WANTED)


def _middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
