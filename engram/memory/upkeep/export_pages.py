"""Exports rows of a node's databases as plain documents, in pages that are bounded in rows and bytes.

The same documents go over HTTP to the controller and into files for the operator, by `kind`:

| kind | fields |
|---|---|
| record | namespace, is_public, cid, text, metadata, model_version, owner, created_at, embedding_b64; key, supersedes |
| | expires_at, superseded_by where they are set |
| conversation | owner, user_id, conv_id, title, created_at, updated_at, messages |
| key_share | owner, namespace, share_index, share_hex, threshold, total, stored_at |
| attestation | namespace, owner, attested_at |

Owners are public keys in hex, times unix seconds, vectors f32 little-endian.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from engram.durable.driver import sqlite3
from engram.memory.model import PUBLIC
from engram.memory.store import succession
from engram.memory.upkeep import data_files
from engram.memory.upkeep.data_files import NOTEBOOK, TRUTH, Progress

Kind = Literal["record", "conversation", "key_share", "attestation"]
Document = dict[str, object]
KINDS: Final[tuple[Kind, ...]] = ("record", "conversation", "key_share", "attestation")
MOST_ROWS: Final = 500
MOST_BYTES: Final = 1_048_576
"""The most bytes of JSON in a page; a larger document gets its own page."""
_FILE_PAGE = 256
_OWNERS_HEX = "CASE WHEN typeof(owner) = 'blob' THEN lower(hex(owner)) ELSE owner END"


_VALIDITY: Final = ("key", "supersedes", "expires_at", "superseded_by")


class Source(msgspec.Struct, frozen=True):
    """Where the rows of a kind are."""

    table: str
    columns: str
    controllers: str
    """The condition for rows of the controller, whose public key is `?` (blob) and `?` (hex)."""


SOURCES: Final[dict[Kind, Source]] = {
    "record": Source(
        "records",
        "namespace, cid, text, metadata, model_version, lower(hex(owner)) AS owner, created_at, embedding",
        # Names of other tenants' namespaces begin with their owner and a colon.
        "instr(namespace, ':') = 0 AND ? IS NOT NULL AND ? IS NOT NULL",
    ),
    "conversation": Source(
        "conversations",
        f"{_OWNERS_HEX} AS owner, user_id, conv_id, title, created_at, updated_at, messages",
        "(owner = ? OR owner = ?)",
    ),
    "key_share": Source(
        "key_shares",
        f"{_OWNERS_HEX} AS owner, namespace, share_index, share_hex, threshold, total, stored_at",
        "(owner = ? OR owner = ?)",
    ),
    "attestation": Source(
        "attestations", f"namespace, {_OWNERS_HEX} AS owner, attested_at", "(owner = ? OR owner = ?)"
    ),
}


class Page(msgspec.Struct, frozen=True):
    """A page of documents; `next` is the number to continue after, None on the last page."""

    documents: list[Document]
    next: int | None


def page(connection: sqlite3.Connection, kind: Kind, after: int, limit: int, controller: bytes) -> Page:
    """Return the next rows after number `after` that the controller may export: everything public and its own."""
    source = SOURCES[kind]
    return _page(connection, kind, after, limit, f" AND {source.controllers}", (controller, controller.hex()))


def everything(data: Path, on_progress: Progress = lambda done, total: None) -> Iterator[Document]:
    """Yield every document of a node's folder, each database from one snapshot; the node may run.

    `on_progress` is called with the records yielded and in all. Raises StoreDamaged, TruthUnavailable.
    """
    with data_files.reading(data / TRUTH) as connection:
        (total,) = connection.execute("SELECT count(*) FROM records").fetchone()
        for done, document in enumerate(_all(connection, "record"), 1):
            yield document
            if done % _FILE_PAGE == 0 or done == total:
                on_progress(done, total)
    if (data / NOTEBOOK).exists():
        with data_files.reading(data / NOTEBOOK) as connection:
            for kind in KINDS[1:]:
                yield from _all(connection, kind)


def _all(connection: sqlite3.Connection, kind: Kind) -> Iterator[Document]:
    after: int | None = 0
    while after is not None:
        found = _page(connection, kind, after, _FILE_PAGE, "", ())
        yield from found.documents
        after = found.next


def _page(
    connection: sqlite3.Connection, kind: Kind, after: int, limit: int, condition: str, values: Sequence[object]
) -> Page:
    source = SOURCES[kind]
    columns = source.columns
    if kind == "record" and succession.has_columns(connection):
        columns += "".join(f", {column}" for column in _VALIDITY)
    rows = connection.execute(
        f"SELECT rowid AS id, {columns} FROM {source.table} WHERE rowid > ?{condition} ORDER BY rowid LIMIT ?",
        (after, *values, limit),
    )
    names = [column[0] for column in rows.description]
    documents: list[Document] = []
    size = 0
    for row in rows:
        document = _SHAPES[kind](dict(zip(names, row, strict=True)))
        size += len(msgspec.json.encode(document))
        if documents and size > MOST_BYTES:
            return Page(documents, _number(documents[-1]))
        documents.append({"kind": kind, **document})
    return Page(documents, _number(documents[-1]) if len(documents) == limit else None)


def _number(document: Document) -> int:
    return int(str(document["id"]))


def _record(row: Document) -> Document:
    embedding, metadata = row.pop("embedding"), row.pop("metadata")
    row = {name: value for name, value in row.items() if value is not None or name not in _VALIDITY}
    if not isinstance(embedding, bytes):
        raise sqlite3.DatabaseError(f"the vector of record {row['id']} is none")
    return row | {
        "owner": row["owner"] or None,
        "is_public": row["namespace"] == PUBLIC,
        "metadata": json.loads(str(metadata)),
        "embedding_b64": base64.b64encode(embedding).decode(),
    }


def _conversation(row: Document) -> Document:
    return row | {"messages": json.loads(str(row["messages"]))}


def _as_it_is(row: Document) -> Document:
    return row


_SHAPES: Final[dict[Kind, Callable[[Document], Document]]] = {
    "record": _record,
    "conversation": _conversation,
    "key_share": _as_it_is,
    "attestation": _as_it_is,
}
