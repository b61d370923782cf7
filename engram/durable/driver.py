"""The SQLite library of all durable data: that of the `pysqlite3` wheel, imported only here.

Python's own SQLite is the system's version; the wheel's has the WAL-reset bug fixed. Where there is no wheel (anything
but Linux on x86-64) Python's own is used, and `engram doctor` reports its version. A process must not open a file
through two SQLite libraries: POSIX locks belong to the process, so neither library would see the other's.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the wheel is Python's own module, built against another library, and has no types
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["VERSION", "WAL_RESET_FIXED", "code_of", "has_wal_reset_bug", "sqlite3"]

VERSION: Final[str] = sqlite3.sqlite_version
"""The version of the SQLite library in use."""
WAL_RESET_FIXED: Final = (3, 51, 3)
"""The release that fixes the WAL-reset bug, by which two connections that write or checkpoint at the same moment can
lose a commit. Source: sqlite.org/wal.html, "The WAL-Reset Bug"."""


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Return whether a SQLite library of that version can lose a commit to the WAL-reset bug.

    >>> [has_wal_reset_bug(version) for version in ((3, 40, 1), (3, 51, 2), (3, 51, 3), (3, 53, 4))]
    [True, True, False, False]
    """
    return version < WAL_RESET_FIXED


def code_of(error: BaseException | None) -> int | None:
    """Return the primary result code of an SQLite error; None for an error of the driver or of any other origin."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None
