"""A small database of the foundation's own: names and values."""

from functools import partial
from pathlib import Path

from engram.durable import Database, NotDone, OutcomeUnknown, Unusable
from engram.durable.driver import sqlite3

LOCK = "lock"


class NotKept(NotDone):
    """Nothing was changed."""


class Unknown(OutcomeUnknown):
    """Nobody knows."""


class Spoilt(Unusable):
    """No such database."""


def _first(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT")


def _second(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE kept ADD COLUMN note TEXT")


DATABASE = Database[sqlite3.Connection](
    name="the box",
    migrations=(_first, _second),
    wrap=lambda connection: connection,
    not_done=NotKept,
    unknown=Unknown,
    unusable=Spoilt,
    remedy=lambda path: f"put a backup of {path.name} in its place",
    compacted_up_to=1024**2,
)


def put(name: str, value: str = "1") -> "partial[None]":
    return partial(_put, name, value)


def _put(name: str, value: str, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO kept (name, value) VALUES (?, ?)", (name, value))


def names(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM kept")}


def names_on_disk(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    found = names(connection)
    connection.close()
    return found
