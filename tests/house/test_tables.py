"""A table belongs to one area, whose functions are what others ask; and SQLite's own SQL stands behind one seam."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house import sources

ROOT = Path(__file__).parents[2]
SQLITE_ALONE = {
    "engram/ledger/postgres/dialect.py",
    "engram/ledger/sql.py",
    "engram/ledger/prepared.py",
    "engram/ledger/lane.py",
}
"""Where SQLAlchemy's dialect of SQLite may be named: the seam, and what compiles statements for SQLite's own driver."""


@functools.cache
def imports() -> list[tuple[Path, str]]:
    """Each name that a module of the product imports, with its module."""
    return list(_imports())


def _imports() -> Iterator[tuple[Path, str]]:
    paths = sorted((ROOT / "engram").rglob("*.py"))
    for path, tree in zip(paths, sources.trees(path.read_text(encoding="utf-8") for path in paths), strict=True):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                yield from ((path.relative_to(ROOT), f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((path.relative_to(ROOT), alias.name) for alias in node.names)


def test_a_table_is_imported_only_in_its_own_area() -> None:
    makers = {path.parts[1] for path, name in imports() if name == "engram.ledger.sql.Table"}
    of_areas = [(path, name) for path, name in imports() if re.match(rf"engram\.({'|'.join(makers)})\.tables\b", name)]
    assert {name.split(".")[1] for _, name in of_areas} >= {"sessions", "payments", "provisioning", "relay", "ledger"}
    assert [(str(path), name) for path, name in of_areas if path.parts[1] != name.split(".")[1]] == []


def test_tables_are_made_only_in_tables_py() -> None:
    makers = {path for path, name in imports() if name in ("engram.ledger.sql.Table", "sqlalchemy.Table")}
    assert {path.name for path in makers} == {"tables.py", "sql.py"}


def test_the_sql_of_sqlite_stands_behind_one_seam() -> None:
    assert {str(path) for path, name in imports() if name.startswith("sqlalchemy.dialects")} == SQLITE_ALONE
