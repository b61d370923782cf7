"""A restore that changes nothing: the backup is restored into a folder of its own, migrated, and checked."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from engram.durable.connection import open_writer
from engram.ledger import backup
from engram.ledger.backup import Report
from engram.ledger.connection import LEDGER, LEDGER_FILE
from engram.ledger.folder import data_folder


class Drilled(msgspec.Struct, frozen=True):
    """What a backup would give."""

    source: str
    schema_before: int
    """Of the backup; this version's is in `report`."""
    report: Report
    """Of the restored and migrated ledger."""
    content: str
    """SHA-256 of everything in that one, to compare it with another."""


def drill(source: Path, look: Callable[[Connection], list[str]] = lambda connection: []) -> Drilled:
    """Restore `source` into a scratch folder, open it as a start would, and check all of it. Blocks.

    `look` returns further problems of what is in there. Raises LedgerUnusable, LedgerUnavailable.
    """
    before = backup.check(source)
    with tempfile.TemporaryDirectory(prefix="engram-drill-") as scratch, data_folder(Path(scratch)) as folder:
        backup.restore(source, folder)
        raw, handle = open_writer(LEDGER, folder / LEDGER_FILE)
        try:
            further = look(handle)
        finally:
            handle.close()
            raw.close()
        report, content = backup.check(folder / LEDGER_FILE), backup.content_of(folder / LEDGER_FILE)
    report.problems.extend(further)
    return Drilled(str(source), before.schema_version, report, content)
