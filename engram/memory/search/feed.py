"""What the truth tells those who derive something from its texts: each change once, in order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engram.durable.driver import sqlite3
from engram.memory.model import PUBLIC
from engram.memory.store import succession


class TextStored(msgspec.Struct, frozen=True):
    """A record was stored. `text` is what was stored beside the vector, `shown` the text in its metadata."""

    sequence: int
    id: int
    namespace: str
    text: str | None
    shown: str | None
    made_here: bool | None

    @property
    def words(self) -> str:
        """The text whose words may be found: what everyone who may search the namespace may also read."""
        if self.namespace == PUBLIC:
            return self.shown or ""
        return self.text or self.shown or ""


class TextGone(msgspec.Struct, frozen=True):
    """A record was deleted."""

    sequence: int
    id: int
    namespace: str


Fed = TextStored | TextGone


def since(connection: sqlite3.Connection, sequence: int, limit: int) -> list[Fed]:
    """Return the next changes after `sequence`, at most `limit`, in order.

    A text that is not UTF-8 any more is read with a mark in place of what is not, so that a damaged record holds up
    nothing behind it.
    """
    made_here = "made_here" if succession.has_columns(connection) else "NULL"
    stored = connection.execute(
        "SELECT sequence, id, namespace, CAST(text AS BLOB),"
        f" CAST(CASE WHEN json_valid(metadata) THEN json_extract(metadata, '$.text') END AS BLOB), {made_here}"
        " FROM records WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    changes: list[Fed] = [
        TextStored(row[0], row[1], row[2], _text(row[3]), _text(row[4]), None if row[5] is None else bool(row[5]))
        for row in stored
    ]
    gone = connection.execute(
        "SELECT sequence, id, namespace FROM deletions WHERE sequence > ? ORDER BY sequence LIMIT ?", (sequence, limit)
    )
    changes += [TextGone(*row) for row in gone]
    return sorted(changes, key=lambda change: change.sequence)[:limit]


def ids_of(connection: sqlite3.Connection) -> Sequence[int]:
    """Return the ids of all records, in order."""
    return [row[0] for row in connection.execute("SELECT id FROM records ORDER BY id")]


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")
