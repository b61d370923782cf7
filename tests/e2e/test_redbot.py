"""REDbot over loopback: it asks again with conditions, ranges and other encodings, and has nothing to complain of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.miner.nodes import node

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".redbot"
needs_redbot = pytest.mark.skipif(not PROGRAM.is_dir(), reason="there is no .redbot here (scripts/setup-clients)")
NAMED = {"hotkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"}


def complaints(*urls: str) -> dict[str, list[str]]:
    """What REDbot calls bad or warns of, by URL."""
    told = subprocess.run(
        [sys.executable, str(ROOT / "tests/e2e/data/redbot_asks.py"), *urls],
        env={**os.environ, "PYTHONPATH": str(PROGRAM)},
        capture_output=True,
        timeout=100,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(told.stdout)
    return found


@needs_redbot
def test_redbot_complains_of_no_page_of_a_gateway(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data").start() as gateway:
        paths = ("/health", "/ready", "/tiers", "/nodes", "/identity", "/openapi.json", "/sessions/none", "/nothing")
        assert complaints(*(gateway.url + path for path in paths)) == {}


@needs_redbot
def test_redbot_complains_of_no_page_of_a_node(tmp_path: Path) -> None:
    with node(tmp_path) as running:
        paths = ("/health", "/ready", "/stats", "/openapi.json", "/retrieve/none", "/nothing")
        assert complaints(*(f"http://127.0.0.1:{running.port}{path}" for path in paths)) == {}


@needs_redbot
def test_redbot_would_tell() -> None:
    """Of a server that does not close what it promised to send."""
    import http.server
    import threading

    class Bad(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", "3")
            self.send_header("Cache-Control", "max-age=soon")
            self.end_headers()
            self.wfile.write(b"abc")

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Bad) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        assert complaints(url)[url]
        server.shutdown()
