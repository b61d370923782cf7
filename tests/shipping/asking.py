"""Load for a listener that must refuse and lose nothing."""

import threading
from http.client import HTTPConnection


class Asking(threading.Thread):
    """Asks again and again over connections of its own until it is stopped."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.stopped, self.answers, self.failures = port, threading.Event(), 0, list[str]()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("GET", "/tiers", headers={"Connection": "close"})
                assert connection.getresponse().status == 200
                self.answers += 1
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
