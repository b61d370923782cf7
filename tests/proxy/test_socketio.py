"""npm's Socket.IO through a proxy in a process of its own: what is open outlives whatever its operator changes."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.plain_backend import plain_backend
from tests.proxy.process import ProxyProcess, document
from tests.proxy.signing import headers_of
from tests.proxy.test_process import call, sent, status, until

SCRIPT = Path(__file__).resolve().parents[1] / "node" / "socketio_through.mjs"
SOCKETS, RELOADS = 20, 50

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.external,
    pytest.mark.skipif(not (SCRIPT.parent / "node_modules").is_dir(), reason="scripts/setup-node was not run"),
]


@contextmanager
def node(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = ["node", str(SCRIPT), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_twenty_socketio_clients_are_served_through_fifty_reloads(tmp_path: Path) -> None:
    with node("server") as server, plain_backend() as port:
        sockets: dict[str, Any] = {"path": "/socket.io/*", "backend": "sockets", "methods": ["GET"], "websocket": True}
        limits = {"concurrent_per_key": 99, "requests_per_minute_per_key": 0, "requests_per_minute_per_address": 0}
        base = document(port, limits=limits)
        base["backends"] = {"sockets": {"urls": [f"http://127.0.0.1:{line(server)}"]}}
        base["routes"] = [sockets]
        with ProxyProcess(tmp_path, base).start() as proxy:
            sent(
                proxy, "POST", "/inference", b"{}", lambda: headers_of(b"{}")
            )  # from now on none is from before its start
            (tmp_path / "headers").write_text(json.dumps([headers_of(b"", method="GET") for _ in range(SOCKETS)]))
            with node("client", proxy.url, str(tmp_path / "headers")) as clients:
                assert line(clients) == "open"
                for number in range(RELOADS):
                    before = status(proxy)["settings"]["number"]
                    other = {"path": f"/new{number}", "backend": "inference"}
                    proxy.write(
                        {**base, "routes": [sockets, other], "limits": {**limits, "concurrent_per_key": 100 + number}}
                    )
                    proxy.send_signal(signal.SIGHUP)
                    until(lambda before=before: status(proxy)["settings"]["number"] > before)
                    assert call(proxy, "POST", f"/new{number}", b"x")[0] == 200
                    assert call(proxy, "POST", f"/new{number - 1}", b"x")[0] == 404
                assert status(proxy)["requests"]["in_progress"] == SOCKETS
                assert clients.stdin is not None
                clients.stdin.close()
                said = json.loads(line(clients))
            assert said["lost"] == []
            assert said["answers"] >= SOCKETS
            until(lambda: status(proxy)["requests"]["in_progress"] == 0)
            proxy.send_signal(signal.SIGTERM)
            assert proxy.wait() == 0
            ended = [each for each in proxy.lines() if each.get("route") == "/socket.io/*"]
            assert [each["end"] for each in ended] == ["done"] * SOCKETS
