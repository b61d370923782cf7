"""Building blocks of the areas' tables and queries; everything specific to SQLite is imported from here.

Times are unix seconds (REAL, UTC), durations seconds, money atomic units or micro-dollars (INTEGER), keys and
hashes raw bytes, states and kinds short words.
"""

from collections.abc import Iterable

from sqlalchemy import Column, ColumnElement, MetaData, Table, literal_column
from sqlalchemy.dialects.sqlite import REAL
from sqlalchemy.dialects.sqlite import insert as upsert

__all__ = ["REAL", "Column", "Table", "metadata", "one_of", "upsert"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def one_of(column: ColumnElement[str], words: Iterable[str]) -> ColumnElement[bool]:
    """Return `column IN (words)` with literal words: bound ones are expanded at each run and use no partial index."""
    return column.in_([literal_column(f"'{word}'") for word in sorted(words)])
