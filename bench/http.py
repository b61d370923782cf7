"""HTTP: CPU microseconds of the server a request, over 32 kept-alive connections, ours and its peers in turn.

A real gateway (its tree without a fleet, as in bench/purchase.py) for /health, a Quart route, the signed look at a
session and the 402; a node's search and its /health; the bare server and its peers for a raw ASGI application and a
stream. Figures are medians of rounds, in each of which ours and the peer alternate many times; null is what is not
installed here. `python -m bench.http [--quick]`.
"""

import http.client
import json
import resource
import shutil
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

from bench.purchase import FACILITATOR, gateway_command, start
from bench.support import memories
from bench.support.http_load import Lane
from bench.support.http_peers import STREAMED
from bench.support.http_servers import Granian, Nginx, Node, Peer, end
from bench.support.keepalive import KeptLoad
from bench.support.paying import BODY, Phone
from engram.hotkeys import Keypair, gateway_scheme

QUICK: Final = "--quick" in sys.argv
ROUNDS: Final = 5 if QUICK else 9
SLICES: Final = 10
"""Of each round: ours and its peers take turns that are so short that what else the machine does hits all alike."""
SLICE_S: Final = 0.1 if QUICK else 0.2
STREAMS: Final = 5
STORED: Final = 1_024
"""Vectors of the node that is searched."""
CONNECTIONS: Final = 32
MANY: Final = 1_000 if QUICK else 10_000
IDLE: Final = 500 if QUICK else 2_000
WANTED: Final = {
    "raw_vs_uvicorn": "<= 1.2",
    "health_vs_aiohttp": "<= 1.0",
    "signed_get_vs_fastapi": "<= 0.9",
    "quart_route_vs_fastapi": "<= 2.2",
    "post_402_vs_fastapi": "<= 2.0",
    "idle_connection_kb": "<= 6",
    "stream_mb_s_vs_nginx": ">= 0.4",
    "query_vs_health": "<= 6",
    "fresh_client_s_12": "<= 1",
    "fresh_client_s_200": "<= 1",
}


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


def fresh_client_s(stack: ExitStack, addresses: int) -> float:
    """The slowest of ten new clients, while addresses hold three times the connections that there is room for."""
    peer = Peer(stack, "ours", "400")
    words = ["-m", "bench.support.idle_holder", str(peer.port), str(addresses), str(1_200 // addresses)]
    holder = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)
    stack.callback(end, holder)
    assert holder.stdout is not None
    holder.stdout.readline()
    took_s = []
    for _ in range(10):
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", peer.port), timeout=30) as sock:
            sock.sendall(get("/"))
            if not sock.recv(4_096).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("a fresh client was refused")
        took_s.append(time.perf_counter() - began)
    return max(took_s)


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
    stack.callback(end, facilitator)
    process, said = start(gateway_command(told["facilitator_url"], folder / "gateway"))
    stack.callback(end, process)
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


def node(stack: ExitStack, figures: dict[str, Any]) -> None:
    """A node's search beside its own /health: what the store and its workers add to the server."""
    asked = Node(stack)
    vectors = memories.clustered(1, STORED + 1)
    lane = Lane(asked.port)
    for first in range(0, STORED, memories.BATCH):
        lane(memories.batch(vectors[first : first + memories.BATCH], first))
    query = memories.query(vectors[STORED])
    loads = {
        "query_us": KeptLoad(asked.port, asked.pids, lambda: query, b"200", CONNECTIONS),
        "node_health_us": KeptLoad(asked.port, asked.pids, lambda: get("/health"), b"200", CONNECTIONS),
    }
    alternating(figures, loads)


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
    for addresses in (12, 200):
        with ExitStack() as held:
            figures[f"fresh_client_s_{addresses}"] = fresh_client_s(held, addresses)


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        bare(stack, figures)
    with ExitStack() as stack:
        gateway(stack, figures)
    with ExitStack() as stack:
        node(stack, figures)
    ratios = {
        "raw_vs_uvicorn": figures["raw_us"] / figures["raw_uvicorn_us"],
        "health_vs_aiohttp": figures["health_us"] / figures["health_aiohttp_us"],
        "signed_get_vs_fastapi": figures["signed_get_us"] / figures["signed_get_fastapi_us"],
        "quart_route_vs_fastapi": figures["quart_route_us"] / figures["quart_route_fastapi_us"],
        "post_402_vs_fastapi": figures["post_402_us"] / figures["post_402_fastapi_us"],
        "query_vs_health": figures["query_us"] / figures["node_health_us"],
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
