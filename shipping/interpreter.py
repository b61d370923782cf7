"""The interpreter that runs this build, and its standard library, without what a node never imports."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shipping.entries import Entry, file_entry

HOME: Final = "opt/engram"
VERSION: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
PROGRAM: Final = f"{HOME}/bin/{VERSION}"
LIBRARY: Final = f"{HOME}/lib/{VERSION}"

_LEFT_OUT: Final = frozenset(
    {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "turtledemo",
        "tkinter",
        "lib2to3",
        "ensurepip",
        "venv",
        "pydoc_data",
        "__pycache__",
    }
)
"""Folders of the standard library."""
_LEFT_OUT_MODULES: Final = (
    "readline.",  # libreadline and libgdbm are GPL-3, which this program is not
    "_gdbm.",
    "_dbm.",
    "_curses",
    "_tkinter.",
    "_sqlite3.",  # `durable` uses the SQLite that its own wheel brings
    "_test",
    "_xxtestfuzz.",
    "_ctypes_test.",
    "xxlimited",
    "nis.",
    "ossaudiodev.",
)


def entries() -> Iterator[Entry]:
    """Yield the program and its library, under /opt/engram."""
    yield file_entry(PROGRAM, Path(sys.executable).resolve())
    yield Entry(path=f"{HOME}/bin/python3", target=VERSION, mode=0o777)
    library = Path(sysconfig.get_path("stdlib"))
    for path in library.rglob("*"):
        inside = path.relative_to(library)
        if path.is_file() and _is_wanted(inside):
            yield file_entry(f"{LIBRARY}/{inside.as_posix()}", path.resolve())


def _is_wanted(inside: Path) -> bool:
    if any(part in _LEFT_OUT or part.startswith("config-") for part in inside.parts[:-1]):
        return False
    return inside.suffix not in {".pyc", ".a", ".exe"} and not inside.name.startswith(_LEFT_OUT_MODULES)
