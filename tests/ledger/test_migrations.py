"""The tables on disk: as the version before made them, and as the areas describe them."""

import importlib
import sqlite3
from pathlib import Path

import sqlalchemy

import engram
from engram.ledger import open_inline
from engram.ledger.migrations import MIGRATIONS
from engram.ledger.sql import metadata

for module in Path(engram.__file__).parent.glob("*/tables.py"):
    importlib.import_module(f"engram.{module.parent.name}.tables")

SCHEMA_2 = (Path(__file__).parent / "data" / "schema-2.sql").read_text(encoding="utf-8")
"""What commit fd04aaf made of a new ledger."""


def made(path: Path) -> dict[str, object]:
    """Each index of the file as it was written, each table as its columns in the order of their names."""
    with sqlite3.connect(path) as raw:
        found: dict[str, object] = {}
        rows = raw.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%'")
        for kind, name, sql in rows.fetchall():
            columns = sorted(row[1:] for row in raw.execute(f"PRAGMA table_xinfo({name})"))
            table = (columns, "STRICT" in sql, "AUTOINCREMENT" in sql)
            found[name] = table if kind == "table" else " ".join(sql.split())
    raw.close()
    return found


def former(path: Path, rows: str = "") -> Path:
    """A ledger of version 2; `rows` are statements that fill it."""
    with sqlite3.connect(path) as raw:
        raw.executescript(SCHEMA_2 + "INSERT INTO meta VALUES ('ledger_id', '01234567'); PRAGMA user_version = 2;")
        raw.executescript(rows)
    raw.close()
    return path


def test_what_a_new_ledger_has_is_what_the_areas_describe(tmp_path: Path) -> None:
    open_inline(tmp_path / "new").close()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'described'}")
    metadata.create_all(engine)
    engine.dispose()
    assert made(tmp_path / "new") == made(tmp_path / "described")


def test_a_ledger_of_the_version_before_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    open_inline(tmp_path / "new").close()
    open_inline(former(tmp_path / "former")).close()
    assert made(tmp_path / "former") == made(tmp_path / "new")


def test_the_steps_so_far_changed_nothing_but_what_they_are_for(tmp_path: Path) -> None:
    open_inline(tmp_path / "new").close()
    before, after = made(former(tmp_path / "former")), made(tmp_path / "new")
    assert len(MIGRATIONS) == 4
    assert {name for name in before.keys() | after if before.get(name) != after.get(name)} == {
        "session_counts",
        "ix_sessions_live",
        "sessions",
        "paid_clock",
        "ix_sessions_ends",
    }
