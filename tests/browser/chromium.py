"""Pages in a real browser: Debian's Chromium, headless, driven by playwright-core; and the sites that serve them."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from tests.evm import node

CHROMIUM = shutil.which("chromium")
TIMEOUT_S = 90
BLANK = b"<!doctype html><meta charset=utf-8><title>A page of another origin</title>"
_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or node.missing, reason="needs Chromium and Node: apt-get install chromium; run scripts/setup-node"
)


class PageError(AssertionError):
    """The script of a page threw; the text is what it threw and what the page wrote to its console."""


def run_in_page(url: str, script: str, argument: object = None) -> Any:
    """Open `url` and return what the function whose text is `script` returns for `argument` there.

    Both are JSON values. Raises PageError.
    """
    order = {"executable": CHROMIUM, "url": url, "script": script, "argument": argument}
    done = subprocess.run(
        ["node", "page.mjs"],
        cwd=node.FOLDER,
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        raise PageError(done.stderr)
    outcome = json.loads(done.stdout)
    if "error" in outcome:
        raise PageError("\n".join([outcome["error"], *outcome["console"]]))
    return outcome.get("value")


class Site(msgspec.Struct):
    """A web site on a loopback port of its own. `/` is a blank page unless `files` has one."""

    origin: str
    files: dict[str, bytes]
    """What it serves, by path; may change at any time."""


@contextmanager
def open_site() -> Iterator[Site]:
    """Serve a site while the block runs."""
    served = {"/": BLANK}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served.get(self.path)
            self.send_response(404 if content is None else 200)
            kind = self.path.rpartition(".")[2] if "." in self.path else "html"
            self.send_header("Content-Type", _TYPES.get(kind, "application/octet-stream"))
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield Site(f"http://127.0.0.1:{server.server_address[1]}", served)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
