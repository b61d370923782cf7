"""A browser's own EventSource on the events of a session, over a line that is cut."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import needs_chromium, open_site, run_in_page
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import FAST, GatewayProcess

pytestmark = [needs_chromium, pytest.mark.heavy, pytest.mark.external]

WAIT_S = 30
FOLLOW = """(url) => new Promise((resolve, reject) => {
  const source = new EventSource(url);
  const seen = [];
  let opened = 0;
  source.onopen = () => { opened += 1; };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) reject(new Error(`closed for good after opening ${opened} times`));
  };
  source.addEventListener("state", (event) => seen.push(JSON.parse(event.data).what));
  source.addEventListener("end", () => { source.close(); resolve({ opened, seen }); });
})"""


class Line:
    """A TCP line to a server that can be cut; new connections get through."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._answered = threading.Semaphore(0)
        self._begin(self._accept)

    def wait_answered(self) -> None:
        """Wait until one more connection has got something of its answer."""
        assert self._answered.acquire(timeout=WAIT_S), "nobody came back"

    def cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):  # it has left already
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _begin(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._ends += [client, server]
            self._begin(self._copy, client, server, None)
            self._begin(self._copy, server, client, b"\nid: ")

    def _copy(self, source: socket.socket, sink: socket.socket, until: bytes | None) -> None:
        seen = b""
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
                seen += data
                if until is not None and until in seen:
                    until = None
                    self._answered.release()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def line_to(url: str) -> Iterator[Line]:
    at = urlsplit(url)
    line = Line((at.hostname or "", at.port or 0))
    try:
        yield line
    finally:
        line.close()


def test_event_source_comes_back_with_one_ticket_as_often_as_its_line_is_cut(tmp_path: Path) -> None:
    with open_site() as page, ThreadPoolExecutor(1) as pool:
        settings = FAST.replace("[http]", f"[http]\ncors_origins = ['{page.origin}']")
        with GatewayProcess(tmp_path / "data", settings=settings) as gateway, line_to(gateway.start().url) as line:
            buyer = Buyer()
            buyer.quote(gateway.url)
            session_id = str(buyer.pay(gateway.url).body["session_id"])
            buyer.wait(gateway.url, session_id, "active")
            ticket = buyer.send(gateway.url, "POST", f"/sessions/{session_id}/ticket", b"", ahead_ms=10_000).body
            following = pool.submit(run_in_page, page.origin, FOLLOW, line.url + ticket["url"])
            for _ in range(2):
                line.wait_answered()
                line.cut()
            line.wait_answered()
            buyer.stop(gateway.url, session_id)
            outcome = following.result(WAIT_S)
    assert outcome["opened"] == 3
    assert outcome["seen"] == ["active", "stopping", "stopped"]
