"""The servers that the HTTP benchmark asks, each with its port and the processes whose CPU counts."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.support.http_peers import STREAMED
from config.model import MinerSettings
from tests.miner.nodes import NodeProcess
from tests.warmed import WarmProgram

ROOT: Final = Path(__file__).resolve().parents[2]


class Peer:
    """A process that serves; ended with the stack."""

    def __init__(self, stack: ExitStack, *command: str) -> None:
        reading, writing = os.pipe()
        words = [sys.executable, "-m", "bench.support.http_peers", command[0], str(writing), *command[1:]]
        self._process = subprocess.Popen(words, cwd=ROOT, pass_fds=(writing,), stderr=subprocess.DEVNULL)
        stack.callback(end, self._process)
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
        stack.callback(end, process)
        await_port(self.port)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.pids = [process.pid, *map(int, children)]


class Nginx:
    """nginx with a file of five bytes and a large one, and with sendfile as distributions set it."""

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
            f"fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; "
            "sendfile on; tcp_nopush on; keepalive_requests 1000000; "
            f"server {{ listen 127.0.0.1:{self.port}; root {folder}; }} }}\n"
        )
        process = subprocess.Popen(
            ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.DEVNULL
        )
        stack.callback(end, process)
        await_port(self.port)
        self.pids = [process.pid]


def end(process: subprocess.Popen[bytes] | WarmProgram) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def await_port(port: int) -> None:
    until = time.perf_counter() + 15
    while time.perf_counter() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing listens on {port}")


class Node:
    """A memory node without limits, and the workers that it has started."""

    def __init__(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = MinerSettings(private_bucket_ms=0, requests_per_minute=100_000_000)
        node = NodeProcess(folder, is_warm=False, miner=settings)
        node.start()
        assert node.process is not None
        stack.callback(end, node.process)
        self.port, self._pid = node.port, node.process.pid

    @property
    def pids(self) -> list[int]:
        """Of the node and its workers."""
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return [self._pid, *map(int, children)]
