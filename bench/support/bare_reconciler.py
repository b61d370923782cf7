"""The yardstick of reconciling: a bare trio loop that reads the same unknown payments, asks the same chain about each,
and writes down what it heard, a commit for each group in a thread; measured is how late its loop wakes a task."""

import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from engram.payments.keccak import keccak256

AT_ONCE = 16
_STATE_OF = keccak256(b"authorizationState(address,bytes32)")[:4]
Row = tuple[str, bytes, bytes, bytes]
"""Id, asset, payer and nonce of a payment."""


async def measure(ledger: Path, host: str, port: int, lag_every_s: float) -> tuple[list[float], float]:
    """Returns the lags of the loop in milliseconds, and the seconds it took. `ledger` itself stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.sqlite3"
        shutil.copy(ledger, path)
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        unknown = "SELECT id, asset, payer, nonce FROM payments WHERE state = 'unknown'"
        rows: list[Row] = database.execute(unknown).fetchall()
        lags: list[float] = []
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, lags, lag_every_s)
            await _work(database, rows, host, port)
            nursery.cancel_scope.cancel()
        return lags, time.perf_counter() - began


async def _watch(lags: list[float], every_s: float) -> None:
    while True:
        due = trio.current_time() + every_s
        await trio.sleep_until(due)
        lags.append((trio.current_time() - due) * 1000)


async def _work(database: sqlite3.Connection, rows: list[Row], host: str, port: int) -> None:
    async def ask(stream: trio.SocketStream, row: Row, known: list[tuple[str, str]]) -> None:
        payment, asset, payer, nonce = row
        call = {"to": "0x" + asset.hex(), "data": "0x" + (_STATE_OF + bytes(12) + payer + nonce).hex()}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest"]}).encode()
        used = int((await _post(stream, host, body))["result"], 16)
        known.append(("settled" if used else "void", payment))

    streams = [await trio.open_tcp_stream(host, port) for _ in range(AT_ONCE)]
    for at in range(0, len(rows), AT_ONCE):
        known: list[tuple[str, str]] = []
        async with trio.open_nursery() as nursery:
            for stream, row in zip(streams, rows[at : at + AT_ONCE], strict=False):
                nursery.start_soon(ask, stream, row, known)
        await trio.to_thread.run_sync(_commit, database, known)
    for stream in streams:
        await stream.aclose()


async def _post(stream: trio.SocketStream, host: str, body: bytes) -> dict[str, str]:
    head = f"POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    await stream.send_all(head.encode() + body)
    received = b""
    while True:
        received += await stream.receive_some(65_536)
        above, found, answer = received.partition(b"\r\n\r\n")
        if found:
            length = int(above.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(answer) >= length:
                decoded: dict[str, str] = json.loads(answer)
                return decoded


def _commit(database: sqlite3.Connection, known: Sequence[tuple[str, str]]) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.executemany("UPDATE payments SET state = ? WHERE id = ?", known)
    database.execute("COMMIT")
