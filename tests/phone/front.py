"""A server before a gateway: serves the app from a folder that may change meanwhile, and passes on the rest."""

import hashlib
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from engram.gateway import phone

DEVELOPMENT = hashlib.sha256(b"engram development build").digest()
"""The seed of phone/build/signing.ts."""
MARK = "<!-- a newer build -->"
_NOT_PASSED_ON = ("host", "accept-encoding")
_TYPES = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "json": "application/json",
}


class Front:
    """Serves /app/ from `folder`."""

    def __init__(self, origin: str, folder: Path) -> None:
        self.url = origin
        self.folder = folder

    def content(self, path: str) -> tuple[bytes, str] | None:
        name = path.removeprefix(phone.HOME) or phone.INDEX
        file = self.folder / name
        if not path.startswith(phone.HOME) or not file.is_file():
            return None
        return file.read_bytes(), _TYPES.get(name.rpartition(".")[2], "application/octet-stream")


@contextmanager
def open_front(gateway_url: str, folder: Path) -> Iterator[Front]:
    """Serve while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = front.content(self.path)
            if found is None:
                self._pass_on()
            else:
                self._answer(200, {"Content-Type": found[1], "Cache-Control": "no-cache"}, found[0])

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
            body = self.rfile.read(size) if size else None
            asked = urllib.request.Request(gateway_url + self.path, body, kept, method=self.command)
            try:
                with urllib.request.urlopen(asked) as answer:
                    self._answer(answer.status, dict(answer.headers), answer.read())
            except urllib.error.HTTPError as refused:
                self._answer(refused.code, dict(refused.headers), refused.read())

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # as the base class has it

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front = Front(f"http://127.0.0.1:{server.server_port}", folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def newer_build(folder: Path, seed: bytes | None) -> Path:
    """Make a build of the app that differs from this one in its page alone, signed by a key (none: not at all)."""
    shutil.copytree(phone.FOLDER, folder)
    manifest = json.loads((folder / phone.MANIFEST).read_text())
    page, worker = folder / phone.INDEX, folder / phone.WORKER
    page.write_text(page.read_text() + MARK)
    before, after = manifest["files"][phone.INDEX], hashlib.sha256(page.read_bytes()).hexdigest()
    script = worker.read_text()
    assert before in script
    assert manifest["build"] in script
    name = "engram-" + after[:16]
    worker.write_text(script.replace(before, after).replace(manifest["build"], name))
    manifest["files"] |= {phone.INDEX: after, phone.WORKER: hashlib.sha256(worker.read_bytes()).hexdigest()}
    key = ECC.construct(curve="Ed25519", seed=seed or DEVELOPMENT)  # type: ignore[arg-type]  # its stub has X25519's
    manifest |= {"build": name, "key": key.public_key().export_key(format="raw").hex()}
    content = json.dumps(manifest).encode()
    (folder / phone.MANIFEST).write_bytes(content)
    signature = eddsa.new(key, "rfc8032").sign(b"engram-build-1:" + content).hex()
    (folder / phone.SIGNATURE).unlink()
    if seed is not None:
        (folder / phone.SIGNATURE).write_text(signature + "\n")
    return folder
