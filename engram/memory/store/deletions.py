"""Deletes many records in one transaction, each only if the caller may delete it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

from engram.durable.driver import sqlite3
from engram.memory.model import Deleted
from engram.memory.store import record_sql

_OWNER = "SELECT owner FROM records WHERE namespace = ? AND cid = ?"

_FIND = "SELECT id, owner, embedding FROM records WHERE namespace = ? AND cid = ?"
_NOTE = "INSERT INTO deletions (sequence, id, namespace) VALUES (?, ?, ?)"

Outcome: TypeAlias = Literal["deleted", "not_found", "not_owner"]
May: TypeAlias = Callable[[bytes | None], bool]
"""Whether a record of that owner (a public key; None: stored unsigned) may be deleted."""


class Batch(msgspec.Struct, frozen=True):
    """The result for each CID, in order, and the number of the last change (0: nothing changed)."""

    outcomes: list[Outcome]
    sequence: int


def delete_all(
    connection: sqlite3.Connection, namespace: str, cids: Sequence[str], may: May
) -> tuple[Batch, list[Deleted]]:
    """Delete the records that exist and may be deleted; return the batch and the changes.

    Text and metadata are not read, so that a damaged record can be deleted too.
    """
    outcomes: list[Outcome] = []
    changes: list[Deleted] = []
    before = record_sql.last_sequence(connection)
    for cid in cids:
        row = connection.execute(_FIND, (namespace, cid)).fetchone()
        if row is None:
            outcomes.append("not_found")
        elif not may(row[1]):
            outcomes.append("not_owner")
        else:
            change = Deleted(before + len(changes) + 1, row[0], namespace, cid, row[2])
            connection.execute("DELETE FROM records WHERE id = ?", (change.id,))
            connection.execute(_NOTE, (change.sequence, change.id, namespace))
            changes.append(change)
            outcomes.append("deleted")
    if changes:
        record_sql.write_meta(connection, "sequence", str(changes[-1].sequence))
    return Batch(outcomes, changes[-1].sequence if changes else 0), changes
