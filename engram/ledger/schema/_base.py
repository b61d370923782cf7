"""The one MetaData and the column types every table uses."""

from engram.ledger.sql import REAL, Column, Table, metadata

__all__ = ["REAL", "Column", "Table", "metadata"]
