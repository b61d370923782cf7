"""Backups on a timer: the ledger is copied into a folder every so often, and the oldest copies are removed.

When one is due is read from the names in the folder, so that restarts neither skip nor repeat one. Each is checked
before an older one goes: there is never less than the newest sound backup.
"""

import contextlib
import datetime as dt
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog
import trio

from config.model import BackupSettings
from engram.clock import Clock
from engram.ledger import backup
from engram.ledger.connection import LEDGER_FILE
from engram.ledger.errors import LedgerError, LedgerUnusable

RETRY_S: Final = 300.0
"""After a backup that could not be made."""
_ABANDONED_S: Final = 3_600.0
"""A copy in the making that was not written to for so long was left by a process that was killed."""
DAMAGED: Final = ".damaged"
"""Ends the name of a copy that did not pass its check, which is no backup. The last one is kept, to be looked at."""
_NAME: Final = re.compile(r"engram-(\d{8}T\d{6}Z)\.db\Z")
_STAMP: Final = "%Y%m%dT%H%M%SZ"

_log = structlog.get_logger("engram.ledger")


def name_at(unix_s: float) -> str:
    """Return the name of a backup made then.

    >>> name_at(0.0)
    'engram-19700101T000000Z.db'
    """
    return f"engram-{dt.datetime.fromtimestamp(unix_s, dt.UTC):{_STAMP}}.db"


def made_at(name: str) -> float | None:
    """Return when the backup of that name was made, or None for another file.

    >>> made_at("engram-19700101T000100Z.db"), made_at("notes.txt"), made_at("engram-19700199T000000Z.db")
    (60.0, None, None)
    """
    found = _NAME.match(name)
    if found is None:
        return None
    try:
        return dt.datetime.strptime(found[1], _STAMP).replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        return None


def newest_first(names: Iterable[str]) -> list[str]:
    """Return the backups among these names of files, the newest first."""
    return sorted((name for name in names if made_at(name) is not None), reverse=True)


def seconds_until_due(names: Iterable[str], now: float, interval_s: float) -> float:
    """Return how long the next backup can wait; 0 when it is due.

    A backup from the future (the clock was set back) counts as made now, so that the next is not put off for longer.
    """
    made = [at for at in map(made_at, names) if at is not None]
    return 0.0 if not made else max(0.0, min(max(made), now) + interval_s - now)


def surplus(names: Iterable[str], keep: int) -> list[str]:
    """Return the backups beyond the newest `keep`."""
    return newest_first(names)[keep:]


def rotate(ledger: Path, folder: Path, keep: int, now: float) -> Path:
    """Make a checked backup in `folder` and remove those beyond the newest `keep`; return its path. Blocks.

    Raises LedgerUnavailable (nothing was made), LedgerUnusable (the copy is damaged, and so is the ledger).
    """
    target = folder / name_at(now)
    _remove_abandoned(folder)
    backup.backup(ledger, target)
    try:
        problems = backup.check(target).problems
    except LedgerUnusable as error:
        problems = [str(error)]
    if problems:
        for former in folder.glob(f"engram-*.db{DAMAGED}"):
            former.unlink(missing_ok=True)
        damaged = target.rename(target.with_name(target.name + DAMAGED))
        raise LedgerUnusable(f"{damaged} is damaged: {problems[0]}; older backups are kept")
    for name in surplus(_names(folder), keep):
        (folder / name).unlink(missing_ok=True)
    return target


def newest(folder: Path) -> Path | None:
    """Return the newest backup in a folder, or None where there is none."""
    return next((folder / name for name in newest_first(_names(folder))), None)


async def keep_backing_up(
    settings: BackupSettings, data_dir: Path, clock: Clock, on_look: Callable[[float | None, float], None]
) -> None:
    """Make backups for ever. A backup that fails is logged and tried again.

    `on_look` gets the Unix times of the newest one, if there is any, and of when the next is due: at the start, and
    after each attempt.
    """
    folder, begun = Path(settings.folder).expanduser(), clock.now()
    while True:
        try:
            await trio.to_thread.run_sync(_make_folder, folder)
            names = await trio.to_thread.run_sync(_names, folder)
            last = made_at(found[0]) if (found := newest_first(names)) else None
            on_look(last, begun if last is None else last + settings.interval_s)
            wait_s = seconds_until_due(names, clock.now(), settings.interval_s)
            if wait_s > 0:
                await trio.sleep(wait_s)
                continue
            made = await trio.to_thread.run_sync(rotate, data_dir / LEDGER_FILE, folder, settings.keep, clock.now())
        except (LedgerError, OSError) as error:
            _log.error("backup_failed", reason=str(error), next_try_s=RETRY_S)
            await trio.sleep(RETRY_S)
        else:
            _log.info("backup_made", path=str(made), bytes=made.stat().st_size)


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _remove_abandoned(folder: Path) -> None:
    for partial in folder.glob("engram-*.db.partial"):
        with contextlib.suppress(FileNotFoundError):  # its process has finished it meanwhile
            if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                partial.unlink()


def _names(folder: Path) -> Sequence[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
