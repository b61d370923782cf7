"""What the foundation must know of a database. Everything that is not said here is the same for all of them."""

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
_FAULTS: Final = REFUSED_BY_DISK | {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_INTERRUPT}


class Database(msgspec.Struct, Generic[H], frozen=True, kw_only=True):
    """One kind of database. `H` is what its transactions and queries are given: a connection, or a wrapper of one."""

    name: str
    """As it begins a sentence of an error: "the ledger"."""
    migrations: Sequence[Callable[[H], None]]
    """Step `n` brings schema version `n` to `n + 1`, as SQLite's `user_version` counts them."""
    wrap: Callable[[sqlite3.Connection], H]
    not_done: type[NotDone]
    unknown: type[OutcomeUnknown]
    unusable: type[Unusable]
    remedy: Callable[[Path], str]
    """What an operator does about a damaged file."""
    fault: Callable[[Exception], str | None] = lambda error: text_of(error) if is_fault(error) else None
    """What an exception of a transaction or query says of the database, None where it is the caller's own affair."""
    erases: Callable[[Any], bool] = lambda value: True
    """Whether a transaction that returned this value deleted or overwrote something."""
    kill_point: str = ""
    """Put before `begin:<n>` and `commit:<n>`, the kill points of its commits."""
    compacted_up_to: int = 0
    """Bytes of a file that is written anew after a deletion (engram.durable.erasing)."""
    cleared_every_s: float = 0.0
    """Seconds between two clearings at least."""


def original(error: BaseException | None) -> BaseException | None:
    """Return SQLite's own error under one that SQLAlchemy has wrapped, else the error itself."""
    return getattr(error, "orig", None) or error


def is_fault(error: Exception) -> bool:
    """Return whether an error is the disk's or the file's, and not that of a statement."""
    return code_of(original(error)) in _FAULTS


def is_undecodable(error: BaseException | None) -> bool:
    """Whether the driver could not decode a text, which its error quotes: nothing of what is stored is to be shown."""
    return str(error).startswith("Could not decode to UTF-8")


def text_of(error: BaseException | None) -> str:
    """Return what an operator should know of SQLite's error and do about it."""
    found = original(error)
    if is_undecodable(found):
        return "a text is not UTF-8"
    return f"{found}; {_HINTS.get(code_of(found) or 0, 'check the disk')}"
