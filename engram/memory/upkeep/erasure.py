"""Erases a node's memory: overwrites every file of its folder, flushes it to disk, and removes it.

Limits: a filesystem that journals data or copies on write, a snapshot, and a flash drive that spreads its writes may
keep older blocks; there only an encrypted disk, or encrypting before storing, helps.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from engram import files
from engram.memory.upkeep.data_files import STORES, Progress

_CHUNK = 1024**2


class Erased(msgspec.Struct, frozen=True):
    """What was erased; `shared` counts files with a hard link elsewhere, which were removed without overwriting."""

    files: int
    bytes: int
    shared: list[str]


def erase(data: Path, last: str, on_progress: Progress = lambda done, total: None) -> Erased:
    """Overwrite and remove all files of a folder, and the folder itself; file `last` goes last.

    Databases go first. Links are removed and never followed. The caller has claimed the folder (`last` is its lock).
    Interrupted, it can be called again. Raises OSError.
    """
    found = sorted(_files(data), key=lambda path: (path.name == last, not path.name.startswith(STORES), str(path)))
    total = sum(path.lstat().st_size for path in found)
    done, shared = 0, list[str]()
    for path in found:
        facts = path.lstat()
        if stat.S_ISREG(facts.st_mode):
            if facts.st_nlink > 1:
                shared.append(str(path))
            else:
                _overwrite(path, facts.st_size)
        path.unlink()
        done += facts.st_size
        on_progress(done, total)
    for folder, _, _ in os.walk(data, topdown=False):
        files.sync(Path(folder))
        os.rmdir(folder)
    return Erased(len(found), total, shared)


def _files(data: Path) -> list[Path]:
    found = list[Path]()
    for folder, folders, names in os.walk(data):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [Path(folder) / name for name in (*names, *links)]
    return found


def _overwrite(path: Path, size: int) -> None:
    os.chmod(path, 0o600)
    with open(path, "r+b", buffering=0) as file:
        left = size
        while left > 0:
            left -= file.write(os.urandom(min(_CHUNK, left)))
        os.fsync(file.fileno())
        file.truncate(0)
        os.fsync(file.fileno())
