"""The reverse proxy: what it adds, what it carries, beside nginx as a plain proxy and the original's form (FastAPI and
httpx with one client for all requests). `python -m bench.proxy [--quick]`.

Ours and each peer alternate in short turns, and each ratio is the median of the ratios of turns that stood side by
side: what else the machine does hits both. Requests are signed before the clock starts, each with a uuid of its own.
What is not installed here is null.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.support.http_peers import STREAMED
from bench.support.http_servers import await_port, end
from bench.support.processes import cpu_s, resident_mb
from bench.support.report import print_line
from engram.hotkeys import Keypair, ReplayStore, Verifier, epistula, prove, sign_headers, verify

QUICK: Final = "--quick" in sys.argv
ROUNDS: Final = 3 if QUICK else 5
TURNS: Final = 5 if QUICK else 15
"""Of requests at a rate, ours and the peer's."""
REQUESTS: Final = 320 if QUICK else 640
"""In one turn."""
OPEN: Final = 200 if QUICK else 1_000
LANES: Final = 16
ROOT: Final = Path(__file__).resolve().parent.parent
WANTED: Final = {
    "added_ms_p50": "<= 2",
    "first_byte_ms": "<= 12",
    "rps_vs_fastapi_form": ">= 3",
    "stream_mb_s_vs_nginx": ">= 0.25",
    "rss_mb": "<= 200",
    "auth_cost_vs_raw_verify": "<= 1.5",
}
ALICE: Final = Keypair.from_uri("//Alice")
BOB: Final = Keypair.from_uri("//Bob")
BODY: Final = b'{"prompt": "a picture of a cat", "steps": 20}'


class Served:
    """A process that serves, by its line of readiness."""

    def __init__(self, stack: ExitStack, words: list[str], **environ: str) -> None:
        reading, writing = os.pipe()
        words = [word.replace("FD", str(writing)) if word == "FD" else word for word in words]
        self.process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, pass_fds=(writing,), stderr=subprocess.DEVNULL, env=os.environ | environ
        )
        stack.callback(end, self.process)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
        if not line:
            raise RuntimeError(f"{words} did not start: exit status {self.process.wait(30)}")
        ready = json.loads(line)
        url = ready.get("proxy_url") or ready.get("ops_url", "")
        self.port = int(ready["port"] if "port" in ready else url.rpartition(":")[2])
        self.pid = self.process.pid


def our_proxy(stack: ExitStack, backend: int, inference: int) -> Served:
    """The proxy as an operator starts it, with limits out of the way; `inference` answers short requests."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    gets = {"backend": "streams", "methods": ["GET"], "idle_s": 3600}
    settings = {
        "server": {"host": "127.0.0.1", "port": 0, "max_connections": 5000, "max_connections_per_address": 0},
        "auth": {
            "miner_hotkey": BOB.ss58,
            "chain_endpoint": "",
            "allowed_senders": [ALICE.ss58],
            "allowed_delta_ms": 600_000,
        },
        "backends": {
            "inference": {"urls": [f"http://127.0.0.1:{inference}"], "connections": 5000},
            "streams": {"urls": [f"http://127.0.0.1:{backend}"], "connections": 5000},
        },
        "limits": {
            "requests_per_minute_per_address": 0,
            "requests_per_minute_per_key": 0,
            "concurrent_per_address": 5000,
            "concurrent_per_key": 5000,
            "concurrent": 5000,
        },
        "routes": [
            {"path": "/inference", "backend": "inference"},
            {"path": "/events", **gets},
            {"path": "/stream", **gets},
        ],
    }
    (folder / "config.json").write_text(json.dumps(settings))
    words = ["run.py", "proxy", "--data-dir", str(folder / "data"), "--ops-port", "0", "--ready-fd", "FD"]
    served = Served(stack, words, REVERSE_PROXY_CONFIG_PATH=str(folder))
    time.sleep(2.1)  # what is stamped before its start is refused for so long
    return served


class Nginx:
    """nginx as a plain proxy, or without a backend as a server whose every answer is `hello`."""

    def __init__(self, stack: ExitStack, backend: int | None) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        passing = "return 200 hello;"
        if backend is not None:
            passing = (
                "proxy_pass http://up; proxy_buffering off; proxy_http_version 1.1; proxy_set_header Connection '';"
            )
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;\n"
            "events { worker_connections 4096; }\n"
            f"http {{ access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; "
            f"fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; "
            f"keepalive_requests 1000000; upstream up {{ server 127.0.0.1:{backend or 9}; keepalive 64; }}\n"
            f"server {{ listen 127.0.0.1:{self.port}; location / {{ {passing} }} }} }}\n"
        )
        process = subprocess.Popen(
            ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.DEVNULL
        )
        stack.callback(end, process)
        await_port(self.port)


def signed(method: str, path: str, body: bytes = b"") -> bytes:
    """A signed request."""
    headers = sign_headers(
        epistula.V2, ALICE, now_ns=time.time_ns(), body=body, uuid=str(uuid.uuid4()), receiver=BOB.public_key
    )
    lines = [f"{method} {path} HTTP/1.1", "Host: m", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(connection: socket.socket, raw: bytes) -> None:
    """Send a request and read its short answer."""
    connection.sendall(raw)
    received = b""
    while b"hello" not in received:
        part = connection.recv(65_536)
        if not part or (received and not received.startswith(b"HTTP/1.1 200")):
            raise RuntimeError(f"answered {received[:300]!r}")
        received += part


def latency_ms(port: int, raws: list[bytes]) -> float:
    """The median time of a request, one after the other."""
    connection, times = socket.create_connection(("127.0.0.1", port)), []
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for raw in raws:
        began = time.perf_counter()
        ask(connection, raw)
        times.append((time.perf_counter() - began) * 1000)
    connection.close()
    return statistics.median(times)


def rate(port: int, pid: int, raws: list[bytes]) -> tuple[float, float]:
    """Requests a second over some connections at once, and the server's CPU microseconds for each."""
    lanes = [raws[number::LANES] for number in range(LANES)]

    def run(lane: list[bytes]) -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for raw in lane:
            ask(connection, raw)
        connection.close()

    threads = [threading.Thread(target=run, args=(lane,)) for lane in lanes]
    before, began = cpu_s(pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(raws) / (time.perf_counter() - began), (cpu_s(pid) - before) * 1e6 / len(raws)


def stream_mb_s(port: int) -> float:
    """Megabytes a second of a long answer."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        began, received = time.perf_counter(), 0
        connection.sendall(signed("GET", "/stream"))
        buffer = bytearray(1_048_576)
        while received < STREAMED and (count := connection.recv_into(buffer)):
            received += count
    if received < STREAMED:
        raise RuntimeError(f"only {received} bytes came")
    return STREAMED / 1e6 / (time.perf_counter() - began)


def first_byte_ms(port: int) -> float:
    """The median time to the first event of a stream, each on a connection of its own."""
    times = []
    for _ in range(20):
        raw = signed("GET", "/events")
        with socket.create_connection(("127.0.0.1", port)) as connection:
            began, received = time.perf_counter(), b""
            connection.sendall(raw)
            while b"data: 1" not in received:
                received += connection.recv(65_536)
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def rss_mb(port: int, pid: int) -> float:
    """Resident megabytes of the proxy with many streams open."""
    open_ones = []
    try:
        for _ in range(OPEN):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(signed("GET", "/events"))
            open_ones.append(connection)
        for connection in open_ones:
            received = b""
            while b"data: 1" not in received:
                received += connection.recv(65_536)
        return resident_mb(pid)
    finally:
        for connection in open_ones:
            connection.close()


def auth_us() -> tuple[float, float]:
    """Microseconds of CPU to judge a claim, prove it and note it; and to verify the same signatures and nothing else.

    In turns of 50 requests; the quickest turn of each, which the rest of the machine disturbed least.
    """
    scheme = msgspec.structs.replace(epistula.V2, past_ms=600_000)
    verifier = Verifier([scheme], started_ms=0, replays=ReplayStore(), self_key=BOB.public_key)
    whole: list[float] = []
    raw: list[float] = []
    for _ in range(40):
        requests = [
            sign_headers(
                epistula.V2, ALICE, now_ns=time.time_ns(), body=BODY, uuid=str(uuid.uuid4()), receiver=BOB.public_key
            )
            for _ in range(50)
        ]
        lines = [[(name.lower().encode(), value.encode()) for name, value in headers.items()] for headers in requests]
        now_ms = int(time.time() * 1000)
        signed_ones: list[tuple[bytes, bytes]] = []
        for each in lines:
            claim = verifier.claim(each, now_ms=now_ms)
            assert claim is not None
            signed_ones.append((prove(claim, method="POST", raw_path=b"/", body=BODY).message, claim.signature))
        began = time.thread_time()
        for each in lines:
            claim = verifier.claim(each, now_ms=now_ms)
            assert claim is not None
            verifier.note(prove(claim, method="POST", raw_path=b"/inference", body=BODY), method="POST", now_ms=now_ms)
        whole.append((time.thread_time() - began) * 1e6 / len(lines))
        began = time.thread_time()
        for message, signature in signed_ones:
            assert verify(ALICE.public_key, message, signature, allow_wrapped=False)
        raw.append((time.thread_time() - began) * 1e6 / len(lines))
    return min(whole), min(raw)


def ratio(seen: dict[str, list[float]], ours: str, peers: str) -> float | None:
    """The median of the ratios of turns side by side; None where there was no peer."""
    pairs = zip(seen.get(ours, []), seen.get(peers, []), strict=False)
    return statistics.median([mine / other for mine, other in pairs]) if seen.get(peers) else None


def main() -> None:
    seen: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seen.setdefault(name, []).append(value)

    with ExitStack() as stack:
        peers = ["-m", "bench.support.proxy_peers"]
        backend = Served(stack, [*peers, "backend", "FD"])
        has_nginx = shutil.which("nginx") is not None
        nginx = Nginx(stack, backend.port) if has_nginx else None
        # What answers short requests should cost as little as can be: it is no part of what is compared.
        short = Nginx(stack, None).port if has_nginx else backend.port
        ours = our_proxy(stack, backend.port, short)
        fastapi = Served(stack, [*peers, "fastapi", "FD", f"http://127.0.0.1:{short}", BOB.ss58])
        await_port(fastapi.port)
        for _ in range(ROUNDS):
            for name, port in (("ours", ours.port), ("direct", short), ("fastapi", fastapi.port)):
                note(f"latency_{name}", latency_ms(port, [signed("POST", "/inference", BODY) for _ in range(200)]))
            note("stream_ours", stream_mb_s(ours.port))
            if nginx is not None:
                note("stream_nginx", stream_mb_s(nginx.port))
            note("first_byte", first_byte_ms(ours.port))
            whole, raw_us = auth_us()
            note("auth", whole)
            note("raw_verify", raw_us)
        for turn in range(TURNS + 1):
            for name, served in (("ours", ours), ("fastapi", fastapi)):
                found, cpu = rate(
                    served.port, served.pid, [signed("POST", "/inference", BODY) for _ in range(REQUESTS)]
                )
                if turn:  # the first one warms both
                    note(f"rps_{name}", found)
                    note(f"cpu_{name}", cpu)
        rss = rss_mb(ours.port, ours.pid)
    middle = {name: statistics.median(values) for name, values in seen.items()}
    figures = {
        "added_ms_p50": middle["latency_ours"] - middle["latency_direct"],
        "first_byte_ms": middle["first_byte"],
        "rps_signed": middle["rps_ours"],
        "cpu_us_per_request": middle["cpu_ours"],
        "stream_mb_s": middle["stream_ours"],
        "rss_mb": rss if not QUICK else None,
        "auth_us": middle["auth"],
        "raw_verify_us": middle["raw_verify"],
    }
    fastapi_figures = {
        "rps_signed": middle["rps_fastapi"],
        "added_ms_p50": middle["latency_fastapi"] - middle["latency_direct"],
        "cpu_us_per_request": middle["cpu_fastapi"],
    }
    ratios = {
        "rps_vs_fastapi_form": ratio(seen, "rps_ours", "rps_fastapi"),
        "cpu_vs_fastapi_form": ratio(seen, "cpu_ours", "cpu_fastapi"),
        "stream_mb_s_vs_nginx": ratio(seen, "stream_ours", "stream_nginx"),
        "auth_cost_vs_raw_verify": ratio(seen, "auth", "raw_verify"),
    }
    nginx_figures = {"stream_mb_s": middle.get("stream_nginx")}
    print_line("proxy", figures, {"fastapi": fastapi_figures, "nginx": nginx_figures}, ratios, WANTED)


if __name__ == "__main__":
    main()
