"""What the truth tells those who derive something from its texts: each change once, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from engram.durable.driver import sqlite3
from engram.memory.model import PUBLIC
from engram.memory.store import succession

_UNLIMITED: Final = 2**63


class TextStored(msgspec.Struct, frozen=True):
    """A record was stored. `text` is what was stored beside the vector, `shown` the text in its metadata."""

    sequence: int
    id: int
    namespace: str
    text: str | None
    shown: str | None
    made_here: bool | None
    owner: bytes | None = None

    @property
    def words(self) -> str:
        """The text whose words may be found: what everyone who may search the namespace may also read."""
        if self.namespace == PUBLIC:
            return self.shown or ""
        return self.text or self.shown or ""

    @property
    def windowed(self) -> str | None:
        """The text that may have windows: in the public namespace one that everyone may read.

        A cosine of 1 would tell whoever guesses it that a text is there.
        """
        return self.text if self.namespace != PUBLIC or self.shown == self.text else None


class TextGone(msgspec.Struct, frozen=True):
    """A record was deleted."""

    sequence: int
    id: int
    namespace: str


Fed = TextStored | TextGone


class FeedLane(msgspec.Struct, frozen=True):
    """Changes that wait for one another and for no others: those of a namespace, or of a signer's in it."""

    namespace: str
    owner: bytes | None = None
    is_of_owner: bool = False


def since(
    connection: sqlite3.Connection,
    sequence: int,
    limit: int,
    most_chars: int = _UNLIMITED,
    lane: FeedLane | None = None,
) -> list[Fed]:
    """Return the next changes after `sequence`, at most `limit`, in order; those of a lane, or all.

    They end with the text by which `most_chars` are reached. A text that is not UTF-8 any more is read with a mark in
    place of what is not, so that a damaged record holds up nothing behind it.
    """
    made_here = "made_here" if succession.has_columns(connection) else "NULL"
    clauses = ["sequence > ?"]
    values: list[int | str | bytes | None] = [sequence]
    if lane is not None:
        clauses.append("+namespace = ?")  # + makes SQLite read in the order of sequences
        values.append(lane.namespace)
    gone = connection.execute(
        f"SELECT sequence, id, namespace FROM deletions WHERE {' AND '.join(clauses)} ORDER BY sequence LIMIT ?",
        (*values, limit),
    ).fetchall()
    if lane is not None and lane.is_of_owner:
        clauses.append("+owner IS ?")
        values.append(lane.owner)
    stored = connection.execute(
        "SELECT sequence, id, namespace, CAST(text AS BLOB),"
        f" CAST(CASE WHEN json_valid(metadata) THEN json_extract(metadata, '$.text') END AS BLOB), {made_here}, owner"
        f" FROM records WHERE {' AND '.join(clauses)} ORDER BY sequence LIMIT ?",
        (*values, limit),
    )
    changes: list[Fed] = []
    chars, upto = 0, None
    for row in stored:
        made = None if row[5] is None else bool(row[5])
        changes.append(TextStored(row[0], row[1], row[2], _text(row[3]), _text(row[4]), made, row[6]))
        chars += len(row[3] or b"") + len(row[4] or b"")
        if chars >= most_chars:
            upto = row[0]
            break
    changes += [TextGone(*row) for row in gone if upto is None or row[0] < upto]
    return sorted(changes, key=lambda change: change.sequence)[:limit]


def ids_of(connection: sqlite3.Connection) -> Sequence[int]:
    """Return the ids of all records, in order."""
    return [row[0] for row in connection.execute("SELECT id FROM records ORDER BY id")]


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")
