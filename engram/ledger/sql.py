"""Building blocks of the areas' tables and queries, the same on SQLite and on PostgreSQL.

Times are unix seconds (REAL, UTC), durations seconds, money atomic units or micro-dollars (INTEGER), keys and
hashes raw bytes, states and kinds short words. PostgreSQL keeps them as double precision, bigint, bytea and text
(engram.ledger.postgres.dialect).
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Column, ColumnElement, Integer, MetaData, Table, literal_column
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.dialects.sqlite import REAL

__all__ = ["OWNER", "REAL", "Column", "Table", "metadata", "one_of", "owner_column", "upsert"]

OWNER: Final = "owner_epoch"
"""The column of rows that one process works at a time; see owners.py."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def owner_column() -> Column[int]:
    """Return the column that names the process which works a row.

    The table's `info["open"]` says which rows still have work: those are taken over when that process is gone.
    """
    return Column(OWNER, Integer, nullable=False, server_default="0")


def one_of(column: ColumnElement[str], words: Iterable[str]) -> ColumnElement[bool]:
    """Return `column IN (words)` with literal words: bound ones are expanded at each run and use no partial index."""
    return column.in_([literal_column(f"'{word}'") for word in sorted(words)])
