"""Files that must be there, whole, after a crash of the machine."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def in_the_way(folder: Path) -> Path:
    """Return the part of the path that is there and no folder, where one cannot be made; the path itself if none is."""
    return next((part for part in (*reversed(folder.parents), folder) if part.exists() and not part.is_dir()), folder)


def _unchecked(content: bytes) -> None:
    del content


def put(
    path: Path,
    content: bytes,
    placing: Callable[[str, Path], None] = os.replace,
    check: Callable[[bytes], None] = _unchecked,
) -> None:
    """Write a file of mode 0600, atomically and durably. Blocks. Raises OSError, and nothing is left then.

    Several writers do not disturb one another. `os.link` for `placing` raises FileExistsError for a file that is there.
    `check` sees what was written, read back from the file, before it is placed: what it raises leaves `path` as it was.
    """
    descriptor, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        check(Path(staged).read_bytes())
        placing(staged, path)
    finally:
        Path(staged).unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Brings a file or a folder's entries to disk. Blocks. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_to_owner_of(folder: Path, *paths: Path) -> None:
    """Give what root has made in a folder to the folder's owner; other users own what they make. Raises OSError."""
    if os.geteuid() == 0:
        owner = folder.stat()
        for path in paths:
            made = path.stat()
            if (made.st_uid, made.st_gid) != (owner.st_uid, owner.st_gid):  # a sandbox may forbid even to ask
                os.chown(path, owner.st_uid, owner.st_gid)
