"""Allows one process per data folder, by an exclusive lock that is taken before anything in it is opened."""

import contextlib
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from engram.files import give_to_owner_of, in_the_way
from engram.ledger.backup import LOCK_FILE, finish_restore
from engram.ledger.errors import FolderInUse, LedgerUnavailable

MARK_FILE: Final = "folder-mark"


def mark_of(folder: Path) -> str:
    """Return what tells this data folder from all others, a copy of it included. Raises OSError."""
    file = folder / MARK_FILE
    with contextlib.suppress(FileExistsError), file.open("x", encoding="ascii") as made:
        made.write(secrets.token_hex(8))
    return f"{file.read_text(encoding='ascii')}@{socket.gethostname()}:{file.stat().st_ino}"


@contextlib.contextmanager
def data_folder(path: Path) -> Iterator[Path]:
    """Create `path` (mode 0700) when missing, lock it for this process, and yield it resolved.

    The kernel releases the lock when the process ends, however it ends. Raises FolderInUse when another process holds
    it and LedgerUnavailable when the folder cannot be created or written. A restore that a crash interrupted is
    completed first.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = path.resolve()
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(PermissionError):
            give_to_owner_of(folder, folder / LOCK_FILE)  # or root's command would lock the service out
    except (FileExistsError, NotADirectoryError) as error:
        raise LedgerUnavailable(f"data_dir is {path}: {in_the_way(path)} is a file, not a folder") from error
    except OSError as error:
        raise LedgerUnavailable(f"data folder {path} cannot be used: {error.strerror}; set data_dir") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise FolderInUse(
                f"data folder {folder} is in use by process {holder}; stop it, or choose another data_dir"
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise LedgerUnavailable(f"data folder {folder} cannot be written: {error.strerror}") from error
        finish_restore(folder)
        yield folder
    finally:
        os.close(descriptor)
