"""Every kind of answer of a gateway and of a node, read by httplint: nothing it calls bad, and nothing it warns of."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from httplint import HttpResponseLinter
from httplint.note import levels

from tests.e2e.gateway_process import GatewayProcess
from tests.miner.nodes import node


def ask(port: int, method: str, path: str, body: bytes = b"", headers: tuple[str, ...] = ()) -> bytes:
    """The bytes of an answer, read to the end of its connection."""
    length = [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, *length, "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        received = b""
        while part := connection.recv(262_144):
            received += part
    return received


def complaints(raw: bytes, uri: str) -> list[str]:
    """What httplint calls bad or warns of, but for its explanation of what a status means."""
    head, _, content = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.split(b"\r\n")
    version, status, phrase = status_line.split(b" ", 2)
    linter = HttpResponseLinter()
    linter.base_uri = uri
    linter.process_response_topline(version, status, phrase)
    linter.process_headers([(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)])
    linter.feed_content(content)
    linter.finish_content(True)
    told = [note for note in linter.notes if not type(note).__name__.startswith("STATUS_")]
    return [f"{note.summary}" for note in told if note.level in (levels.BAD, levels.WARN)]


ORIGIN = ("Origin: https://wallet.example",)
PREFLIGHT = (*ORIGIN, "Access-Control-Request-Method: GET")
SIGNED = ("X-Hotkey: 5", "X-Sig: 00", "X-Timestamp: 1")
Asked = tuple[str, str, bytes, tuple[str, ...]]
REFUSED: list[Asked] = [
    ("GET", "/nothing", b"", ()),
    ("GET", "//health", b"", ()),
    ("PUT", "/health", b"{}", ()),
    ("OPTIONS", "/stats", b"", PREFLIGHT),
    ("GET", "/openapi.json", b"", ORIGIN),
]


def paths(port: int) -> Iterator[tuple[str, str]]:
    """Every operation of the served document, with names of things that are not there."""
    document = json.loads(ask(port, "GET", "/openapi.json").partition(b"\r\n\r\n")[2])
    for path, operations in document["paths"].items():
        for method in operations:
            named = path.replace("{hotkey}", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
            yield method.upper(), "/".join("none" if part.startswith("{") else part for part in named.split("/"))


def lint(port: int) -> dict[str, list[str]]:
    asked: list[Asked] = [
        (method, path, b"{}" if method in ("POST", "PATCH") else b"", ()) for method, path in paths(port)
    ]
    asked += [(method, path, body, SIGNED) for method, path, body, _ in asked if "/sessions" in path]
    assert len(asked) > 15
    found = {}
    for method, path, body, headers in (*asked, *REFUSED):
        raw = ask(port, method, path, body, headers)
        found[f"{method} {path} {raw[9:12].decode()}"] = complaints(raw, f"http://127.0.0.1:{port}{path}")
    return {name: notes for name, notes in found.items() if notes}


def test_no_answer_of_a_gateway_is_complained_of(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data").start() as gateway:
        assert lint(urlsplit(gateway.url).port or 0) == {}
        assert lint_ops(urlsplit(gateway.ops_url).port or 0) == {}


def lint_ops(port: int) -> dict[str, list[str]]:
    asked = {path: ask(port, "GET", path) for path in ("/status", "/metrics", "/health", "/ready")}
    return {path: notes for path, raw in asked.items() if (notes := complaints(raw, f"http://127.0.0.1:{port}{path}"))}


def test_no_answer_of_a_node_is_complained_of(tmp_path: Path) -> None:
    with node(tmp_path) as running:
        assert lint(running.port) == {}


@pytest.mark.parametrize("path", ["/health", "/ready", "/tiers", "/openapi.json", "/bittensor/metagraph"])
def test_the_head_of_an_answer_is_the_same_for_head_and_get(tmp_path: Path, path: str) -> None:
    with GatewayProcess(tmp_path / "data").start() as gateway:
        port = urlsplit(gateway.url).port or 0
        gotten, headed = (ask(port, method, path).split(b"\r\n\r\n") for method in ("GET", "HEAD"))
        assert headed[1] == b""
        changing = (b"x-request-id", b"date", b"age", b"etag")
        kept = [
            [line for line in head.lower().split(b"\r\n") if not line.startswith(changing)]
            for head in (gotten[0], headed[0])
        ]
        assert kept[0] == kept[1]


def test_a_401_names_the_scheme_that_it_wants(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data").start() as gateway:
        raw = ask(urlsplit(gateway.url).port or 0, "GET", "/sessions/none")
        assert raw.startswith(b"HTTP/1.1 401 ")
        assert b'\r\nwww-authenticate: hotkey realm="engram"\r\n' in raw.lower()
