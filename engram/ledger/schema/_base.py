"""The one MetaData and the column types every table uses.

Times are unix seconds (REAL, UTC), durations seconds, money atomic units or micro-dollars (INTEGER), keys and
hashes raw bytes, states and kinds short words.
"""

from sqlalchemy import Column, MetaData, Table

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

__all__ = ["Column", "Table", "metadata"]
