"""A node's folder as an archive finds it: real databases, filled by the store's own statements."""

import struct
from contextlib import closing
from pathlib import Path

from engram.durable.driver import sqlite3
from engram.hotkeys import Keypair
from engram.memory import cid
from engram.memory.model import PUBLIC, Entry
from engram.memory.store import attestations, conversations, key_shares, record_sql
from engram.memory.store.attestations import Attestation
from engram.memory.store.conversations import Message
from engram.memory.store.key_shares import KeptShare
from engram.memory.store.notebook_db import Notebook
from engram.memory.upkeep.data_files import NOTEBOOK, TRUTH

OWNER = Keypair.from_seed(b"\x07" * 32)
STRANGER = Keypair.from_seed(b"\x08" * 32)
DIMENSION = 8


def entry(number: int, namespace: str = PUBLIC, text: str | None = None, owner: bytes | None = None) -> Entry:
    embedding = struct.pack(f"<{DIMENSION}f", *(float(number * 31 % 97 + at) for at in range(DIMENSION)))
    metadata = {"n": str(number)}
    found = cid.compute(embedding, metadata)
    return Entry(namespace, found, embedding, text or f"text {number} of {namespace}", metadata, "v1", owner)


class Node:
    """The stores of a stopped node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        with closing(sqlite3.connect(folder / TRUTH)) as truth:
            truth.execute("PRAGMA journal_mode = WAL")
            with truth:
                record_sql.create_schema(truth, "00000000-0000-4000-8000-000000000000")
        Notebook.open(folder / NOTEBOOK).close()

    def put(self, *entries: Entry, now: float = 1_000.0) -> None:
        with closing(sqlite3.connect(self.folder / TRUTH)) as truth, truth:
            record_sql.put_all(truth, entries, now)

    def delete(self, *entries: Entry) -> None:
        with closing(sqlite3.connect(self.folder / TRUTH)) as truth, truth:
            for each in entries:
                record_sql.delete(truth, each.namespace, each.cid)

    def note(self, number: int, said: str = "hello") -> None:
        with closing(sqlite3.connect(self.folder / NOTEBOOK)) as notebook, notebook:
            owner = bytes(OWNER.public_key)
            conversations.save(notebook, owner, "me", f"c{number}", [Message("user", said)], 2_000.0 + number)

    def share_and_attest(self, namespace: str) -> None:
        with closing(sqlite3.connect(self.folder / NOTEBOOK)) as notebook, notebook:
            share = KeptShare(1, "ab" * 32, 2, 3)
            for key in (OWNER, STRANGER):
                key_shares.put(notebook, bytes(key.public_key).hex(), namespace, share, 3_000.0, 100)
            made = Attestation(namespace, bytes(OWNER.public_key), 3_000.0)
            attestations._put(notebook, made, 100)

    def spoil(self, statement: str) -> None:
        with closing(sqlite3.connect(self.folder / TRUTH)) as truth, truth:
            truth.execute(statement)


def content(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows, but for the numbers of changes."""
    found = {}
    with closing(sqlite3.connect(folder / TRUTH)) as truth:
        columns = "id, namespace, cid, embedding, text, metadata, model_version, owner, created_at"
        found["records"] = truth.execute(f"SELECT {columns} FROM records ORDER BY id").fetchall()
    with closing(sqlite3.connect(folder / NOTEBOOK)) as notebook:
        for table in ("conversations", "key_shares", "attestations"):
            found[table] = sorted(notebook.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
    return found
