"""The yardstick of a node's proofs and of its loop: a bare HTTP server for one connection that reads a row of SQLite by
its key, hashes it as often as a proof does, and answers in JSON; and Python's own json on a batch of numbers."""

import hashlib
import hmac
import json
import os
import socket
import sqlite3
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

HASHES = 20
"""About as many as a path through a Merkle tree of a million leaves."""


class BareNode:
    """Serves vectors by number on `port`, in a thread of its own, until its one connection ends."""

    def __init__(self, path: Path, vectors: Sequence[bytes]) -> None:
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("CREATE TABLE vectors (number INTEGER PRIMARY KEY, vector BLOB)")
        database.execute("BEGIN")
        database.executemany("INSERT INTO vectors VALUES (?, ?)", list(enumerate(vectors)))
        database.execute("COMMIT")
        database.close()
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        database = sqlite3.connect(self._path)
        connected, _ = self._listener.accept()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._listener, connected, connected.makefile("rb") as lines:
            while lines.readline():
                length = 0
                while (line := lines.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                asked = json.loads(lines.read(length))
                found = database.execute("SELECT vector FROM vectors WHERE number = ?", (asked["number"],))
                body = json.dumps(_prove(found.fetchone()[0], bytes.fromhex(asked["nonce_hex"]))).encode()
                connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


def _prove(vector: bytes, nonce: bytes) -> dict[str, object]:
    step, path = hmac.digest(nonce, vector, "sha256"), []
    for _ in range(HASHES):
        step = hashlib.sha256(step + nonce).digest()
        path.append(step.hex())
    return {"path": path, "hash": step.hex(), "at": time.time()}


def question(number: int) -> bytes:
    """The body of a request for one vector's proof."""
    return json.dumps({"number": number, "nonce_hex": os.urandom(32).hex()}).encode()


def decode_ms(body: bytes, times: int = 15) -> float:
    """Median milliseconds of Python's own json on a body: what a loop that decodes it by itself is late."""
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        json.loads(body)
        took.append((time.perf_counter() - began) * 1_000)
    return statistics.median(took)
