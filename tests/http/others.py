"""Other people's servers under the same echo, for the table of who answers what: `python -m tests.http.others`.

hypercorn and uvicorn run the ASGI echo of this folder, node's http module and nginx an echo of their own (nginx cannot
echo a body: what it lets through is what counts). Prints the table that docs/http.md has, in Markdown.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.http.raw_requests import CASES, Case

NODE = """
const http = require('http');
const server = http.createServer({requireHostHeader: true}, (request, response) => {
  const parts = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => response.end(Buffer.concat(parts)));
});
server.listen(Number(process.argv[1]), '127.0.0.1');
"""
ASGI = "tests.http.servers:echo"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _nginx(port: int, folder: Path) -> list[str]:
    temp = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "conf").write_text(
        f"user root; daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;\nevents {{}}\n"
        f"http {{ access_log off; {temp} server {{ listen 127.0.0.1:{port}; location / {{ return 200; }} }} }}\n"
    )
    return ["nginx", "-c", str(folder / "conf"), "-p", str(folder)]


def commands(port: int, folder: Path) -> dict[str, list[str]]:
    """How each server that is installed here is started on `port`."""
    python = [sys.executable, "-m"]
    found = {
        "hypercorn": [*python, "hypercorn", ASGI, "-k", "trio", "-b", f"127.0.0.1:{port}", "--log-level", "CRITICAL"]
    }
    found["ours"] = [*python, "tests.http.servers", str(port)]
    found["uvicorn"] = [*python, "uvicorn", ASGI, "--port", str(port), "--log-level", "critical", "--lifespan", "off"]
    if shutil.which("nginx"):
        found["nginx"] = _nginx(port, folder)
    if shutil.which("node"):
        found["node"] = ["node", "-e", NODE, "--", str(port)]
    return found


@contextlib.contextmanager
def running(name: str) -> Iterator[int]:
    """The port of a server, which is ended afterwards."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            commands(port, Path(folder))[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _await(port)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _await(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on {port}")


def statuses(port: int, raw: bytes) -> str:
    """The statuses of all answers to these bytes and an end, in order; "-" for none."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while part := sock.recv(65_536):
                said += part
    found = [line[9:12].decode("latin-1") for line in said.split(b"HTTP/1.1 ")[1:] for line in (b"HTTP/1.1 " + line,)]
    return " ".join(status for status in found if status.isdigit()) or "-"


def _all(name: str) -> Iterator[tuple[str, str]]:
    """Each case with what is answered; a server that ended is started again."""
    cases = list(CASES)
    while cases:
        with running(name) as port:
            while cases:
                case = cases.pop(0)
                try:
                    found = statuses(port, case.raw)
                    socket.create_connection(("127.0.0.1", port), timeout=3).close()
                except ConnectionRefusedError:
                    yield case.name, "the server ends"
                    break
                yield case.name, found


def right(case: Case) -> str:
    """What ours answers (tests/http/test_raw_requests.py holds it to that)."""
    accepted = len(case.bodies) - case.within_body
    return " ".join(["200"] * accepted + ([] if case.status is None else [str(case.status)])) or "-"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in commands(1, Path(folder)) if name != "ours"]
    answers: dict[str, dict[str, str]] = {}
    for name in names:
        answers[name] = dict(_all(name))
    print("| request | ours | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
    same = 0
    for case in CASES:
        row = [answers[name][case.name] for name in names]
        if all(each == right(case) for each in row):
            same += 1
            continue
        print(f"| {case.name} | {right(case)} | " + " | ".join(row) + " |")
    print(f"\n{same} of {len(CASES)} are answered alike by all.", file=sys.stderr)


if __name__ == "__main__":
    main()
