"""What was deleted or overwritten in a database can be read in none of its files, wherever SQLite had moved it."""

import random
from pathlib import Path

import pytest

from engram.durable import erasing
from engram.durable.connection import BUSY_TIMEOUT_MS
from engram.durable.driver import sqlite3
from engram.durable.erasing import COMPACTED_UP_TO
from engram.memory.model import PUBLIC, Entry
from engram.memory.store import conversations, key_shares, record_sql
from engram.memory.store.conversations import Message
from engram.memory.store.key_shares import KeptShare
from engram.memory.store.notebook_db import Notebook
from tests.sampling import NIGHTLY, SEED

OWNER = bytes(32)
SEEDS = range(SEED, SEED + (20 if NIGHTLY else 2))


def content(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def writer(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = OFF", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@pytest.mark.parametrize("number", SEEDS)
def test_no_overwritten_chat_title_or_share_remains(tmp_path: Path, number: int) -> None:
    Notebook.open(tmp_path / "notebook.db").close()
    connection, dice = writer(tmp_path / "notebook.db"), random.Random(number)
    held: dict[tuple[str, str], str] = {}
    written: set[str] = set()
    connection.execute("BEGIN")
    for step in range(2_500):
        mark = f"<{step:08d}>"
        conv, size = f"c{dice.randrange(40)}", dice.choice([0, 20, 500, 5_000])
        match dice.randrange(5):
            case 0 | 1:
                said = [Message("user", mark + "z" * size, 1)]
                conversations.save(connection, OWNER, "u", conv, said, 1.0)
                kind = "chat"
            case 2 if ("chat", conv) in held:
                conversations.rename(connection, OWNER, "u", conv, mark, 1.0)
                kind = "title"
            case 3 if ("chat", conv) in held:
                conversations.delete(connection, OWNER, "u", conv)
                del held["chat", conv]
                held.pop(("title", conv), None)
                continue
            case _:
                share = KeptShare(1, mark.encode().hex() * (1 + size // 20), 2, 3)
                key_shares.replace(connection, f"owner {conv}", "notes", share, 1.0, 10**6)
                kind, mark = "share", mark.encode().hex()
        held[kind, conv] = mark
        written.add(mark)
    connection.execute("COMMIT")
    assert erasing.cleared(connection, tmp_path / "notebook.db", COMPACTED_UP_TO)
    left = content(tmp_path)
    assert {mark for mark in written if mark.encode() in left} == set(held.values())
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (BUSY_TIMEOUT_MS,)
    connection.close()


@pytest.mark.parametrize("number", SEEDS)
def test_no_deleted_record_remains(tmp_path: Path, number: int) -> None:
    connection, dice = writer(tmp_path / "truth.db"), random.Random(number)
    connection.execute("BEGIN")
    record_sql.create_schema(connection, "truth")
    held: dict[str, str] = {}
    for step in range(1_500):
        if held and dice.random() < 0.45:
            cid = dice.choice(sorted(held))
            record_sql.delete(connection, PUBLIC, cid)
            del held[cid]
            continue
        mark, cid = f"<{step:08d}>", f"v1::{dice.randbytes(32).hex()}"
        text = mark + "t" * dice.choice([0, 10, 700, 9_000])
        vector = dice.randbytes(dice.choice([32, 1_536]))
        record_sql.put(connection, Entry(PUBLIC, cid, vector, text, {"m": mark}, "v1", None), 1.0)
        held[cid] = mark
    connection.execute("COMMIT")
    assert erasing.cleared(connection, tmp_path / "truth.db", COMPACTED_UP_TO)
    left = content(tmp_path)
    shown = {mark for step in range(1_500) if (mark := f"<{step:08d}>").encode() in left}
    assert shown == set(held.values())
    connection.close()


def test_a_reader_is_waited_for_by_nobody(tmp_path: Path) -> None:
    connection, reader = writer(tmp_path / "a.db"), writer(tmp_path / "a.db")
    connection.execute("CREATE TABLE t (x)")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    connection.execute("INSERT INTO t VALUES (1)")
    assert not erasing.cleared(connection, tmp_path / "a.db", COMPACTED_UP_TO)
    reader.close()
    assert erasing.cleared(connection, tmp_path / "a.db", COMPACTED_UP_TO)
    connection.close()
    assert not residue_of_a_database_that_is_gone(tmp_path)


def residue_of_a_database_that_is_gone(folder: Path) -> bool:
    connection = writer(folder / "b.db")
    connection.execute("CREATE TABLE t (x)")
    (folder / "b.db").unlink()
    try:
        return erasing.cleared(connection, folder / "b.db", COMPACTED_UP_TO)
    finally:
        connection.close()


def test_a_large_database_is_not_written_anew_but_its_log_is_emptied(tmp_path: Path) -> None:
    connection = writer(tmp_path / "a.db")
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [("x" * 9_000,)] * 100)
    connection.execute("DELETE FROM t")
    assert erasing.cleared(connection, tmp_path / "a.db", compacted_up_to=0)
    assert (tmp_path / "a.db-wal").stat().st_size == 0
    assert (tmp_path / "a.db").stat().st_size > 500_000
    assert b"xxxx" not in content(tmp_path)
    connection.close()
