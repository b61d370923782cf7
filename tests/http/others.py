"""Other people's servers under the same echo (seen.py), and the table of who answers what.

`python -m tests.http.others` prints the table that docs/http.md has, in Markdown.

hypercorn and uvicorn run the ASGI echo, node's http module one of its own, nginx forwards to one."""

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.http.raw_requests import CASES, Case
from tests.http.reasons import REASONS
from tests.http.seen import NODE, Seen, Upstream, decoded

ASGI: Final = "tests.http.seen:app"
GOOD: Final = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
_HEAD: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(.*?)\r\n\r\n", re.DOTALL)
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CODE: Final = re.compile(rb'"code":"(\w+)"')


class Answer(msgspec.Struct, frozen=True):
    """What a server answered to one request."""

    status: int
    seen: Seen | None = None
    """Of an accepted request."""
    code: str = ""
    """Our word for why it was refused."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _nginx(port: int, folder: Path, upstream: int) -> list[str]:
    temp = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # A half-closed connection is a client that has gone to nginx, unless it is told otherwise.
    forward = f"proxy_pass http://127.0.0.1:{upstream}; proxy_set_header Host $http_host; proxy_ignore_client_abort on;"
    (folder / "conf").write_text(
        f"user root; daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;\nevents {{}}\n"
        f"http {{ access_log off; {temp} client_max_body_size 8m; "
        f"server {{ listen 127.0.0.1:{port}; location / {{ {forward} }} location = /early {{ return 200; }} }} }}\n"
    )
    return ["nginx", "-c", str(folder / "conf"), "-p", str(folder)]


def commands(port: int, folder: Path, upstream: int = 1) -> dict[str, list[str]]:
    """How each server that is installed here is started on `port`."""
    python = [sys.executable, "-m"]
    found = {
        "hypercorn": [*python, "hypercorn", ASGI, "-k", "trio", "-b", f"127.0.0.1:{port}", "--log-level", "CRITICAL"]
    }
    found["ours"] = [*python, "tests.http.servers", str(port)]
    found["uvicorn"] = [*python, "uvicorn", ASGI, "--port", str(port), "--log-level", "critical", "--lifespan", "off"]
    if shutil.which("nginx"):
        found["nginx"] = _nginx(port, folder, upstream)
    if shutil.which("node"):
        found["node"] = ["node", "-e", NODE, "--", str(port)]
    return found


def installed() -> list[str]:
    """The names of the servers that are here, ours first."""
    with tempfile.TemporaryDirectory() as folder:
        return ["ours", *(name for name in commands(1, Path(folder)) if name != "ours")]


@contextlib.contextmanager
def running(name: str) -> Iterator[int]:
    """The port of a server, which is ended afterwards."""
    port = _free_port()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(contextlib.closing(Upstream())) if name == "nginx" else None
        process = subprocess.Popen(
            commands(port, folder, upstream.port if upstream else 1)[name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
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


def said(port: int, parts: Sequence[bytes], *, pause_s: float = 0.0, timeout_s: float = 3.0) -> bytes:
    """All that a server says to these parts, sent one by one, and an end."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            for number, part in enumerate(parts):
                if pause_s and number:
                    time.sleep(pause_s)
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while part := sock.recv(262_144):
                found += part
    return found


def answers(text: bytes) -> list[Answer]:
    """The answers in what a server said, in order, up to the first refusal."""
    found, at = list[Answer](), 0
    while head := _HEAD.match(text, at):
        at = head.end()
        status = int(head[1])
        if status == 100:
            continue
        length = _LENGTH.search(head[2])
        if status != 200:
            code = _CODE.search(text, at)
            return [*found, Answer(status, code=code[1].decode() if code else "")]
        end = len(text) if length is None else at + int(length[1])  # in HTTP/1.0 the end of the connection
        body, at = text[at:end], end
        found.append(Answer(status, decoded(body) if body else None))
    return found


def served(name: str) -> Iterator[tuple[str, list[Answer] | None]]:
    """Each case with what is answered; None where the server ended, which is then started again."""
    cases = list(CASES)
    while cases:
        with running(name) as port:
            while cases:
                case = cases.pop(0)
                found = answers(said(port, [case.raw]))
                if not _lives(port):
                    yield case.name, None
                    break
                yield case.name, found


def _lives(port: int) -> bool:
    try:
        return bool(answers(said(port, [GOOD])))
    except OSError:
        return False


def statuses(found: list[Answer] | None) -> str:
    """The statuses of all answers, in order; "-" for none."""
    if found is None:
        return "the server ends"
    return " ".join(str(answer.status) for answer in found) or "-"


def right(case: Case) -> str:
    """What ours answers (tests/http/test_raw_requests.py holds it to that)."""
    accepted = len(case.bodies) - case.within_body
    return " ".join(["200"] * accepted + ([] if case.status is None else [str(case.status)])) or "-"


_SHORT: Final = 64


def _shown(found: list[Answer] | None) -> str:
    texts = [answer.seen.text() for answer in found or () if answer.seen is not None]
    return " then ".join(text if len(text) <= _SHORT else f"{text[:_SHORT]}..." for text in texts)


def what_was_seen(each: dict[str, list[Answer] | None]) -> str:
    """Who saw which requests; the same for all is said once."""
    groups: dict[str, list[str]] = {}
    for name, found in each.items():
        if text := _shown(found):
            groups.setdefault(text, []).append(name)
    if len(groups) <= 1:
        return "".join(_code(text) for text in groups) or "nothing"
    return "; ".join(f"{', '.join(names)}: {_code(text)}" for text, names in groups.items())


def _code(text: str) -> str:
    """Text as code within a cell of a table."""
    printable = "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in text).replace("|", "\\|")
    return f"`` {printable} ``" if "`" in printable else f"`{printable}`"


def table(found: dict[str, dict[str, list[Answer] | None]]) -> list[str]:
    """The rows of docs/http.md: cases that some server answers or reads in another way than ours."""
    names = [name for name in found if name != "ours"]
    rows = [
        "| request | ours | " + " | ".join(names) + " | what the application saw | why ours does so |",
        "|---|---|" + "---|" * len(names) + "---|---|",
    ]
    for case in CASES:
        each = {name: found[name][case.name] for name in found}
        if all((statuses(other), _shown(other)) == (right(case), _shown(each["ours"])) for other in each.values()):
            continue
        cells = [
            case.name,
            right(case),
            *(statuses(each[name]) for name in names),
            what_was_seen(each),
            REASONS.get(case.name, ""),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    found = {name: dict(served(name)) for name in installed()}
    rows = table(found)
    print("\n".join(rows))
    print(f"\n{len(CASES) - len(rows) + 2} of {len(CASES)} are answered and seen alike by all.", file=sys.stderr)


if __name__ == "__main__":
    main()
