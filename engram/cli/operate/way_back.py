"""The way back from a newer program that does not get ready: the former one, with a ledger that it can read.

A newer program has copied the ledger before it migrated it. The copy is put back only while nothing can write (the data
folder is locked), and only when the newer program would make of it exactly what is there now: whatever differs may be a
purchase that was acknowledged, a settlement, or a refund.
"""

import contextlib
import json
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from config import Settings
from engram.cli.failures import CommandFailed
from engram.cli.operate.programs import Placed, point, restarted, run
from engram.ledger import LEDGER_FILE, FolderInUse, LedgerError, backup, data_folder

_LOOK_EVERY_S: Final = 0.2


def go_back(
    placed: Placed, link: Path, restart: str, within_s: float, settings: Settings, words: Sequence[str]
) -> Placed:
    """Let the link name the former program again, restart it, and return whether that one is ready.

    Raises CommandFailed, which names the program in use, when there is none, or when the ledger cannot go back with it:
    the newer one is then in use again.
    """
    newer = Path(placed.program)
    if not placed.former:
        raise CommandFailed(f"{newer} does not get ready and stays in use: there is no program before it to go back to")
    folder = Path(settings.data_dir).resolve()
    ledger = folder / LEDGER_FILE
    point(link, placed.former)
    back = msgspec.structs.replace(placed, in_use=str(link.parent / placed.former))
    if settings.ledger.url or not ledger.is_file() or _reads(link, ledger):
        if restarted(restart, link, within_s, words):
            return msgspec.structs.replace(back, ready=True)
        if settings.ledger.url or not ledger.is_file() or _reads(link, ledger):  # a migration may have ended meanwhile
            return back
    else:
        subprocess.run(shlex.split(restart), check=False)  # ends the newer one; the former refuses this ledger and ends
    try:
        with _claimed(folder, within_s):
            _put_back(newer, link, ledger)
    except (CommandFailed, LedgerError) as error:
        point(link, newer.name)
        state = "is ready" if restarted(restart, link, within_s, words) else "is not ready: read its log"
        raise CommandFailed(
            f"{newer} did not get ready, and the ledger cannot go back with {placed.former}: {error}. "
            f"{newer} is in use again and {state}; keep {folder}"
        ) from None
    return msgspec.structs.replace(back, ready=restarted(restart, link, within_s, words))


def _put_back(newer: Path, former: Path, ledger: Path) -> None:
    copies = (copy for copy in _newest_first(ledger) if _reads(former, copy))
    kept = next(copies, None)
    if kept is None:
        raise CommandFailed("there is no copy from before the migration that it can read")
    was, now = _content(newer, kept), _content(newer, ledger)
    if was is None or was != now:
        raise CommandFailed("it has been written since the migration, which may be an acknowledged purchase")
    backup.restore(kept, ledger.parent)


@contextlib.contextmanager
def _claimed(folder: Path, within_s: float) -> Iterator[None]:
    """Lock the data folder, once the process that ends has left it. Raises LedgerError."""
    until = time.monotonic() + within_s
    with contextlib.ExitStack() as claim:
        while True:
            try:
                claim.enter_context(data_folder(folder))
                break
            except FolderInUse:
                if time.monotonic() > until:
                    raise
                time.sleep(_LOOK_EVERY_S)
        yield


def _reads(program: Path, ledger: Path) -> bool:
    return run(program, "ledger", "check", str(ledger), "--json").returncode == 0


def _content(program: Path, ledger: Path) -> str | None:
    """Return the hash of all that a program would find in this ledger after its migration; None when it cannot say."""
    try:
        content = json.loads(run(program, "ledger", "drill", str(ledger), "--json").stdout)["content"]
    except (ValueError, KeyError, TypeError):
        return None
    return content if isinstance(content, str) else None


def _newest_first(ledger: Path) -> list[Path]:
    """Return the copies made before migrations, those of the highest schema first."""
    found = {}
    for path in ledger.parent.glob(f"{ledger.name}.schema-*"):
        with contextlib.suppress(ValueError):
            found[int(path.name.rpartition("-")[2])] = path
    return [path for _, path in sorted(found.items(), reverse=True)]
