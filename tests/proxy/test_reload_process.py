"""Fifty changes of the settings of a proxy in a process of its own, under streams that curl reads and WebSockets of the
library `websockets` on both sides: none of them is cut, and what has been counted stays counted.
"""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection
from websockets.sync.server import ServerConnection, serve

from tests.proxy.backends import closed_port
from tests.proxy.plain_backend import plain_backend
from tests.proxy.process import ProxyProcess, document
from tests.proxy.signing import ALICE, CHARLIE, headers_of
from tests.proxy.test_process import call, sent, status, until

pytestmark = [pytest.mark.heavy, pytest.mark.external]

STREAMS, SOCKETS, RELOADS = 100, 20, 50
BY_FILE_ALONE = (10, 30)
"""Changes that no signal tells."""
BAD_AT = (5, 25)
OPEN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ONE, TWO = b"data: one\n\n", b"data: two\n\n"


class Streams:
    """A backend's streams of events: each sends one at its start, and one when all of them end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.end = threading.Event()

    def reply(self, handler: BaseHTTPRequestHandler, body: bytes) -> bytes | None:
        if body != b"stream":
            return body
        handler.close_connection = True
        handler.wfile.write(OPEN + b"%x\r\n%b\r\n" % (len(ONE), ONE))
        self.begun.release()
        self.end.wait(120)
        handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(TWO), TWO))
        return None


@contextmanager
def sockets() -> Iterator[int]:
    """A backend whose WebSockets answer in capitals, at a port that is yielded."""

    def shout(socket: ServerConnection) -> None:
        for message in socket:
            socket.send(str(message).upper())

    with serve(shout, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join(10)


@contextmanager
def curl(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One curl that reads all the streams side by side, each into a file of its own."""
    transfers = []
    for number in range(STREAMS):
        headers = [f'header = "{name}: {value}"' for name, value in headers_of(b"stream").items()]
        options = [f'url = "{url}"', "data-binary = stream", "no-buffer", f'output = "{folder / f"{number}"}"']
        transfers.append("\n".join([*options, *headers, 'write-out = "%{http_code} %{exitcode}\\n"']))
    (folder / "transfers").write_text("\nnext\n".join(transfers))
    command = ["curl", "-q", "-sZ", "--parallel-immediate", "--parallel-max", f"{STREAMS}"]
    command += ["-K", str(folder / "transfers")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def opened(proxy: ProxyProcess, path: str) -> Connection:
    url = proxy.url.replace("http", "ws", 1) + path
    return connect(url, additional_headers=headers_of(b"", method="GET"), open_timeout=30, ping_interval=None)


def answers(socket: Connection, text: str) -> bool:
    socket.send(text)
    return socket.recv(timeout=10) == text.upper()


def metric(proxy: ProxyProcess, line: str) -> float:
    with urlopen(f"{proxy.ops_url}/metrics") as found:
        return sum(float(each.rpartition(" ")[2]) for each in found.read().decode().splitlines() if line in each)


class Operator:
    """Whoever changes the files, with what every version of them says."""

    def __init__(self, proxy: ProxyProcess, base: dict[str, Any]) -> None:
        self.proxy = proxy
        self.base = base

    @property
    def number(self) -> int:
        """Of the settings in force."""
        return int(status(self.proxy)["settings"]["number"])

    def change(self, *, by_file_alone: bool = False, **sections: Any) -> None:
        """Put other settings in force, and wait until they are."""
        before = self.number
        self.proxy.write({**self.base, **sections})
        if not by_file_alone:
            self.proxy.send_signal(signal.SIGHUP)
        until(lambda: self.number > before)

    def spoil(self, number: int) -> None:
        """Write a file that cannot be used: it is told everywhere, and changes nothing."""
        before, refused = self.number, metric(self.proxy, 'settings_total{outcome="refused"}')
        self.proxy.write({**self.base, "limits": {"concurrent_per_key": f"nonsense {number}"}})
        self.proxy.send_signal(signal.SIGHUP)
        until(lambda: not status(self.proxy)["settings"]["current"])
        assert "limits.concurrent_per_key" in status(self.proxy)["settings"]["error"]
        assert self.number == before
        assert metric(self.proxy, 'settings_total{outcome="refused"}') > refused
        kept = [line for line in self.proxy.lines() if line["event"] == "settings_kept"]
        assert "limits.concurrent_per_key" in kept[-1]["problems"][0]


def test_fifty_reloads_cut_nothing_that_is_open_and_forget_nothing_that_was_counted(tmp_path: Path) -> None:
    streams = Streams()
    with plain_backend(streams.reply) as port, sockets() as staying, sockets() as leaving, ExitStack() as stack:
        limits = {"requests_per_minute_per_address": 0, "requests_per_minute_per_key": 0, "concurrent_per_key": 200}
        base = document(port, limits={**limits, "concurrent": 300})
        base["auth"]["allowed_senders"].append(CHARLIE.ss58)
        base["server"]["max_connections_per_address"] = 0
        base["backends"] = {
            "streams": {"urls": [f"http://127.0.0.1:{port}"], "connections": 200},
            "staying": {"urls": [f"http://127.0.0.1:{staying}"]},
            "hurt": {
                "urls": [f"http://127.0.0.1:{closed_port()}", f"http://127.0.0.1:{port}"],
                "failures": 1,
                "eject_s": 300,
            },
            "leaving": {"urls": [f"http://127.0.0.1:{leaving}"]},
        }
        events = {"path": "/events", "backend": "streams"}
        socket_route = {"path": "/socket", "backend": "staying", "methods": ["GET"], "websocket": True}
        old_route = {"path": "/old", "backend": "leaving", "methods": ["GET"], "websocket": True, "drain_s": 0.5}
        base["routes"] = [events, socket_route, {"path": "/hurt", "backend": "hurt"}, old_route]
        proxy = stack.enter_context(ProxyProcess(tmp_path, base).start(LOG_FORMAT="json"))
        sent(proxy, "POST", "/train", b"{}", lambda: headers_of(b"{}"))  # what is signed from now on counts
        reading = stack.enter_context(curl(f"{proxy.url}/events", tmp_path))
        for _ in range(STREAMS):
            assert streams.begun.acquire(timeout=30)
        held = [stack.enter_context(opened(proxy, "/socket")) for _ in range(SOCKETS)]
        old = stack.enter_context(opened(proxy, "/old"))
        assert all(answers(socket, "first") for socket in [*held, old])

        def health() -> list[str]:
            return [server["state"] for server in status(proxy)["backends"]["hurt"]["detail"]]

        for _ in range(2):
            assert call(proxy, "POST", "/hurt", b"x")[:2] == (200, b"x")
        assert health() == ["ejected", "serving"]

        operator, slow = Operator(proxy, base), {**limits, "concurrent": 300, "requests_per_minute_per_key": 1}
        operator.change(limits=slow)
        began = time.monotonic()

        def asked() -> tuple[int, str]:
            code, body, _ = sent(proxy, "POST", "/train", b"x", lambda: headers_of(b"x", by=CHARLIE))
            return code, json.loads(body)["code"] if code == 429 else ""

        assert [asked() for _ in range(11)] == [(200, "")] * 10 + [(429, "rate_key")]
        for number in range(RELOADS):
            if number in BAD_AT:
                operator.spoil(number)
                assert answers(held[0], "spoilt")
            other = {"urls": [f"http://127.0.0.1:{number + 1}"]}
            operator.change(
                by_file_alone=number in BY_FILE_ALONE,
                limits={**slow, "queue": number + 1},
                backends={**base["backends"], f"other{number}": other},
                routes=[*base["routes"], {"path": f"/new{number}", "backend": f"other{number}"}],
            )
            assert answers(held[number % SOCKETS], f"after {number}")
            if time.monotonic() - began < 40:
                assert asked() == (429, "rate_key")
        assert health() == ["ejected", "serving"]
        assert status(proxy)["requests"]["in_progress"] == STREAMS + SOCKETS + 1

        backends = {name: each for name, each in base["backends"].items() if name != "leaving"}
        operator.change(backends=backends, routes=[events, socket_route], limits=limits)
        with pytest.raises(ConnectionClosed) as closed:
            old.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        until(lambda: status(proxy)["requests"]["in_progress"] == STREAMS + SOCKETS)
        operator.change(
            backends=backends, routes=[events, socket_route], limits={**limits, "concurrent_per_key": STREAMS + SOCKETS}
        )
        code, body, _ = call(proxy, "POST", "/train", b"{}")
        full = json.loads(body)
        assert (code, full["code"]) == (429, "concurrency_key")
        assert (full["limit"], full["in_progress"]) == (STREAMS + SOCKETS, STREAMS + SOCKETS)

        assert all(answers(socket, "last") for socket in held)
        for socket in held:
            socket.close()
        streams.end.set()
        said, _ = reading.communicate(timeout=60)
        assert said.split("\n")[:-1] == ["200 0"] * STREAMS
        assert {(tmp_path / f"{number}").read_bytes() for number in range(STREAMS)} == {ONE + TWO}
        until(lambda: status(proxy)["requests"]["in_progress"] == 0)
        assert metric(proxy, 'settings_total{outcome="applied"}') >= RELOADS
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait() == 0
        ended = [line for line in proxy.lines() if line["event"] == "request_ended" and line["caller"] == ALICE.ss58]
        assert {line["end"] for line in ended if line["route"] in ("/events", "/socket")} == {"done"}
