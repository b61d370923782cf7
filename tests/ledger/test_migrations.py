"""The tables on disk: as the version before made them, and as the areas describe them."""

import sqlite3
from pathlib import Path

import sqlalchemy

from engram.ledger import open_inline
from engram.ledger.schema import metadata

SCHEMA_2 = (Path(__file__).parent / "data" / "schema-2.sql").read_text(encoding="utf-8")
"""What commit fd04aaf made of a new ledger."""


def made(path: Path) -> dict[str, str]:
    """Each table and index of the file, its statement in one line."""
    with sqlite3.connect(path) as raw:
        rows = raw.execute("SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%'")
        found = {name: " ".join(sql.split()).replace("( ", "(").replace(" )", ")") for name, sql in rows}
    raw.close()
    return found


def former(path: Path) -> Path:
    """A ledger of version 2, empty but for its id."""
    with sqlite3.connect(path) as raw:
        raw.executescript(SCHEMA_2 + "INSERT INTO meta VALUES ('ledger_id', '01234567'); PRAGMA user_version = 2;")
    raw.close()
    return path


def test_a_new_ledger_has_the_tables_of_version_2(tmp_path: Path) -> None:
    open_inline(tmp_path / "new").close()
    assert made(tmp_path / "new") == made(former(tmp_path / "former"))


def test_a_new_ledger_has_the_tables_that_the_areas_describe(tmp_path: Path) -> None:
    open_inline(tmp_path / "new").close()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'described'}")
    metadata.create_all(engine)
    engine.dispose()
    assert made(tmp_path / "new") == made(tmp_path / "described")
