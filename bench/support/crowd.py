"""A ledger with 200,000 running sessions: what RESERVED takes in it, and how long a checkpoint stalls its writer."""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from engram.ledger import open_inline
from engram.payments.reservations import Reservation, Reserved, reserve
from engram.sessions import SystemInstants, counts, paid_clock
from tests.payments import builders

SESSIONS = 200_000
ROUNDS = 21
FILL = f"""
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {SESSIONS})
INSERT INTO sessions (id, controller, state, tier, paid_s, amount_usd_micros, network, payment_id, created_at,
                      active_at, counted_from, node_token, node_endpoint, node_hotkey)
SELECT printf('session-%024d', n), randomblob(32), 'active', 'lite', 2592000.0, 72000000, 'eip155:31337',
       printf('payment-%024d', n), :at, :at, :counted_from, printf('token-%024d', n), 'http://127.0.0.1:9',
       randomblob(32)
FROM number
"""


def measure() -> dict[str, float]:
    """Milliseconds of RESERVED's statements (median), and of a checkpoint from BEGIN to the end of COMMIT (longest)."""
    with tempfile.TemporaryDirectory() as name:
        ledger = open_inline(Path(name) / "ledger.sqlite3")
        ledger.write_now(_fill)
        reserved = [ledger.write_now(partial(_reserve_ms, asked=_asked(number))) for number in range(ROUNDS)]
        stalls = []
        for _ in range(ROUNDS):
            began, now = time.perf_counter(), SystemInstants().now()
            ledger.write_now(partial(paid_clock.checkpoint, now=now))
            stalls.append((time.perf_counter() - began) * 1e3)
        ledger.close()
    return {"reserve_sql_ms_200k": statistics.median(reserved), "writer_stall_200k_ms": max(stalls)}


def _fill(connection: Connection) -> None:
    now = SystemInstants().now()
    counted_from = paid_clock.checkpoint(connection, now)
    connection.exec_driver_sql(FILL, {"at": now.wall, "counted_from": counted_from})
    counts.recount(connection)


def _asked(number: int) -> Reservation:
    buyer = bytes([number]) * 32
    limits = msgspec.structs.replace(builders.ROOMY, places=2 * SESSIONS)
    return builders.reservation(f"purchase {number}", controller=buyer, payer=buyer[:20], limits=limits)


def _reserve_ms(connection: Connection, asked: Reservation) -> float:
    began = time.perf_counter()
    answer = reserve(connection, asked)
    took_ms = (time.perf_counter() - began) * 1e3
    if not isinstance(answer, Reserved):
        raise TypeError(f"a purchase was answered {answer}")
    return took_ms
