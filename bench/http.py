"""HTTP: CPU microseconds of the server a request, over 32 kept-alive connections, ours and its peers in turn.

A real gateway (its tree without a fleet, as in bench/purchase.py) for /health, a Quart route, the signed look at a
session and the 402; the bare server and its peers for a raw ASGI application and a stream. Figures are medians of
rounds, in each of which ours and the peer alternate many times; null is what is not installed here.
`python -m bench.http [--quick]`.
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
from bench.support.keepalive import KeptLoad
from bench.support.paying import BODY, Phone
from engram.hotkeys import Keypair, gateway_scheme

QUICK: Final = "--quick" in sys.argv
ROUNDS: Final = 5 if QUICK else 9
SLICES: Final = 10
"""Of each round: ours and its peers take turns that are so short that what else the machine does hits all alike."""
SLICE_S: Final = 0.1 if QUICK else 0.2
STREAMS: Final = 5
CONNECTIONS: Final = 32
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


def alternating(figures: dict[str, Any], loads: dict[str, KeptLoad]) -> None:
    """Median CPU microseconds of a request to each, over the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in loads}
    for load in loads.values():
        load.run(0.3)
    for _ in range(ROUNDS):
        spent = dict.fromkeys(loads, 0.0)
        answered = dict.fromkeys(loads, 0)
        for _ in range(SLICES):
            for name, load in loads.items():
                cpu_s, answers = load.run(SLICE_S)
                spent[name] += cpu_s
                answered[name] += answers
        for name, values in taken.items():
            values.append(spent[name] * 1e6 / answered[name])
    for name, load in loads.items():
        figures[name] = statistics.median(taken[name])
        load.close()


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
    load = KeptLoad(peer.port, peer.pids, lambda: get("/"), b"200", MANY)
    load.run(0.3)
    began = time.perf_counter()
    spent, answered = load.run(5.0)
    found = {
        "rps_10k_connections": answered / (time.perf_counter() - began),
        "us_10k_connections": spent * 1e6 / answered,
        "rss_mb": rss_kb(peer.pids[0]) / 1024,
    }
    load.close()
    return found


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

    def each(name: str, raw: Callable[[], bytes], peer: Peer, peer_name: str, status: bytes = b"200") -> None:
        alternating(
            figures,
            {
                f"{name}_us": KeptLoad(port, pids, raw, status, CONNECTIONS),
                f"{name}_{peer_name}_us": KeptLoad(peer.port, peer.pids, raw, status, CONNECTIONS),
            },
        )

    each("health", lambda: get("/health"), aiohttp, "aiohttp")
    each("quart_route", lambda: get("/tiers"), fastapi, "fastapi")
    each("signed_get", lambda: signed(keypair, "GET", session), fastapi, "fastapi")
    each("post_402", lambda: signed(keypair, "POST", "/sessions", BODY), fastapi, "fastapi", b"402")


def bare_load(peer: "Peer | Granian | Nginx", path: str = "/") -> KeptLoad:
    return KeptLoad(peer.port, peer.pids, lambda: get(path), b"200", CONNECTIONS)


def bare(stack: ExitStack, figures: dict[str, Any]) -> None:
    """The server alone."""
    ours, uvicorn = Peer(stack, "ours"), Peer(stack, "uvicorn")
    loads = {"raw_us": bare_load(ours), "raw_uvicorn_us": bare_load(uvicorn)}
    figures["raw_granian_us"] = figures["raw_nginx_us"] = None
    if shutil.which("granian", path=str(Path(sys.executable).parent)):
        loads["raw_granian_us"] = bare_load(Granian(stack))
    nginx = Nginx(stack) if shutil.which("nginx") else None
    if nginx is not None:
        loads["raw_nginx_us"] = bare_load(nginx, "/x")
    alternating(figures, loads)
    streams: dict[str, list[float]] = {"stream_mb_s": [], "stream_nginx_mb_s": []}
    for _ in range(STREAMS):
        streams["stream_mb_s"].append(stream_mb_s(ours.port))
        if nginx is not None:
            streams["stream_nginx_mb_s"].append(stream_mb_s(nginx.port))
    figures.update({name: statistics.median(values) for name, values in streams.items() if values})
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
