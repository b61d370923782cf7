"""The database of the truth: schema and statements. Plain functions on a SQLite connection.

`sequence` numbers every change, puts and deletes alike; the index follows the truth by it. A deletion is kept until
the index has flushed past it; the row itself is overwritten with zeros at once
(secure_delete), so that erased content cannot be read from the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from engram import wire
from engram.durable.database import is_undecodable, text_of
from engram.durable.driver import sqlite3
from engram.memory.filters import Condition, Filter
from engram.memory.model import PUBLIC, Change, Counts, Deleted, Entry, Excerpt, Record, Upserted, Validity
from engram.memory.store import succession

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    cid TEXT NOT NULL,
    embedding BLOB NOT NULL,
    text TEXT,
    metadata TEXT NOT NULL,
    model_version TEXT NOT NULL,
    owner BLOB,
    created_at REAL NOT NULL,
    sequence INTEGER NOT NULL UNIQUE,
    UNIQUE (namespace, cid)
) STRICT;
CREATE INDEX records_listing ON records (namespace, id);
CREATE TABLE deletions (sequence INTEGER PRIMARY KEY, id INTEGER NOT NULL, namespace TEXT NOT NULL) STRICT;
"""
REFERENCES: Final = ("_ref", "_group")
"""Metadata keys for a client's own references; a lookup by them uses an index instead of reading the namespace."""
DAMAGED = (msgspec.MsgspecError, json.JSONDecodeError, UnicodeDecodeError)
"""Errors of decoding a row that SQLite itself read without error."""
Row: TypeAlias = tuple[
    *tuple[int, str, str, bytes, str | None, str, str, bytes | None, float, int],
    *tuple[str | None, str | None, float | None, int | None, str | None],
]
"""The columns of a record in the database; see `of_row`."""
RETIRED_INDEXES: Final = ("records_ref", "records_group")
"""Indexes built by an older SQLite (3.40), which cut JSON text at its first NUL; replaced under new names."""
_COLUMNS = (
    "id, namespace, cid, embedding, text, metadata, model_version, owner, created_at, sequence,"
    " key, supersedes, expires_at, made_here, superseded_by"
)
_EXCERPT = "id, cid, text, metadata, owner, key, supersedes, expires_at, superseded_by"
_decode_metadata = wire.decoder(dict[str, str]).decode


def create_schema(connection: sqlite3.Connection, truth_id: str) -> None:
    """Create the tables of a new database in the caller's transaction. `truth_id` identifies this truth for good."""
    create_first(connection, truth_id)
    succession.add_columns(connection)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def create_first(connection: sqlite3.Connection, truth_id: str) -> None:
    """Create the tables as they were in schema version 1; `succession.add_columns` is the step to version 2."""
    for statement in _SCHEMA.split(";"):
        if statement.strip():
            connection.execute(statement)
    index_references(connection)
    facts = {"truth_id": truth_id, "sequence": "0", "pruned_to": "0"}
    connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", facts.items())


def index_references(connection: sqlite3.Connection) -> None:
    """Create the indexes of references, also in a database from before they existed."""
    for name in RETIRED_INDEXES:
        connection.execute(f"DROP INDEX IF EXISTS {name}")
    for key in REFERENCES:
        connection.execute(
            f"CREATE INDEX IF NOT EXISTS records_by{key} ON records (namespace, {_reference(key)})"
            f" WHERE {_reference(key)} IS NOT NULL"
        )


def read_meta(connection: sqlite3.Connection, key: str) -> str | None:
    """Return one fact about the database itself."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def write_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Set one fact about the database itself."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def last_sequence(connection: sqlite3.Connection) -> int:
    """Return the number of the last change."""
    return int(read_meta(connection, "sequence") or 0)


def put(connection: sqlite3.Connection, entry: Entry, now: float) -> Record:
    """Store an entry, as `put_all` does."""
    return put_all(connection, [entry], now)[0][0]


def put_all(connection: sqlite3.Connection, entries: Sequence[Entry], now: float) -> tuple[list[Record], list[Change]]:
    """Store entries; return their records and the changes.

    An entry that exists under the same namespace and CID stays and is no change, unless its validity replaces it
    (engram.memory.store.succession).
    """
    found: list[Record] = []
    changes: list[Change] = []
    before = last_sequence(connection)
    for entry in entries:
        record = _insert(connection, entry, before + len(changes) + 1, now)
        if record is None:
            there = get(connection, entry.namespace, entry.cid)
            assert there is not None
            newer = succession.replacement(there, entry, now)
            if newer is None:
                found.append(there)
                continue
            changes.append(_delete(connection, there, before + len(changes) + 1))
            record = _insert(connection, newer, before + len(changes) + 1, now)
            assert record is not None
        found.append(record)
        succession.supersede(connection, record)
        stored = (record.namespace, record.embedding, record.metadata, record.cid, record.owner)
        changes.append(Upserted(record.sequence, record.id, *stored))
    if changes:
        _set_sequence(connection, before + len(changes))
    return found, changes


def delete(connection: sqlite3.Connection, namespace: str, cid: str) -> tuple[Deleted | None, list[Deleted]]:
    """Delete a record; return the deletion (None: there was no record), also as the list of changes."""
    record = get(connection, namespace, cid)
    if record is None:
        return None, []
    sequence = last_sequence(connection) + 1
    _set_sequence(connection, sequence)
    change = _delete(connection, record, sequence)
    return change, [change]


def get(connection: sqlite3.Connection, namespace: str, cid: str) -> Record | None:
    """Return the record stored under that namespace and CID."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM records WHERE namespace = ? AND cid = ?", (namespace, cid)
    ).fetchone()
    return None if row is None else of_row(row)


def by_ids(
    connection: sqlite3.Connection, namespace: str, ids: Sequence[int], current_at: float | None = None
) -> dict[int, Excerpt]:
    """Return the records with these ids that exist in that namespace; with a time, only those that are current then."""
    # + makes SQLite look up the few ids instead of walking the index of namespaces
    clauses = f"+namespace = ? AND id IN ({_marks(ids)})"
    values: list[str | int | float] = [namespace, *ids]
    if current_at is not None:
        clauses += f" AND {succession.CURRENT}"
        values.append(current_at)
    rows = connection.execute(f"SELECT {_EXCERPT} FROM records WHERE {clauses}", values)
    return {row[0]: _excerpt(row) for row in rows}


class Candidate(msgspec.Struct, frozen=True):
    """A record that may be found, with what it is ranked by. `created_at` is unix seconds."""

    record: Excerpt
    embedding: bytes
    created_at: float


def candidates(
    connection: sqlite3.Connection, namespace: str, ids: Sequence[int], conditions: Filter, now: float
) -> dict[int, Candidate]:
    """Return the records with these ids that exist in that namespace and meet `conditions` at that time."""
    clauses = f"+namespace = ? AND id IN ({_marks(ids)})"
    values: list[str | int | float] = [namespace, *ids]
    if conditions.current:
        clauses += f" AND {succession.CURRENT}"
        values.append(now)
    rows = connection.execute(f"SELECT {_EXCERPT}, embedding, created_at FROM records WHERE {clauses}", values)
    found = {row[0]: Candidate(_excerpt(row), row[-2], row[-1]) for row in rows}
    return {number: each for number, each in found.items() if conditions.holds(each.record.metadata)}


def embedding_of(connection: sqlite3.Connection, number: int) -> bytes | None:
    """Return the vector of the record with that id."""
    row = connection.execute("SELECT embedding FROM records WHERE id = ?", (number,)).fetchone()
    return None if row is None else row[0]


def of_row(row: Row) -> Record:
    """Return the record of a row."""
    number, namespace, cid, embedding, text, metadata, model_version, owner, created_at, sequence = row[:10]
    key, supersedes, expires_at, made_here, superseded_by = row[10:]
    return Record(
        *(number, namespace, cid, embedding, text, _decode_metadata(metadata), model_version, owner, created_at),
        sequence=sequence,
        validity=Validity(key, supersedes, expires_at),
        made_here=None if made_here is None else bool(made_here),
        superseded_by=superseded_by,
    )


def page(
    connection: sqlite3.Connection,
    namespace: str,
    conditions: Filter,
    limit: int,
    offset: int = 0,
    *,
    after: int = 0,
    key: str | None = None,
    now: float = 0.0,
) -> list[Record]:
    """Return a page of a namespace, oldest first: records behind id `after` whose metadata meet `conditions`.

    With `key`, only the versions of that key; `now` is the time at which records are current, if that is a condition.
    """
    clauses, order, values = _selection(connection, namespace, conditions, after, key, now)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM records WHERE {clauses} ORDER BY {order} LIMIT ? OFFSET ?", (*values, limit, offset)
    )
    return [of_row(row) for row in rows]


def vectors(
    connection: sqlite3.Connection, namespace: str, conditions: Filter, limit: int, after: int, now: float
) -> list[tuple[int, bytes]]:
    """Return ids and vectors of a page of a namespace, as `page` selects and orders it."""
    clauses, order, values = _selection(connection, namespace, conditions, after, None, now)
    found: list[tuple[int, bytes]] = connection.execute(
        f"SELECT id, embedding FROM records WHERE {clauses} ORDER BY {order} LIMIT ?", (*values, limit)
    ).fetchall()
    return found


def _selection(
    connection: sqlite3.Connection, namespace: str, conditions: Filter, after: int, key: str | None, now: float
) -> tuple[str, str, list[str | int | float]]:
    """Return the condition of a page, what it is ordered by, and the condition's values."""
    clauses, order = ["namespace = ?", "id > ?"], "id"
    values: list[str | int | float] = [namespace, after]
    if key is not None:
        clauses.append("key = ?")
        values.append(key)
        order = "+id"  # otherwise SQLite reads the whole namespace in this order and not the index of keys
    if conditions.current:
        clauses.append(succession.CURRENT)
        values.append(now)
    for number, condition in enumerate(conditions.conditions):
        if condition.range is not None:
            function = f"engram_within_{number}"
            connection.create_function(function, 1, condition.admits, deterministic=True)
            within = f"entry.key = ? AND {function}(entry.value)"
            clauses.append(f"EXISTS (SELECT 1 FROM json_each(metadata) AS entry WHERE {within})")
            values.append(condition.key)
            continue
        if condition.values is not None and condition.key in REFERENCES:
            clauses.append(f"{_reference(condition.key)} IN ({_marks(condition.values)})")
            order = "+id"  # otherwise SQLite reads the whole namespace in this order and not the index of references
        else:
            values.append(condition.key)
            clauses.append(f"EXISTS (SELECT 1 FROM json_each(metadata) AS entry WHERE {_entry(condition)})")
        values += condition.values or ()
    return " AND ".join(clauses), order, values


def count(connection: sqlite3.Connection) -> Counts:
    """Return how many records there are."""
    public = connection.execute("SELECT count(*) FROM records WHERE namespace = ?", (PUBLIC,)).fetchone()[0]
    everything = connection.execute("SELECT count(*) FROM records").fetchone()[0]
    return Counts(public=public, private=everything - public)


def changes_since(connection: sqlite3.Connection, sequence: int, limit: int) -> list[Change]:
    """Return the next changes after `sequence`, at most `limit`, in order. A record put and deleted since then
    shows as deleted only."""
    puts = connection.execute(
        "SELECT sequence, id, namespace, embedding, metadata FROM records WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    changes: list[Change] = [Upserted(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in puts]
    gone = connection.execute(
        "SELECT sequence, id, namespace FROM deletions WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    changes += [Deleted(row[0], row[1], row[2]) for row in gone]
    return sorted(changes, key=lambda change: change.sequence)[:limit]


def vectors_after(connection: sqlite3.Connection, after: int, limit: int, *, private: bool) -> list[Upserted]:
    """Return the next public (or all private) records with an id above `after`, by id, at most `limit`."""
    rows = connection.execute(
        "SELECT sequence, id, namespace, embedding, metadata FROM records"
        f" WHERE namespace {'<>' if private else '='} ? AND id > ? ORDER BY id LIMIT ?",
        (PUBLIC, after, limit),
    )
    return [Upserted(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in rows]


def public_leaves(connection: sqlite3.Connection) -> Iterator[tuple[str, bytes]]:
    """Return CID and vector bytes of every public record."""
    rows: Iterable[tuple[str, bytes]] = connection.execute(
        "SELECT cid, embedding FROM records WHERE namespace = ?", (PUBLIC,)
    )
    yield from rows


def prune(connection: sqlite3.Connection, sequence: int) -> tuple[None, list[Deleted]]:
    """Drop the list of deletions up to `sequence`, which the index has on disk. This is no change for the index."""
    connection.execute("DELETE FROM deletions WHERE sequence <= ?", (sequence,))
    if sequence > int(read_meta(connection, "pruned_to") or 0):
        write_meta(connection, "pruned_to", str(sequence))
    return None, []


def note(connection: sqlite3.Connection, facts: Mapping[str, str]) -> tuple[None, list[Deleted]]:
    """Store facts about the node. This is no change for the index."""
    for key, value in facts.items():
        write_meta(connection, key, value)
    return None, []


def fault_of(error: Exception) -> str:
    """Return the error of a damaged row without any stored content: SQLite's driver quotes text that it cannot
    decode."""
    if not is_damage(error):
        return str(error)
    reason = text_of(error) if is_undecodable(error) else str(error)
    return f"a record is damaged ({reason}): `engram miner verify` names it"


def is_damage(error: Exception) -> bool:
    """Return whether only a row is unreadable, and not the database as a whole."""
    return isinstance(error, DAMAGED) or is_undecodable(error)


def _excerpt(row: Sequence[Any]) -> Excerpt:
    number, cid, text, metadata, owner, key, supersedes, expires_at, superseded_by = row[:9]
    validity = Validity(key, supersedes, expires_at)
    return Excerpt(number, cid, text, _decode_metadata(metadata), owner, validity, superseded_by)


def _entry(condition: Condition) -> str:
    return "entry.key = ?" + ("" if condition.values is None else f" AND entry.value IN ({_marks(condition.values)})")


def _reference(key: str) -> str:
    """Return the expression that SQLite indexes; it is null for a row with damaged metadata."""
    return f"CASE WHEN json_valid(metadata) THEN json_extract(metadata, '$.{key}') END"


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _insert(connection: sqlite3.Connection, entry: Entry, sequence: int, now: float) -> Record | None:
    """Store an entry; return None when it exists already."""
    encoded = json.dumps(entry.metadata, ensure_ascii=False, separators=(",", ":"))
    validity = entry.validity
    cursor = connection.execute(
        "INSERT INTO records (namespace, cid, embedding, text, metadata, model_version, owner, created_at, sequence,"
        " key, supersedes, expires_at, made_here, superseded_by)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, cid) DO NOTHING",
        (
            *(entry.namespace, entry.cid, entry.embedding, entry.text, encoded),
            *(entry.model_version, entry.owner, now, sequence),
            *(validity.key, validity.supersedes, validity.expires_at, entry.made_here, entry.superseded_by),
        ),
    )
    if cursor.rowcount == 0:
        return None
    number = cursor.lastrowid
    assert number is not None
    return Record(
        id=number,
        namespace=entry.namespace,
        cid=entry.cid,
        embedding=entry.embedding,
        text=entry.text,
        metadata=entry.metadata,
        model_version=entry.model_version,
        owner=entry.owner,
        created_at=now,
        sequence=sequence,
        validity=validity,
        made_here=entry.made_here,
        superseded_by=entry.superseded_by,
    )


def _delete(connection: sqlite3.Connection, record: Record, sequence: int) -> Deleted:
    connection.execute("DELETE FROM records WHERE id = ?", (record.id,))
    connection.execute(
        "INSERT INTO deletions (sequence, id, namespace) VALUES (?, ?, ?)", (sequence, record.id, record.namespace)
    )
    return Deleted(sequence, record.id, record.namespace, record.cid, record.embedding)


def _set_sequence(connection: sqlite3.Connection, sequence: int) -> None:
    connection.execute("UPDATE meta SET value = ? WHERE key = 'sequence'", (str(sequence),))
