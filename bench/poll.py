"""Polling 5,000 nodes every 30 s: what it costs and what it does to the loop.

Each node has an address of its own (127.x.y.z); one process answers for them all. Supervision tree, ledger, poller and
HTTP client are the gateway's own. `python -m bench.poll [--quick]`.
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
MEASURE_S = 10 if QUICK else 60
WANTED = {"cpu_share": 0.2, "loop_lag_p99_ms": 20.0}

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


async def measure(folder: Path, port: int) -> dict[str, float]:
    def endpoint_of(n: int) -> str:
        return f"http://127.{1 + n // 62_500}.{n // 250 % 250}.{1 + n % 250}:{port}"

    fill(folder, NODES, endpoint_of)
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
        figures = {
            "cpu_share": round((time.process_time() - cpu) / passed, 4),
            "loop_lag_p99_ms": round(statistics.quantiles(lags, n=100)[98], 2),
            "loop_lag_max_ms": round(max(lags), 2),
            "polls_per_s": round((pollers[0].polls - polls) / passed, 1),
            "answered_share": round(len(view) / NODES, 4),
        }
        figures["cpu_ms_per_poll"] = round(figures["cpu_share"] * 1e3 / max(figures["polls_per_s"], 1e-9), 3)
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
            figures = trio.run(measure, Path(folder), port)
    finally:
        responder.kill()
        responder.wait()
    missed = [name for name, most in WANTED.items() if figures[name] > most]
    print(
        json.dumps(
            {
                "bench": "poll",
                "figures": figures,
                "peers": {},
                "ratios": {},
                "wanted": {name: f"<= {most:g}" for name, most in WANTED.items()},
                "missed": missed,
            }
        )
    )


if __name__ == "__main__":
    main()
