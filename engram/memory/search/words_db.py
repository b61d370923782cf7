"""The words of a node's texts: SQLite FTS5, a table for each namespace, in a file that can be built anew.

Statistics of an FTS5 table are of all its rows, so namespaces share no table: what one stores changes neither the order
nor the time of another's searches. The tables hold no texts, only where words stand in them; 0.5 bytes for a byte of
text. What is applied and up to which change it goes is one transaction; the file is not synced with each, for what a
power failure takes from it is read again from the truth. Words of deleted records leave the file by `clear`. Blocking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from engram.durable import erasing
from engram.durable.driver import sqlite3
from engram.memory.search import derived_file, terms
from engram.memory.search.derived_file import transaction
from engram.memory.search.feed import Fed, TextStored
from engram.memory.search.following import Cleared

FILE: Final = "words.db"
LEAST_SQLITE: Final = (3, 43, 0)
"""The release that can delete from tables without content."""
FIRST_RANKED: Final = 1_000
"""How many records with a word are ranked unless more are asked for."""
_FORMAT: Final = "2"
_SCHEMA: Final = """
CREATE TABLE namespaces (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE unclean (
    number INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0
) STRICT
"""
_PAGES_MERGED: Final = 16
"""Pages that are rewritten at once, in 5 ms."""
_COMPACTED_UP_TO: Final = 8 * 1024**2
TOKENS: Final = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"


@final
class WordsDb:
    """The writing side; one thread at a time."""

    def __init__(self, path: Path, truth_id: str) -> None:
        """Open the file for the truth of that id, making it new when it is missing, damaged or another truth's.

        Raises sqlite3.Error, OSError.
        """
        self._path = path
        self._facts = {"format": _FORMAT, "truth_id": truth_id}
        self._raw = derived_file.opened(path, _SCHEMA, self._facts)
        self.sequence = derived_file.sequence_of(self._raw)
        """The last change that was applied."""
        self._merged: set[int] = set()
        """The unclean tables that have no words of deleted records any more."""
        self._begun: int | None = None
        self._settle()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def reset(self) -> None:
        """Forget everything: the file is made anew."""
        self._raw.close()
        self._raw = derived_file.new(self._path, _SCHEMA, self._facts)
        self.sequence = 0
        self._merged.clear()
        self._begun = None

    def apply(self, changes: Sequence[Fed], sequence: int) -> None:
        """Make the changes, those that are not made yet; afterwards the file is at `sequence`.

        Raises sqlite3.Error; nothing is changed then.
        """
        with transaction(self._raw):
            for change in changes:
                if not isinstance(change, TextStored):
                    self._remove(change.namespace, change.id)
                elif words := change.words:
                    table = f"words_{self._number(change.namespace)}"
                    if not self._has(table, change.id):
                        row = (change.id, terms.indexed(words))
                        self._raw.execute(f"INSERT INTO {table} (rowid, text) VALUES (?, ?)", row)
            derived_file.note_sequence(self._raw, sequence)
        if any(not isinstance(change, TextStored) for change in changes):
            self._settle()
        self.sequence = sequence

    def is_unclean(self) -> bool:
        """Return whether the file may hold words of deleted records."""
        return self._raw.execute("SELECT 1 FROM unclean LIMIT 1").fetchone() is not None

    def clear(self) -> Cleared:
        """Go on removing the words of deleted records from the files, for some milliseconds.

        Each namespace that had deletions is rewritten, page by page: an index of words does not know those of a record
        that is gone. A file of up to 8 MiB is then rewritten too.
        """
        try:
            unclean = "SELECT number FROM namespaces JOIN unclean USING (number)"
            for (number,) in self._raw.execute(unclean).fetchall():
                if number not in self._merged:
                    self._merge(number)
                    return "more"
            if not erasing.cleared(self._raw, self._path, _COMPACTED_UP_TO):
                return "later"
            self._raw.execute("DELETE FROM unclean")
            self._merged.clear()
        except sqlite3.Error:
            return "later"
        return "done"

    def _merge(self, number: int) -> None:
        """Rewrite some more pages of a table. Raises sqlite3.Error."""
        pages, command = _PAGES_MERGED, f"INSERT INTO words_{number} (words_{number}, rank) VALUES (?, ?)"
        with transaction(self._raw):
            if self._begun != number:
                self._raw.execute(command, ("usermerge", 2))
                pages = -pages  # begins to merge all of the table
            before = self._raw.total_changes
            self._raw.execute(command, ("merge", pages))
            is_done = self._raw.total_changes - before < 2  # as FTS5 says that nothing is left
        self._begun = None if is_done else number
        if is_done:
            self._merged.add(number)

    def _remove(self, namespace: str, number: int) -> None:
        row = self._raw.execute("SELECT number FROM namespaces WHERE name = ?", (namespace,)).fetchone()
        if row is None:
            return
        table = f"words_{row[0]}"
        if not self._has(table, number):
            return
        self._merged.discard(row[0])
        self._begun = None if self._begun == row[0] else self._begun
        (size,) = self._raw.execute(f"SELECT sz FROM {table}_docsize WHERE id = ?", (number,)).fetchone()
        self._raw.execute(
            "INSERT INTO unclean (number, rows, tokens) VALUES (?, 1, ?)"
            " ON CONFLICT (number) DO UPDATE SET rows = rows + 1, tokens = tokens + excluded.tokens",
            (row[0], _read_varints(size)[0]),
        )
        self._raw.execute(f"DELETE FROM {table} WHERE rowid = ?", (number,))
        if self._raw.execute(f"SELECT 1 FROM {table}_docsize LIMIT 1").fetchone() is None:
            self._raw.execute(f"DROP TABLE {table}")
            self._raw.execute("DELETE FROM namespaces WHERE number = ?", row)

    def _settle(self) -> None:
        """Take what was deleted out of the statistics of its tables: a table without content goes on counting it.

        Its record 1 has the number of rows and of tokens; FTS5 reads it anew in each transaction.
        """
        owed = "SELECT number, rows, tokens FROM unclean JOIN namespaces USING (number) WHERE rows > 0"
        with transaction(self._raw):
            for number, rows, tokens in self._raw.execute(owed).fetchall():
                (block,) = self._raw.execute(f"SELECT block FROM words_{number}_data WHERE id = 1").fetchone()
                all_rows, all_tokens = _read_varints(block)
                left = _varint(max(0, all_rows - rows)) + _varint(max(0, all_tokens - tokens))
                self._raw.execute(f"UPDATE words_{number}_data SET block = ? WHERE id = 1", (left,))
            self._raw.execute("UPDATE unclean SET rows = 0, tokens = 0")

    def _has(self, table: str, number: int) -> bool:
        return self._raw.execute(f"SELECT 1 FROM {table}_docsize WHERE id = ?", (number,)).fetchone() is not None

    def _number(self, namespace: str) -> int:
        """Return the number of a namespace's table, which is made when there is none."""
        row = self._raw.execute("SELECT number FROM namespaces WHERE name = ?", (namespace,)).fetchone()
        if row is not None:
            return int(row[0])
        number = self._raw.execute("INSERT INTO namespaces (name) VALUES (?)", (namespace,)).lastrowid
        assert number is not None
        self._raw.execute(
            f"CREATE VIRTUAL TABLE words_{number} USING fts5("
            f"text, content='', contentless_delete=1, tokenize=\"{TOKENS}\")"
        )
        return number


def find(connection: sqlite3.Connection, namespace: str, expression: str, most: int = FIRST_RANKED) -> dict[int, float]:
    """Return BM25 by record id, best first, of at most `most` records of a namespace that have any of the words.

    The better the higher, always above 0. `expression` is made by `terms.expression`. Raises sqlite3.Error.
    """
    if not expression:
        return {}
    row = connection.execute("SELECT number FROM namespaces WHERE name = ?", (namespace,)).fetchone()
    if row is None:
        return {}
    table = f"words_{row[0]}"
    found = connection.execute(
        f"SELECT rowid, -rank FROM {table} WHERE {table} MATCH ? ORDER BY rank LIMIT ?", (expression, most)
    )
    return dict(found)


def _read_varints(block: bytes) -> list[int]:
    """Return the numbers of a block as SQLite writes them: seven bits a byte, the highest first."""
    numbers, number = [], 0
    for byte in block:
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(number)
            number = 0
    return numbers


def _varint(number: int) -> bytes:
    """Return a number below 2**56 as SQLite writes it."""
    written = [number & 0x7F]
    while number := number >> 7:
        written.append(number & 0x7F | 0x80)
    return bytes(reversed(written))
