"""HTTP: CPU microseconds of the server a request, over 32 kept-alive connections, ours and its peers in turn.

A real gateway (its tree without a fleet, as in bench/purchase.py) for /health, a Quart route, the signed look at a
session and the 402; the bare server and its peers for a raw ASGI application and a stream. `python -m bench.http
[--quick]`. Ratios are medians of rounds in which ours and the peer alternate; what is not installed here is null.
"""

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import trio

from bench.purchase import FACILITATOR, start
from bench.support.http_peers import STREAMED
from bench.support.keepalive import cpu_us, own_cpu_s
from bench.support.paying import BODY, Phone
from engram.hotkeys import Keypair, gateway_scheme

QUICK: Final = "--quick" in sys.argv
ROUNDS: Final = 3 if QUICK else 7
SECONDS: Final = 1.0 if QUICK else 2.0
MANY: Final = 1_000 if QUICK else 10_000
IDLE: Final = 500 if QUICK else 2_000
ROOT: Final = Path(__file__).resolve().parent.parent
WANTED: Final = {
    "raw_vs_uvicorn": "<= 1.2",
    "health_vs_aiohttp": "<= 1.0",
    "signed_get_vs_fastapi": "<= 0.9",
    "quart_route_vs_fastapi": "<= 2.2",
    "post_402_vs_fastapi": "<= 2.0",
    "idle_connection_kb": "<= 6",
    "stream_mb_s_vs_nginx": ">= 0.4",
}


class Peer:
    """A process that serves; ended with the stack."""

    def __init__(self, stack: ExitStack, *command: str) -> None:
        reading, writing = os.pipe()
        words = [sys.executable, "-m", "bench.support.http_peers", command[0], str(writing), *command[1:]]
        self._process = subprocess.Popen(words, cwd=ROOT, pass_fds=(writing,), stderr=subprocess.DEVNULL)
        stack.callback(_end, self._process)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
        if not line:
            raise RuntimeError(f"{command[0]} did not start: exit status {self._process.wait(30)}")
        self.port = int(json.loads(line)["port"])
        self.pids = [self._process.pid]


class Granian:
    """granian on a port of its own, workers included."""

    def __init__(self, stack: ExitStack) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        words = (
            "-m",
            "granian",
            "--interface",
            "asgi",
            "--port",
            str(self.port),
            "--no-access-log",
            "--log-level",
            "error",
        )
        process = subprocess.Popen([sys.executable, *words, "bench.support.http_peers:raw"], cwd=ROOT)
        stack.callback(_end, process)
        _await_port(self.port)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.pids = [process.pid, *map(int, children)]


class Nginx:
    """nginx with a file of five bytes and a large one."""

    def __init__(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "x").write_bytes(b"hello")
        with (folder / "stream").open("wb") as large:
            large.truncate(STREAMED)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; "
            f"fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; sendfile off; "
            f"keepalive_requests 1000000; server {{ listen 127.0.0.1:{self.port}; root {folder}; }} }}\n"
        )
        process = subprocess.Popen(
            ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.DEVNULL
        )
        stack.callback(_end, process)
        _await_port(self.port)
        self.pids = [process.pid]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _await_port(port: int) -> None:
    until = time.perf_counter() + 15
    while time.perf_counter() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing listens on {port}")


def get(path: str, **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: 127.0.0.1", "accept: */*", "user-agent: bench"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def signed(keypair: Keypair, method: str, path: str, body: bytes = b"") -> bytes:
    """A signed request; reading, and asking for a price, may be repeated within the minute that it holds."""
    version = 2 if body else 1
    headers = gateway_scheme.sign_request(keypair, method, path, time.time_ns() // 1_000_000, body, version=version)
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "accept: */*", "user-agent: bench"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


Measure = Callable[[], float]


def alternating(figures: dict[str, Any], measures: dict[str, Measure]) -> None:
    """Median of each over the rounds, in which they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(ROUNDS):
        for name, measure in measures.items():
            taken[name].append(measure())
    for name, values in taken.items():
        figures[name] = statistics.median(values)


def stream_mb_s(port: int) -> float:
    """How fast one client reads the stream."""
    part = memoryview(bytearray(1 << 20))
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(get("/stream"))
        began, size = time.perf_counter(), 0
        while size < STREAMED:
            read = sock.recv_into(part)
            if not read:
                raise RuntimeError("the stream ended early")
            size += read
        return size / (time.perf_counter() - began) / 1e6


def rss_kb(pid: int) -> int:
    return int(
        next(
            line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
        )
    )


def idle_kb(peer: Peer) -> float:
    """Memory of one idle connection that has been used once."""
    before, held = rss_kb(peer.pids[0]), []
    for _ in range(IDLE):
        sock = socket.create_connection(("127.0.0.1", peer.port))
        sock.sendall(get("/"))
        sock.recv(4_096)
        held.append(sock)
    after = rss_kb(peer.pids[0])
    for sock in held:
        sock.close()
    return (after - before) / IDLE


def many_connections(peer: Peer) -> dict[str, float]:
    """Requests a second over very many connections, and the memory of the process meanwhile."""
    began, cpu = time.perf_counter(), own_cpu_s(peer.pids[0])
    used = cpu_us(peer.port, peer.pids, get("/"), connections=MANY, seconds=3 * SECONDS)
    spent = own_cpu_s(peer.pids[0]) - cpu
    took = time.perf_counter() - began
    return {
        "rps_10k_connections": spent * 1e6 / used / took,
        "us_10k_connections": used,
        "rss_mb": rss_kb(peer.pids[0]) / 1024,
    }


def buy(url: str, keypair: Keypair) -> str:
    """Buy a session with play money; returns its id."""

    async def main() -> str:
        phone = Phone(url)
        phone._keypair = keypair
        await phone.ask_price()
        answer = await phone.try_to_buy()
        return str(json.loads(answer.content)["session_id"])

    return trio.run(main)


def gateway(stack: ExitStack, figures: dict[str, Any]) -> None:
    """The gateway's four lines, each beside its peer."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "gateway").mkdir()
    facilitator, told = start([*FACILITATOR, "--data-dir", str(folder / "facilitator"), "--ready-fd"])
    stack.callback(_end, facilitator)
    process, said = start(["-m", "bench.purchase", "--serve", told["facilitator_url"], str(folder / "gateway")])
    stack.callback(_end, process)
    port, pids = int(said["gateway_url"].rpartition(":")[2]), [process.pid]
    keypair = Keypair.generate()
    session = f"/sessions/{buy(said['gateway_url'], keypair)}"
    asked = http.client.HTTPConnection("127.0.0.1", port)
    first = signed(keypair, "POST", "/sessions", BODY)
    headers = dict(line.split(": ", 1) for line in first.split(b"\r\n\r\n")[0].decode().split("\r\n")[1:])
    asked.request("POST", "/sessions", BODY, headers)
    offer = asked.getresponse().read().decode()
    asked.close()
    fastapi = Peer(stack, "fastapi", str(folder / "gateway" / "ledger.sqlite3"), offer)
    aiohttp = Peer(stack, "aiohttp")

    def measure(port: int, pids: list[int], raw: Callable[[], bytes], status: bytes = b"200") -> Measure:
        return lambda: cpu_us(port, pids, raw(), status=status, seconds=SECONDS)

    def each(name: str, raw: Callable[[], bytes], peer: Peer, peer_name: str, status: bytes = b"200") -> None:
        alternating(
            figures,
            {
                f"{name}_us": measure(port, pids, raw, status),
                f"{name}_{peer_name}_us": measure(peer.port, peer.pids, raw, status),
            },
        )

    each("health", lambda: get("/health"), aiohttp, "aiohttp")
    each("quart_route", lambda: get("/tiers"), fastapi, "fastapi")
    each("signed_get", lambda: signed(keypair, "GET", session), fastapi, "fastapi")
    each("post_402", lambda: signed(keypair, "POST", "/sessions", BODY), fastapi, "fastapi", b"402")


def bare(stack: ExitStack, figures: dict[str, Any]) -> None:
    """The server alone."""
    ours, uvicorn = Peer(stack, "ours"), Peer(stack, "uvicorn")
    measures: dict[str, Measure] = {
        "raw_us": lambda: cpu_us(ours.port, ours.pids, get("/"), seconds=SECONDS),
        "raw_uvicorn_us": lambda: cpu_us(uvicorn.port, uvicorn.pids, get("/"), seconds=SECONDS),
    }
    figures["raw_granian_us"] = figures["raw_nginx_us"] = None
    if shutil.which("granian", path=str(Path(sys.executable).parent)):
        granian = Granian(stack)
        measures["raw_granian_us"] = lambda: cpu_us(granian.port, granian.pids, get("/"), seconds=SECONDS)
    nginx = Nginx(stack) if shutil.which("nginx") else None
    if nginx is not None:
        measures["raw_nginx_us"] = lambda: cpu_us(nginx.port, nginx.pids, get("/x"), seconds=SECONDS)
    alternating(figures, measures)
    streams: dict[str, Measure] = {"stream_mb_s": lambda: stream_mb_s(ours.port)}
    if nginx is not None:
        streams["stream_nginx_mb_s"] = lambda: stream_mb_s(nginx.port)
    alternating(figures, streams)
    fresh = Peer(stack, "ours")
    figures["idle_connection_kb"] = idle_kb(fresh)
    figures.update(many_connections(fresh))


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        bare(stack, figures)
    with ExitStack() as stack:
        gateway(stack, figures)
    ratios = {
        "raw_vs_uvicorn": figures["raw_us"] / figures["raw_uvicorn_us"],
        "health_vs_aiohttp": figures["health_us"] / figures["health_aiohttp_us"],
        "signed_get_vs_fastapi": figures["signed_get_us"] / figures["signed_get_fastapi_us"],
        "quart_route_vs_fastapi": figures["quart_route_us"] / figures["quart_route_fastapi_us"],
        "post_402_vs_fastapi": figures["post_402_us"] / figures["post_402_fastapi_us"],
        "stream_mb_s_vs_nginx": figures["stream_mb_s"] / figures["stream_nginx_mb_s"]
        if "stream_nginx_mb_s" in figures
        else None,
    }
    known = {**figures, **ratios}
    missed = []
    for name, wanted in WANTED.items():
        sign, _, bound = wanted.partition(" ")
        value = known[name]
        if value is not None and not (value <= float(bound) if sign == "<=" else value >= float(bound)):
            missed.append(name)
    peers = {
        name: value
        for name, value in figures.items()
        if any(word in name for word in ("uvicorn", "aiohttp", "fastapi", "granian", "nginx"))
    }

    def rounded(values: dict[str, Any]) -> dict[str, Any]:
        return {name: None if value is None else round(value, 3) for name, value in values.items()}

    own = {name: value for name, value in figures.items() if name not in peers}
    line = {
        "bench": "http",
        "figures": rounded(own),
        "peers": rounded(peers),
        "ratios": rounded(ratios),
        "wanted": WANTED,
        "missed": missed,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
