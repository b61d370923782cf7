"""The SQLite library in use: past the WAL-reset bug, and what the rest relies on in its driver."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engram.durable import driver
from engram.durable.driver import sqlite3


def test_the_library_in_use_is_past_the_wal_reset_bug() -> None:
    assert not driver.has_wal_reset_bug()
    assert sqlite3.sqlite_version == driver.VERSION


def test_an_error_says_its_primary_code(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("CREATE TABLE t (x UNIQUE)")
    connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(sqlite3.IntegrityError) as twice:
        connection.execute("INSERT INTO t VALUES (1)")
    assert driver.code_of(twice.value) == sqlite3.SQLITE_CONSTRAINT
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError) as refused:
        connection.execute("INSERT INTO t VALUES (2)")
    assert driver.code_of(refused.value) == sqlite3.SQLITE_READONLY
    assert driver.code_of(ValueError("of other origin")) is None
    connection.close()


def test_other_threads_run_while_sqlite_computes() -> None:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT count(*) FROM n"
    began = time.perf_counter()
    connection.execute(counting.format(300_000)).fetchone()
    alone = time.perf_counter() - began
    thread = threading.Thread(target=lambda: connection.execute(counting.format(300_000)).fetchone())
    turns = 0
    thread.start()
    while thread.is_alive():
        turns += 1
    assert turns > 100, f"a thread that computes for {alone:.3f} s holds the interpreter"
    connection.close()


def test_the_standard_library_can_read_what_it_wrote(tmp_path: Path) -> None:
    """An operator's own tools open the files of a node that is down."""
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (x TEXT) STRICT")
    connection.execute("INSERT INTO t VALUES ('kept')")
    connection.close()
    script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT x FROM t').fetchone()[0])"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.db"], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout == "kept\n"


def test_nothing_else_opens_a_file_in_use() -> None:
    """Connections are made by the foundation; elsewhere on files that are not in use yet, and on indexes."""
    engram = Path(__file__).parents[2] / "engram"
    found = {
        str(path.relative_to(engram)) for path in engram.rglob("*.py") if "sqlite3.connect(" in path.read_text("utf-8")
    }
    assert found == {
        "durable/connection.py",
        "durable/copies.py",
        "memory/search/derived_file.py",
        "memory/upkeep/backups.py",
        "memory/upkeep/rows.py",
        "memory/upkeep/salvage.py",
    }
