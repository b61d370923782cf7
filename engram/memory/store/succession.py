"""Which records are current: what a newer one supersedes, and what has expired.

| what is stored | what happens to others |
|---|---|
| a record with a `key` | the earlier ones with that key are superseded |
| a record that names a CID it `supersedes` | that one is superseded |
| again, with the same validity, while it is current | nothing |
| again, with another validity or after it was superseded or has expired | it is replaced: a new row, a new number |
| again, without a validity, where it has an expiry | the same, with its key and without an expiry |
| something that was superseded where it comes from | nothing; where it is there already, that stays |
| another text under the same CID (vector and metadata are equal) | nothing: the text that is there stays |

In the public namespace only records of the same owner are superseded, and nothing that was stored unsigned: a key is
the owner's. A superseded record stays until it is deleted; deleting its successor does not bring it back. Nothing is
ever superseded because it is similar.
"""

from __future__ import annotations

import msgspec

from engram.durable.driver import sqlite3
from engram.memory.model import ALWAYS, PUBLIC, Entry, Record

_SCHEMA = """
ALTER TABLE records ADD COLUMN key TEXT;
ALTER TABLE records ADD COLUMN supersedes TEXT;
ALTER TABLE records ADD COLUMN expires_at REAL;
ALTER TABLE records ADD COLUMN made_here INTEGER;
ALTER TABLE records ADD COLUMN superseded_by TEXT;
CREATE INDEX records_by_key ON records (namespace, key) WHERE key IS NOT NULL
"""
CURRENT = "superseded_by IS NULL AND (expires_at IS NULL OR expires_at > ?)"
"""The condition of records that are current at a time."""


def add_columns(connection: sqlite3.Connection) -> None:
    """Add what this module needs to the table of records, in the caller's transaction."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    index_current(connection)


def index_current(connection: sqlite3.Connection) -> None:
    """Create the index by which a key's current version is found among any number of old ones, where it is missing."""
    connection.execute(
        "CREATE INDEX IF NOT EXISTS records_current_by_key ON records (namespace, key)"
        " WHERE key IS NOT NULL AND superseded_by IS NULL"
    )


def has_columns(connection: sqlite3.Connection) -> bool:
    """Return whether the database is of a version that has these columns; one that only reads it may meet another."""
    return connection.execute("SELECT 1 FROM pragma_table_info('records') WHERE name = 'key'").fetchone() is not None


def may_succeed(namespace: str, owner: bytes | None, before: bytes | None) -> bool:
    """Return whether a record of `owner` may supersede one that was stored by `before`.

    Whoever may store in a private namespace may also delete in it.
    """
    return namespace != PUBLIC or (owner is not None and owner == before)


def has_other_text(there: Record, entry: Entry) -> bool:
    """Return whether both have a text, and not the same one."""
    return there.text is not None and entry.text is not None and there.text != entry.text


def replacement(there: Record, entry: Entry, now: float) -> Entry | None:
    """Return what takes the place of a record when `entry`, which has its CID, is stored; None: the record stays."""
    validity = entry.validity
    if entry.superseded_by is not None:
        return None
    may = may_succeed(entry.namespace, entry.owner, there.owner)
    if has_other_text(there, entry):
        return None
    if validity == ALWAYS:
        never_ends = there.validity.expires_at is None
        if never_ends or there.superseded_by is not None or not (may or there.owner is None):
            return None
        validity = msgspec.structs.replace(there.validity, expires_at=None)
    elif not may or (validity == there.validity and there.is_current(now)):
        return None
    return msgspec.structs.replace(
        entry,
        text=entry.text if there.text is None else there.text,
        made_here=entry.made_here or there.made_here,
        owner=there.owner if entry.namespace == PUBLIC else entry.owner,
        validity=validity,
    )


def supersede(connection: sqlite3.Connection, record: Record) -> None:
    """Mark what a record that was just stored supersedes."""
    validity = record.validity
    if record.superseded_by is not None:
        return
    for column, value in (("key", validity.key), ("cid", validity.supersedes)):
        if value is None or (record.namespace == PUBLIC and record.owner is None):
            continue
        connection.execute(
            f"UPDATE records SET superseded_by = ? WHERE namespace = ? AND {column} = ? AND id < ?"
            " AND superseded_by IS NULL AND (namespace <> ? OR owner = ?)",
            (record.cid, record.namespace, value, record.id, PUBLIC, record.owner),
        )


def mark(connection: sqlite3.Connection, number: int, superseded_by: str) -> None:
    """Mark the record of that number as superseded, as it was where it comes from."""
    connection.execute("UPDATE records SET superseded_by = ? WHERE id = ?", (superseded_by, number))
