"""MCP servers beside the official Python package's, with the same tools: calls a second, CPU a call, import, memory.

`calls_per_s` are `tools/call` of the stateless wire over HTTP on four connections, ours and the official one by turns;
`cpu_ms_per_call` is what the server's process used for one. `rss` is a process after a handshake, a list and a call:
`engram miner mcp` (public namespace, on a real node) beside the official server on standard input, a receiver beside
the official server over HTTP. Of the official package it is version 2 of the SDK, by scripts/setup-clients.

`python -m bench.mcp [--quick]`
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.support.http_load import closed_loop
from bench.support.report import print_line
from engram.hotkeys import wallet
from tests.mcp.official_sides import PYTHON_SDK
from tests.mcp.toys import NEW, call, request
from tests.miner.nodes import CONTROLLER, node
from tests.xeris.xeris_process import XerisProcess

QUICK = "--quick" in sys.argv
TURNS = 2 if QUICK else 5
SECONDS = 2.0 if QUICK else 4.0
CONNECTIONS = 4
ROOT = Path(__file__).parents[1]
ENGRAM = str(Path(sys.executable).with_name("engram"))
TICKS = os.sysconf("SC_CLK_TCK")
WANTED = {
    "calls_per_s_vs_official": ">= 1.5",
    "cpu_ms_per_call_vs_official": "<= 0.6",
    "rss_mb_vs_official": "<= 0.65",
    "receiver_rss_mb_vs_official": "<= 1.1",
}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PYTHON_SDK)}


def http_request(body: bytes, method: str, name: str = "") -> bytes:
    head = "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    head += f"accept: application/json, text/event-stream\r\nmcp-protocol-version: {NEW}\r\nmcp-method: {method}\r\n"
    if name:
        head += f"mcp-name: {name}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


CALL = http_request(call("latest", {"netuid": 450}, new=True), "tools/call", "latest")


@contextmanager
def server(kind: str) -> Iterator[tuple[int, int]]:
    """A server over HTTP, warmed; yields its process and port."""
    command = [sys.executable, "-m", "bench.support.mcp_servers", kind]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            warm(port)
            yield process.pid, port
        finally:
            process.kill()


def warm(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            loaded = closed_loop(port, at(port, 50), connections=1, seconds=5.0)
            assert loaded.took_ms
            return
        except (OSError, AssertionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def at(port: int, count: int) -> Iterator[bytes]:
    content = CALL.replace(b"{port}", str(port).encode())
    return (content for _ in range(count))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1_024
    raise AssertionError("no VmRSS")


def load(pid: int, port: int) -> tuple[float, float]:
    """Calls a second and CPU milliseconds a call."""
    before = cpu_s(pid)
    loaded = closed_loop(port, at(port, 10_000_000), connections=CONNECTIONS, seconds=SECONDS)
    return loaded.per_s, (cpu_s(pid) - before) * 1_000 / len(loaded.took_ms)


def import_s(*modules: str) -> float:
    """The best of three imports in a process of its own."""
    code = f"import time; a = time.perf_counter(); import {', '.join(modules)}; print(time.perf_counter() - a)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
        for _ in range(3)
    ]
    return min(float(run.stdout) for run in runs)


def stdio_rss(command: list[str], name: str, arguments: dict[str, Any]) -> float:
    """Memory of a stdio server after a handshake, a list and a call."""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "b", "version": "1"}}
        try:
            for line in (
                request("initialize", about, id=1),
                b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
                request("tools/list", id=2),
                call(name, arguments, id=3),
            ):
                process.stdin.write(line + b"\n")
                process.stdin.flush()
                if b'"id"' in line:
                    answer = json.loads(process.stdout.readline())
                    assert "result" in answer, answer
            return rss_mb(process.pid)
        finally:
            process.kill()


def memory() -> tuple[float, float, float]:
    """Megabytes of miner mcp, of the official server on standard input, and of a receiver."""
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        wallet.write_hotkey_file(key, CONTROLLER)
        (Path(folder) / "node").mkdir()
        with node(Path(folder) / "node", is_warm=False) as made:
            command = [ENGRAM, "miner", "mcp", "--to", f"http://127.0.0.1:{made.port}", "--key", str(key), "--public"]
            own = stdio_rss(command, "recall", {"query": "otters"})
        official = stdio_rss(
            [sys.executable, "-m", "bench.support.mcp_servers", "official-stdio"], "latest", {"netuid": 450}
        )
        receiver = XerisProcess(Path(folder) / "xeris", CONTROLLER.ss58, is_warm=False).start()
        try:
            for method, name in (("tools/list", ""), ("tools/call", "latest")):
                body = request(method, new=True) if not name else call(name, {"netuid": 450}, new=True)
                one = http_request(body, method, name).replace(b"{port}", str(receiver.port).encode())
                assert closed_loop(receiver.port, iter([one]), connections=1, seconds=5.0).took_ms
            receiving = rss_mb(receiver.pid)
        finally:
            receiver.kill()
    return own, official, receiving


def main() -> None:
    if not PYTHON_SDK.is_dir():
        print_line("mcp", {"calls_per_s": None}, {}, {}, WANTED, reason="the official SDK: scripts/setup-clients")
        return
    ours: list[tuple[float, float]] = []
    others: list[tuple[float, float]] = []
    with server("ours") as own, server("official") as official:
        for _ in range(TURNS):
            ours.append(load(*own))
            others.append(load(*official))
        official_http_mb, own_http_mb = rss_mb(official[0]), rss_mb(own[0])
    rate, cpu = (statistics.median(values) for values in zip(*ours, strict=True))
    other_rate, other_cpu = (statistics.median(values) for values in zip(*others, strict=True))
    own_mb, official_mb, receiver_mb = memory()
    print_line(
        "mcp",
        {
            "calls_per_s": rate,
            "cpu_ms_per_call": cpu,
            "import_s": import_s("engram.mcp.http", "engram.agents.tools"),
            "rss_mb": own_mb,
            "http_rss_mb": own_http_mb,
            "receiver_rss_mb": receiver_mb,
        },
        {
            "official": {
                "calls_per_s": other_rate,
                "cpu_ms_per_call": other_cpu,
                "import_s": import_s("mcp.server.lowlevel", "mcp.server.stdio", "httpx2"),
                "rss_mb": official_mb,
                "http_rss_mb": official_http_mb,
            }
        },
        {
            "calls_per_s_vs_official": rate / other_rate,
            "cpu_ms_per_call_vs_official": cpu / other_cpu,
            "rss_mb_vs_official": own_mb / official_mb,
            "receiver_rss_mb_vs_official": receiver_mb / official_http_mb,
        },
        WANTED,
    )


if __name__ == "__main__":
    main()
