"""Vectors of the windows of long texts, in a file that can be built anew.

A row has all windows of one record behind one another, as f32 little-endian unit vectors. A search reads those of its
namespace and takes the best of each record: 0.1 s for 100,000 windows. Blocking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final, final

import numpy as np

from engram.durable import erasing
from engram.durable.driver import sqlite3
from engram.memory.search import derived_file
from engram.memory.search.derived_file import transaction

FILE: Final = "windows.db"
_AT_ONCE: Final = 512
"""Records whose windows are compared at once: at most 32 MB of 384 numbers each."""
_FORMAT: Final = "2"
_MARK_BYTES: Final = 8
_LEAST_NORM, _LARGEST_NORM = 0.99, 1.01
_SCHEMA: Final = """
CREATE TABLE windows (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    vectors BLOB NOT NULL,
    mark BLOB NOT NULL
) STRICT;
CREATE INDEX windows_of ON windows (namespace, id);
INSERT INTO meta (key, value) VALUES ('rows', '0')
"""


@final
class WindowsDb:
    """The writing side; one thread at a time."""

    def __init__(self, path: Path, truth_id: str, model: str, dimension: int) -> None:
        """Open the file for the truth and the model of those names, making it new when it is missing, damaged or of
        others. Raises sqlite3.Error, OSError."""
        self._path = path
        self._facts = {"format": _FORMAT, "truth_id": truth_id, "model": model, "dimension": str(dimension)}
        self._raw = derived_file.opened(path, _SCHEMA, self._facts)
        if lost(self._raw):
            self._raw.close()
            self._raw = derived_file.new(path, _SCHEMA, self._facts)
        self.sequence = derived_file.sequence_of(self._raw)
        """The last change that was applied."""
        self.is_unclean = True
        """Whether the files may hold windows of deleted records."""

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def reset(self) -> None:
        """Forget everything: the file is made anew."""
        self._raw.close()
        self._raw = derived_file.new(self._path, _SCHEMA, self._facts)
        self.sequence = 0

    def put(self, number: int, namespace: str, vectors: bytes) -> None:
        """Store the windows of a record."""
        with transaction(self._raw):
            before = self._raw.execute("DELETE FROM windows WHERE id = ?", (number,)).rowcount
            row = (number, namespace, vectors, _mark(number, namespace, vectors))
            self._raw.execute("INSERT INTO windows VALUES (?, ?, ?, ?)", row)
            self._count(1 - before)

    def has(self, number: int) -> bool:
        """Return whether there are windows of a record."""
        return self._raw.execute("SELECT 1 FROM windows WHERE id = ?", (number,)).fetchone() is not None

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove the windows of records."""
        with transaction(self._raw):
            for number in numbers:
                if self._raw.execute("DELETE FROM windows WHERE id = ?", (number,)).rowcount:
                    self.is_unclean = True
                    self._count(-1)

    def keep_only(self, numbers: AbstractSet[int]) -> None:
        """Remove the windows of all records but these."""
        there = [row[0] for row in self._raw.execute("SELECT id FROM windows")]
        self.remove([number for number in there if number not in numbers])

    def note(self, sequence: int) -> None:
        """Store that the file is at `sequence`."""
        with transaction(self._raw):
            derived_file.note_sequence(self._raw, sequence)
        self.sequence = sequence

    def clear(self) -> bool:
        """Remove what was deleted from the file and its log; False when a reader or the disk prevented it."""
        self.is_unclean = not erasing.cleared(self._raw, self._path, erasing.COMPACTED_UP_TO)
        return not self.is_unclean

    def _count(self, more: int) -> None:
        self._raw.execute("UPDATE meta SET value = CAST(value AS INTEGER) + ? WHERE key = 'rows'", (more,))


def is_of_this_format(connection: sqlite3.Connection) -> bool:
    """Return whether the file is one that this program writes; another one is made anew when the node starts."""
    return derived_file.fact(connection, "format") == _FORMAT


def lost(connection: sqlite3.Connection) -> int:
    """Return how many records' windows are missing from the file, below 0 for too many. Raises sqlite3.Error."""
    there = connection.execute("SELECT count(*) FROM windows").fetchone()[0]
    return int(derived_file.fact(connection, "rows") or 0) - int(there)


def damaged(connection: sqlite3.Connection) -> list[int]:
    """Return the ids of the records whose windows are not what was stored, or are no unit vectors.

    Raises sqlite3.Error.
    """
    size = 4 * int(derived_file.fact(connection, "dimension") or 0)
    found = []
    for number, namespace, vectors, mark in connection.execute("SELECT id, namespace, vectors, mark FROM windows"):
        if not vectors or not size or len(vectors) % size or mark != _mark(number, namespace, vectors):
            found.append(number)
            continue
        norms = np.linalg.norm(np.frombuffer(vectors, dtype="<f4").reshape(-1, size // 4), axis=1)
        if not ((norms > _LEAST_NORM) & (norms < _LARGEST_NORM)).all():
            found.append(number)
    return found


def find(connection: sqlite3.Connection, namespace: str, query: bytes) -> dict[int, float]:
    """Return the cosine of the best window by record id, best first. Raises sqlite3.Error."""
    vector = np.frombuffer(query, dtype="<f4").astype(np.float32)
    norm = float(np.linalg.norm(vector))
    found: list[tuple[float, int]] = []
    rows = connection.execute("SELECT id, vectors FROM windows WHERE namespace = ?", (namespace,))
    while some := rows.fetchmany(_AT_ONCE):
        counts = [len(vectors) // len(query) for _, vectors in some]
        joined = np.frombuffer(b"".join(vectors for _, vectors in some), dtype="<f4").reshape(-1, len(vector))
        starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
        best = np.maximum.reduceat(joined @ vector, starts) / norm
        found += [(float(score), number) for score, (number, _) in zip(best, some, strict=True)]
    found.sort(key=lambda each: (-each[0], each[1]))
    return {number: max(-1.0, min(1.0, score)) for score, number in found}


def _mark(number: int, namespace: str, vectors: bytes) -> bytes:
    """Return the checksum of a row."""
    return hashlib.blake2b(vectors, digest_size=_MARK_BYTES, key=f"{number}:{namespace}".encode()[:64]).digest()
