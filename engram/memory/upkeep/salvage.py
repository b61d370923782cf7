"""Salvages damaged databases: reads rows one by one and keeps each record that matches its CID."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from engram import wire
from engram.durable.driver import sqlite3
from engram.memory import cid as cids
from engram.memory.errors import MemoryAreaError
from engram.memory.model import Entry, Validity
from engram.memory.store import notebook_db as notebooks
from engram.memory.store import record_sql, succession
from engram.memory.upkeep import data_files
from engram.memory.upkeep.data_files import NOTEBOOK, STORES, TRUTH, Progress

_KEPT = "damaged"
_AT_ONCE = 256
_EMPTY_IN_A_ROW = 100_000
"""After this many row numbers without a readable row, a table of unknown length is taken to have ended."""
_RECORD = "namespace, cid, embedding, text, metadata, model_version, owner, created_at"
_VALIDITY = "key, supersedes, expires_at, made_here, superseded_by"
"""Columns that a database of schema version 1 lacks."""
_UNREADABLE = (sqlite3.Error, UnicodeError)
"""What reading damaged pages raises: the driver cannot even decode some of its messages."""
_NOTES = {
    "key_shares": "owner, namespace, share_index, share_hex, threshold, total, stored_at",
    "attestations": "namespace, owner, attested_at",
    "conversations": "owner, user_id, conv_id, title, created_at, updated_at, messages",
}


class BeyondRepair(MemoryAreaError):
    """No row can be read; nothing was changed."""


class Salvaged(msgspec.Struct, frozen=True):
    """What was saved; `dropped` counts records that were read but do not match their CIDs."""

    records: int
    dropped: int
    key_shares: int
    conversations: int
    attestations: int
    kept_in: str
    """The folder with the damaged files, as they were."""


def repair(data: Path, truth_id: str, on_progress: Progress = lambda done, total: None) -> Salvaged:
    """Write new databases with every row that can be read, and replace the damaged ones by them.

    The caller has claimed the folder. `truth_id` must be new, so that the index is rebuilt. Rows on damaged pages are
    lost, and it is not always known which they were; a backup has them.

    Raises BeyondRepair, OSError.
    """
    data_files.finish(data)
    work = data / data_files.REPAIRING
    shutil.rmtree(work, ignore_errors=True)
    new = work / "new"
    new.mkdir(mode=0o700, parents=True)
    try:
        for name in STORES:  # opening the files in place could change them
            for path in (data / name, data / f"{name}-wal"):
                if path.exists():
                    shutil.copyfile(path, work / path.name)
        saved, dropped = _save_records(work / TRUTH, new / TRUTH, truth_id, on_progress)
        notes = _save_notes(work / NOTEBOOK, new / NOTEBOOK)
        kept = data_files.put_in_place(new, data, _KEPT)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Salvaged(
        saved, dropped, notes["key_shares"], notes["conversations"], notes["attestations"], kept_in=str(kept)
    )


def _save_records(source: Path, target: Path, truth_id: str, on_progress: Progress) -> tuple[int, int]:
    saved = dropped = 0
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as new:
        new.execute("BEGIN")
        record_sql.create_schema(new, truth_id)
        with _damaged(source, "records") as old:
            last = _first_of(
                old, "SELECT seq FROM sqlite_sequence WHERE name = 'records'", "SELECT max(id) FROM records"
            )
            validity = succession.has_columns(old)
            for at, row in _rows(old, "records", f"{_RECORD}, {_VALIDITY}" if validity else _RECORD, last):
                on_progress(at, max(at, last or 0))
                stored = _read(row if validity else (*row, *[None] * len(_VALIDITY.split(","))))
                with contextlib.suppress(UnicodeError):
                    if stored is not None and (entry := stored.entry()) is not None:
                        record = record_sql.put(new, entry, stored.created_at)
                        if stored.superseded_by is not None:
                            succession.mark(new, record.id, stored.superseded_by)
                        saved += 1
                        continue
                dropped += 1
        new.execute("COMMIT")
        new.execute("PRAGMA journal_mode = DELETE")
    return saved, dropped


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """A row with the types that the schema requires."""

    namespace: str
    cid: str
    embedding: bytes
    text: str | None
    metadata: str
    model_version: str
    owner: bytes | None
    created_at: float
    key: str | None
    supersedes: str | None
    expires_at: float | None
    made_here: int | None
    superseded_by: str | None

    def entry(self) -> Entry | None:
        """Return the stored entry; None when it does not match its CID."""
        if cids.fault_of(self.cid, self.embedding, self.metadata, self.model_version) is not None:
            return None
        for text in (self.text, self.key, self.supersedes, self.superseded_by):
            if text is not None:
                text.encode()  # a damaged text is not copied
        metadata = json.loads(self.metadata)
        return Entry(
            *(self.namespace, self.cid, self.embedding, self.text, metadata, self.model_version, self.owner),
            validity=Validity(self.key, self.supersedes, self.expires_at),
            made_here=None if self.made_here is None else bool(self.made_here),
        )


def _read(row: Sequence[object]) -> _Stored | None:
    try:
        return wire.convert(row, _Stored, octets=True)
    except msgspec.ValidationError:
        return None


def _save_notes(source: Path, target: Path) -> dict[str, int]:
    notebooks.Notebook.open(target).close()
    counts = dict.fromkeys(_NOTES, 0)
    if not source.exists():
        return counts
    with (
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as new,
        contextlib.suppress(BeyondRepair),
        _damaged(source, "conversations") as old,
    ):
        new.execute("BEGIN")
        for table, columns in _NOTES.items():
            marks = ", ".join("?" * len(columns.split(",")))
            for _, row in _rows(old, table, columns, _first_of(old, f"SELECT max(rowid) FROM {table}")):
                with contextlib.suppress(*_UNREADABLE):  # a row that breaks the schema is skipped
                    new.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row))
                    counts[table] += 1
        new.execute("COMMIT")
        new.execute("PRAGMA journal_mode = DELETE")
    return counts


@contextlib.contextmanager
def _damaged(path: Path, table: str) -> Iterator[sqlite3.Connection]:
    """Open a damaged database. Raises BeyondRepair when it cannot be opened or lacks that table."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")  # read a partly damaged schema all the same
            connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            known = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
            if known:
                yield connection
                return
            reason = f"it has no table {table}"
    except (sqlite3.DatabaseError, UnicodeError) as error:
        reason = str(error)
    raise BeyondRepair(
        f"{path.name} cannot be read at all ({reason}): put a backup in its place, `engram miner restore`"
    )


def _first_of(connection: sqlite3.Connection, *queries: str) -> int | None:
    for query in queries:
        with contextlib.suppress(*_UNREADABLE, TypeError, ValueError):
            row = connection.execute(query).fetchone()
            if row is not None and row[0] is not None:
                return int(row[0])
    return None


def _rows(
    connection: sqlite3.Connection, table: str, columns: str, last: int | None
) -> Iterator[tuple[int, Sequence[object]]]:
    """Yield every readable row with its number: in pages where that works, one by one where it does not."""
    after = empty = 0
    while last is None or after < last:
        upto = after + _AT_ONCE
        try:
            found = connection.execute(
                f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? AND rowid <= ? ORDER BY rowid", (after, upto)
            ).fetchall()
        except _UNREADABLE:
            found = [row for number in range(after + 1, upto + 1) for row in _one(connection, table, columns, number)]
        yield from ((int(str(row[0])), row[1:]) for row in found)
        after = upto
        empty = 0 if found else empty + _AT_ONCE
        if empty >= _EMPTY_IN_A_ROW and last is None:
            return


def _one(connection: sqlite3.Connection, table: str, columns: str, number: int) -> list[tuple[object, ...]]:
    with contextlib.suppress(*_UNREADABLE):
        return connection.execute(f"SELECT rowid, {columns} FROM {table} WHERE rowid = ?", (number,)).fetchall()
    return []
