"""The description of a database: everything that differs between the databases on this foundation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from engram.durable.driver import code_of, sqlite3
from engram.durable.errors import NotDone, OutcomeUnknown, Unusable

H = TypeVar("H")

_HINTS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "the disk is read-only: check the mount and permissions",
    sqlite3.SQLITE_INTERRUPT: "it takes too long",
}
REFUSED_BY_DISK: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    }
)
"""Codes by which SQLite says that nothing was done."""
_FAULTS: Final = REFUSED_BY_DISK | {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_INTERRUPT,
}


class Database(msgspec.Struct, Generic[H], frozen=True, kw_only=True):
    """One kind of database. `H` is the handle that its transactions and queries receive: a connection or a wrapper."""

    name: str
    """The subject of its error messages: "the ledger"."""
    migrations: Sequence[Callable[[H], None]]
    """Step `n` brings schema version `n` to `n + 1`, as SQLite's `user_version` counts them."""
    wrap: Callable[[sqlite3.Connection], H]
    not_done: type[NotDone]
    unknown: type[OutcomeUnknown]
    unusable: type[Unusable]
    remedy: Callable[[Path], str]
    """Returns what an operator should do about a damaged file."""
    fault: Callable[[Exception], str | None] = lambda error: text_of(error) if is_fault(error) else None
    """Returns what an exception reveals about the database; None for the caller's own errors."""
    erases: Callable[[Any], bool] = lambda value: True
    """Whether a transaction that returned this value deleted or overwrote something."""
    kill_point: str = ""
    """The prefix of `begin:<n>` and `commit:<n>`, the kill points of its commits."""
    compacted_up_to: int = 0
    """Files up to this many bytes are rewritten after a deletion (engram.durable.erasing)."""
    kept_before_migration: bool = False
    """Whether a file of an older version is copied, to `<name>.schema-<version>` beside it, before it is migrated."""
    cleared_every_s: float = 0.0
    """The minimum number of seconds between two clearings."""


def original(error: BaseException | None) -> BaseException | None:
    """Return SQLite's own error under one that SQLAlchemy has wrapped, else the error itself."""
    return getattr(error, "orig", None) or error


def is_fault(error: Exception) -> bool:
    """Return whether an error is a fault of the disk or file rather than of a statement."""
    return code_of(original(error)) in _FAULTS


def is_undecodable(error: BaseException | None) -> bool:
    """Return whether the driver failed to decode a text. Its error quotes stored data, which must not be shown."""
    return str(error).startswith("Could not decode to UTF-8")


def text_of(error: BaseException | None) -> str:
    """Return SQLite's error as an operator should read it, with what to do."""
    found = original(error)
    if is_undecodable(found):
        return "a text is not UTF-8"
    return f"{found}; {_HINTS.get(code_of(found) or 0, 'check the disk')}"
