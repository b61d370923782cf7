"""The clock that paid time is read off: one row, which a checkpoint moves on however many sessions run.

The row says what the clock read at one instant of the machine's clocks. From there it goes on by the monotonic clock
of the same boot; across a reboot by the wall clock, which is all there is. It never goes back. A running session keeps
what the clock read when its time began to count, `counted_from`; that is never more than the row says, because its time
begins with a checkpoint in the same transaction. So no jump of the wall clock, kill or reboot takes from a session what
it had used by the latest checkpoint, or counts it twice.

Where several processes share a ledger on PostgreSQL, its clock is read instead of theirs: they need not agree, and a
row that another machine has checkpointed is not from another boot. That clock is a wall clock, which may be set, and
another one after a standby was promoted. So each process bounds what it says by its own monotonic clock
(rules.shared_elapsed_s), and `monotonic` in the row counts what was accepted of it.

Functions are called inside `ledger.write` or `ledger.read` and own no transaction.
"""

from typing import Any, Final

from sqlalchemy import Connection, bindparam, cast, extract, func, or_, select, true, update

from engram.ledger import Prepared, owners
from engram.ledger.sql import OWNER, REAL
from engram.sessions import rules
from engram.sessions.model import Instant
from engram.sessions.tables import SESSION, paid_clock, sessions

COLUMNS = (paid_clock.c.reads_s, paid_clock.c.wall, paid_clock.c.monotonic, paid_clock.c.boot)
SESSIONS = select(*SESSION, *COLUMNS).join_from(sessions, paid_clock, true())
"""Each with the row of the clock."""
_ROW = Prepared(select(*COLUMNS))
_MOVE = Prepared(update(paid_clock).values({column: bindparam(column.name) for column in COLUMNS}))
SHARED_BY: Final = "postgresql"
_SERVER_TIME = Prepared(
    select(cast(extract("epoch", func.clock_timestamp()), REAL), *COLUMNS[1:]).select_from(paid_clock)
)
_ENDS = sessions.c.counted_from + sessions.c.paid_s - sessions.c.used_s


def instant(connection: Connection, now: Instant) -> Instant:
    """Return the instant by which this ledger counts paid time: `now` of this machine, or one of the shared clock."""
    if connection.dialect.name != SHARED_BY or now.boot == SHARED_BY:
        return now
    values = _SERVER_TIME.values(connection, {})
    assert values is not None, "the row is made with the table"
    server, at = values[0], Instant(*values[1:])
    if at.boot != SHARED_BY:  # of the machine that the ledger was moved from
        return Instant(server, server, SHARED_BY)
    known = owners.memory(connection)
    seen = rules.sighted(known.get(SHARED_BY), at.monotonic, now.monotonic)
    known[SHARED_BY] = seen
    return Instant(server, at.monotonic + rules.shared_elapsed_s(server - at.wall, seen, now.monotonic), SHARED_BY)


def checkpoint(connection: Connection, now: Instant) -> float:
    """Move the row on to `now`, unless it is further; returns what the clock reads there, in seconds."""
    now = instant(connection, now)
    reads_s, at = _row(connection)
    if at.boot == now.boot and now.monotonic < at.monotonic:
        return reads_s
    reads_s += rules.elapsed_s(at, now)
    moved = {"reads_s": reads_s, "wall": now.wall, "monotonic": now.monotonic, "boot": now.boot}
    _MOVE.apply(connection, moved)
    return reads_s


def expired(connection: Connection, now: Instant, limit: int = 500) -> list[str]:
    """Ids of this process's sessions whose time is up, the longest overdue first; the same as rules.has_expired."""
    now = instant(connection, now)
    reads_s, at = _row(connection)
    reads_s += rules.elapsed_s(at, now)
    query = (
        select(sessions.c.id)
        .where(
            sessions.c.counted_from.is_not(None),
            sessions.c[OWNER] == owners.me(connection),
            reads_s >= _ENDS,
            or_(sessions.c.pending_extensions == 0, reads_s - rules.EXTENSION_PAUSE_S >= _ENDS),
        )
        .order_by(_ENDS)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def next_end_s(connection: Connection, now: Instant) -> float | None:
    """Return the seconds until the first of all sessions ends if nobody adds time; None where none runs."""
    now = instant(connection, now)
    reads_s, at = _row(connection)
    first = connection.execute(select(func.min(_ENDS)).where(sessions.c.counted_from.is_not(None))).scalar_one()
    return None if first is None else max(0.0, first - reads_s - rules.elapsed_s(at, now))


def settle(columns: dict[str, Any]) -> None:
    """Turn what a row of SESSIONS says of paid time into `used_s` as of the clock's instant, which is `counted`."""
    counted_from, reads_s = columns.pop("counted_from"), columns.pop("reads_s")
    at = Instant(columns.pop("wall"), columns.pop("monotonic"), columns.pop("boot"))
    columns["counted"] = None if counted_from is None else at
    if counted_from is not None:
        columns["used_s"] += reads_s - counted_from


def _row(connection: Connection) -> tuple[float, Instant]:
    row = _ROW.values(connection, {})
    assert row is not None, "the row is made with the table"
    return row[0], Instant(*row[1:])
