"""A server on loopback that answers each request as its script says; it runs in a thread, as the client blocks."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TypeAlias

import msgspec


class Asked(msgspec.Struct):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Told(msgspec.Struct):
    """An answer; `cut` ends the connection after so many bytes of the body."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = {}
    cut: int | None = None


Script: TypeAlias = Callable[[Asked], Told]


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    """The base URL of a server that answers by `script`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            lines = {name.lower(): value for name, value in self.headers.items()}
            told = script(Asked(self.command, self.path, lines, body))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            if told.status != 204:
                self.send_header("content-length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body if told.cut is None else told.body[: told.cut])
            if told.cut is not None:
                self.close_connection = True

        do_GET = do_POST = do_DELETE = answer  # noqa: N815  # names of the standard library

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
        daemon_threads = True

        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that goes away is part of the script

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
