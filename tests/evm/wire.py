"""The wire between the gateway and the facilitator, which a test may cut, slow down or garble."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeAlias

Answer: TypeAlias = tuple[int, bytes]
Forward: TypeAlias = Callable[[], Answer]
Fault: TypeAlias = Callable[[dict[str, Any], Forward], Answer | None]
"""Takes the request and what sends it on; returns what the gateway gets, None to cut the connection."""


class Wire:
    """An HTTP proxy on loopback. `faults[path]` is what happens to requests of that path, `payments[nonce]` to the
    settlement of that payment."""

    def __init__(self, upstream: Callable[[], str]) -> None:
        self._upstream = upstream
        self.faults: dict[str, Fault] = {}
        self.payments: dict[str, Fault] = {}
        self.verdicts: dict[str, Fault] = {}
        """What happens to the verification of that payment."""
        self.requests: list[str] = []
        self.closed = False
        self._idle: set[socket.socket] = set()
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                wire._idle.add(self.connection)
                super().handle_one_request()
                wire._idle.discard(self.connection)

            def do_GET(self) -> None:
                self._pass(b"")

            def do_POST(self) -> None:
                self._pass(self.rfile.read(int(self.headers["content-length"])))

            def _pass(self, body: bytes) -> None:
                wire._idle.discard(self.connection)
                wire.requests.append(self.path)
                request = json.loads(body or b"{}")
                fault = wire.faults.get(self.path)
                if self.path == "/settle":
                    fault = wire.payments.get(nonce_of(request), fault)
                if self.path == "/verify":
                    fault = wire.verdicts.get(nonce_of(request), fault)

                def forward() -> Answer:
                    return wire._send(self.command, self.path, body)

                try:
                    answer = forward() if fault is None else fault(request, forward)
                except OSError:
                    answer = None
                if answer is None:
                    self.close_connection = True
                    return
                status, content = answer
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(content)))
                    if wire.closed:  # or the next request would still find its way
                        self.send_header("connection", "close")
                        self.close_connection = True
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 256

            def handle_error(self, *args: object) -> None:
                pass

        def listen(port: int) -> ThreadingHTTPServer:
            return Server(("127.0.0.1", port), Handler)

        self._listen = listen
        self._server = listen(0)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody listens any more: connections are refused, idle ones are ended, running requests are answered."""
        self.closed = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        for connection in list(self._idle):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Listen again, where it was."""
        self._server = self._listen(int(self.url.rsplit(":", 1)[1]))
        self.closed = False
        self._serve()

    def _serve(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def mend(self) -> None:
        self.faults.clear()

    def _send(self, method: str, path: str, body: bytes) -> Answer:
        host, _, port = self._upstream().removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request(method, path, body or None, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def nonce_of(request: dict[str, Any]) -> str:
    """The authorization that a request is about."""
    return str(request["paymentPayload"]["payload"]["authorization"]["nonce"])


def once(fault: Fault) -> Fault:
    """The fault at the first request, none at those that follow."""
    used = threading.Event()

    def first(request: dict[str, Any], forward: Forward) -> Answer | None:
        if used.is_set():
            return forward()
        used.set()
        return fault(request, forward)

    return first


def answers(status: int, document: object) -> Fault:
    """Nothing is done, and this is answered."""
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return lambda request, forward: (status, content)


def after(fault: Fault) -> Fault:
    """It is done, and then answered as by `fault`."""

    def done(request: dict[str, Any], forward: Forward) -> Answer | None:
        forward()
        return fault(request, forward)

    return done


def cut(request: dict[str, Any], forward: Forward) -> None:
    """The connection is closed without an answer."""


def stall(seconds: float) -> Fault:
    def slow(request: dict[str, Any], forward: Forward) -> None:
        time.sleep(seconds)

    return slow


def late_by(seconds: float) -> Fault:
    """It is done, but so late that nobody waits for it any more."""

    def late(request: dict[str, Any], forward: Forward) -> Answer:
        time.sleep(seconds)
        return forward()

    return late
