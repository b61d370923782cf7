"""Replaces files so that a crash leaves either the old ones or the new ones, never a mixture.

The new files are prepared in a folder next to the old ones. Renaming that folder to `restoring` is the commit: from
then on `finish`, which the next process to claim the folder also calls, only completes the replacement. The log of an
old file is never used with a new one.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engram import files

RESTORING: Final = "restoring"
"""The folder of files whose replacement is committed."""
_ASIDE: Final = "aside"


def put_in_place(
    incoming: Path, folder: Path, kept_as: str, names: Sequence[str], obsolete: Sequence[str] = ()
) -> Path:
    """Replace the files `names` of a folder with those in `incoming`, which is on the same disk.

    The old ones are moved to the folder `{kept_as}-1`, `-2`, …, which is returned; it is not created without any.
    `obsolete` are folders that belong to the former files and are removed. The caller has claimed the folder. Blocks.
    Raises OSError.
    """
    number = 1
    while (kept := folder / f"{kept_as}-{number}").exists():
        number += 1
    (incoming / _ASIDE).write_text(kept.name, encoding="ascii")
    for path in (*incoming.iterdir(), incoming):
        files.sync(path)
    incoming.rename(folder / RESTORING)
    files.sync(folder)
    finish(folder, names, obsolete)
    return kept


def finish(folder: Path, names: Sequence[str], obsolete: Sequence[str] = ()) -> None:
    """Complete a `put_in_place` that a crash interrupted, if any. The caller has claimed the folder. Raises OSError."""
    restoring = folder / RESTORING
    if not restoring.exists():
        return
    aside = restoring / _ASIDE
    if aside.exists():
        kept = folder / Path(aside.read_text(encoding="ascii")).name
        for name in names:
            if (restoring / name).exists():
                _set_aside(folder, name, kept)
                (restoring / name).rename(folder / name)
                files.sync(folder)
        for each in obsolete:
            shutil.rmtree(folder / each, ignore_errors=True)
        aside.unlink()
    restoring.rmdir()
    files.sync(folder)


def _set_aside(folder: Path, name: str, kept: Path) -> None:
    for former in (f"{name}-wal", f"{name}-shm", name):
        if (folder / former).exists():
            kept.mkdir(mode=0o700, exist_ok=True)
            (folder / former).rename(kept / former)
            (kept / former).chmod(0o600)
    if kept.exists():
        files.sync(kept)
    files.sync(folder)
