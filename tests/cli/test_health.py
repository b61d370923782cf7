"""`engram health`: an exit status for what works, what does not yet, what is no Engram, and what is not there."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.cli.conftest import Run


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """An ops listener that always answers so; yields its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield str(server.server_port)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_exit_status_says_whether_it_is_ready(run: Run, status: int, code: int) -> None:
    with answering(status, b'{"status":"x","failed":["chain"]}') as port:
        ran = run("health", "--port", port, "--json")
        assert run("health", "--port", port, "--live").code == 0
    found = json.loads(ran.out)
    assert (ran.code, found["status"], found["answer"]["failed"]) == (code, status, ["chain"])


def test_the_port_is_that_of_the_settings(run: Run) -> None:
    with answering(200, b"{}") as port:
        assert run("health", "--set", f"ops.port={port}", "--set", "ops.host=0.0.0.0").code == 0


def test_what_is_not_there_or_is_no_engram_fails_with_its_address(run: Run) -> None:
    with answering(200, b"<html>") as port:
        other = run("health", "--port", port)
    gone = run("health", "--port", port)
    assert (other.code, gone.code) == (1, 1)
    assert f"http://127.0.0.1:{port}/ready answers something else" in other.err
    assert f"http://127.0.0.1:{port}/ready does not answer" in gone.err


def test_a_free_port_has_to_be_named(run: Run) -> None:
    ran = run("health", "--set", "ops.port=0")
    assert (ran.code, "name it by --port" in ran.err) == (2, True)
