"""What the doctor finds in the ledger: that it is sound and ours, what waits in it for the operator, and SQLite itself.

The ledger may be in use: it is only read.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from engram.cli.doctor.finding import Finding
from engram.ledger import LedgerUnusable, facts
from engram.ledger.backup import check
from engram.ledger.connection import reading_engine
from engram.ledger.migrations import MIGRATIONS
from engram.ledger.schema import payments, refunds
from engram.payments.model import PaymentState, RefundState

OLDEST_SQLITE: Final = (3, 35, 0)
"""Upserts, partial indexes and everything else the ledger is written with."""
WAL_FIX: Final = (3, 51, 3)
"""The SQLite release that mends the WAL-reset bug: two connections that write or checkpoint at once."""
LONG_UNKNOWN_S: Final = 3_600.0


class Waiting(msgspec.Struct, frozen=True):
    """What the ledger holds that does not go on by itself, or not yet."""

    environment: str | None
    quarantined: int
    long_unknown: int
    refunds: int
    owed: int
    """Atomic units of all refunds that were not sent yet."""


def sqlite() -> Finding:
    """Return whether this SQLite can hold a ledger."""
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return Finding("sqlite", "bad", f"{found} is too old, {_dotted(OLDEST_SQLITE)} or newer is needed")
    if sqlite3.sqlite_version_info >= WAL_FIX:
        return Finding("sqlite", "good", found)
    return Finding(
        "sqlite",
        "note",
        f"{found} has the WAL-reset bug (fixed in {_dotted(WAL_FIX)}); Engram writes and checkpoints by one connection"
        " of one process, which cannot meet it: let no other program write the ledger",
    )


def ledger(path: Path, environment: str, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Look at the ledger at `path`, which a gateway of `environment` would open."""
    try:
        report = check(path)
    except LedgerUnusable as error:
        yield Finding("ledger", "bad", f"{error}: restore a backup")
        return
    if report.problems:
        yield Finding("ledger", "bad", f"{path} is damaged: {report.problems[0]}; restore a backup")
        return
    size = f"{report.bytes / 1e6:.1f} MB"
    if report.schema_version < len(MIGRATIONS):
        yield Finding(
            "ledger", "good", f"sound, schema version {report.schema_version}, {size}; the next start brings it up"
        )
        return
    yield Finding("ledger", "good", f"sound, schema version {report.schema_version}, {size}")
    waiting = read_waiting(path, now())
    if waiting is None:
        yield Finding("ledger", "note", "what waits in it cannot be read")
        return
    if waiting.environment not in (None, environment):
        yield Finding(
            "ledger", "bad", f"it is of environment {waiting.environment}, not {environment}: set data_dir to another"
        )
    yield _open_work(waiting)


def read_waiting(path: Path, now: float) -> Waiting | None:
    """Return what waits in the ledger at `now` (unix seconds); None when it cannot be read, or there is none."""
    if not path.is_file():
        return None
    engine = reading_engine(path)
    try:
        with engine.connect() as connection:
            return _read(connection, now)
    except SQLAlchemyError:
        return None
    finally:
        engine.dispose()


def _read(connection: Connection, now: float) -> Waiting:
    def count(*conditions: ColumnElement[bool]) -> int:
        return connection.execute(select(func.count()).select_from(payments).where(*conditions)).scalar_one()

    unsent = refunds.c.state != str(RefundState.REFUNDED)
    number, owed = connection.execute(
        select(func.count(), func.coalesce(func.sum(refunds.c.amount), 0)).where(unsent)
    ).one()
    return Waiting(
        environment=facts.get(connection, "environment"),
        quarantined=count(payments.c.quarantined_at.is_not(None)),
        long_unknown=count(payments.c.state == str(PaymentState.UNKNOWN), payments.c.created_at < now - LONG_UNKNOWN_S),
        refunds=number,
        owed=owed,
    )


def _open_work(waiting: Waiting) -> Finding:
    said = []
    if waiting.quarantined:
        said.append(f"{waiting.quarantined} payments in quarantine: see `engram payments list`, then `release` them")
    if waiting.long_unknown:
        said.append(f"{waiting.long_unknown} payments of unknown outcome for over an hour: look them up on the chain")
    if waiting.refunds:
        said.append(f"{waiting.refunds} refunds of ${waiting.owed / 1e6:,.2f} in all are not sent yet")
    if said:
        return Finding("payments", "note", "; ".join(said))
    return Finding("payments", "good", "none in quarantine, none unknown for long, no refund waits")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
