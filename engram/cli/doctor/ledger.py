"""What the doctor finds in the ledger: that it is sound and ours, what waits in it for the operator, and SQLite itself.

The ledger may be in use: it is only read.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection

from config.model import Settings
from engram.cli.at_rest import read_at_rest, read_if_there, read_in_use
from engram.cli.doctor.finding import Finding
from engram.cli.failures import CommandFailed
from engram.durable import driver
from engram.ledger import LedgerUnusable, facts
from engram.ledger.backup import check
from engram.ledger.migrations import MIGRATIONS
from engram.payments import records as payment_records
from engram.payments.model import RefundState
from engram.sessions import counts

OLDEST_SQLITE: Final = (3, 35, 0)
"""Upserts, partial indexes and everything else the ledger is written with."""
LONG_UNKNOWN_S: Final = 3_600.0


class Waiting(msgspec.Struct, frozen=True):
    """What the ledger holds that does not go on by itself, or not yet."""

    environment: str | None
    quarantined: int
    long_unknown: int
    refunds: int
    owed: int
    """Atomic units of all refunds that were not sent yet."""


def sqlite(version: str = driver.VERSION) -> Finding:
    """Return whether the SQLite library in use, of that version, can hold a ledger."""
    found = tuple(map(int, version.split(".")))
    if found < OLDEST_SQLITE:
        return Finding("sqlite", "bad", f"{version} is too old, {_dotted(OLDEST_SQLITE)} or newer is needed")
    if not driver.has_wal_reset_bug(found):
        return Finding("sqlite", "good", version)
    return Finding(
        "sqlite",
        "note",
        f"{version} has the WAL-reset bug (fixed in {_dotted(driver.WAL_RESET_FIXED)}); Engram writes and checkpoints"
        " by one connection of one process, which cannot meet it: let no other program write the ledger",
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
    if miscounted := read_at_rest(path, counts.problems):
        yield Finding("ledger", "bad", f"{path}: {'; '.join(miscounted)}")
    else:
        yield Finding("ledger", "good", f"sound, schema version {report.schema_version}, {size}")
    waiting = read_at_rest(path, lambda connection: _read(connection, now()))
    if waiting is None:
        yield Finding("ledger", "note", "what waits in it cannot be read")
        return
    yield from _work(waiting, environment, "data_dir")


def on_server(settings: Settings, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Look at the ledger on the server of ledger.url."""

    def read(connection: Connection) -> tuple[Waiting, list[str]]:
        from engram.ledger.postgres.durability import weaknesses

        return _read(connection, now()), weaknesses(connection)

    try:
        waiting, weak = read_in_use(settings, read)
    except CommandFailed as failure:
        yield Finding("ledger", "bad", str(failure))
        return
    if weak:
        yield Finding("ledger", "note", f"the server of ledger.url: {'; '.join(weak)}")
    else:
        yield Finding("ledger", "good", "the server of ledger.url answers, and keeps what it has acknowledged")
    yield from _work(waiting, settings.environment, "ledger.url")


def read_waiting(settings: Settings, now: float) -> Waiting | None:
    """Return what waits in the ledger at `now` (unix seconds); None when it cannot be read, or there is none."""
    return read_if_there(settings, lambda connection: _read(connection, now))


def _work(waiting: Waiting, environment: str, setting: str) -> Iterator[Finding]:
    if waiting.environment not in (None, environment):
        yield Finding(
            "ledger", "bad", f"it is of environment {waiting.environment}, not {environment}: set {setting} to another"
        )
    yield _open_work(waiting)


def _read(connection: Connection, now: float) -> Waiting:
    parts = payment_records.refunds_by_state(connection)
    unsent = [part for state, part in parts.items() if state is not RefundState.REFUNDED]
    return Waiting(
        environment=facts.get(connection, "environment"),
        quarantined=payment_records.count_quarantined(connection),
        long_unknown=payment_records.count_unknown(connection, now - LONG_UNKNOWN_S),
        refunds=sum(number for number, _ in unsent),
        owed=sum(units for _, units in unsent),
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
