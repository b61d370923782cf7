"""Persists the announcement that may be in flight, in a small file of the node's data folder."""

from pathlib import Path
from typing import final

import msgspec
import structlog
import trio

from engram import files, wire
from engram.chain.registry.announce_rules import Attempt

_MAX_BYTES = 65_536

log = structlog.get_logger(__name__)


@final
class AnnouncementFile:
    """An AnnouncementJournal in one file of mode 0600, replaced atomically; without it nothing is in flight."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Attempt | None:
        """See AnnouncementJournal."""
        return await trio.to_thread.run_sync(self._read)

    async def keep(self, attempt: Attempt | None) -> None:
        """See AnnouncementJournal."""
        # Not abandoned on cancellation: a write always completes.
        await trio.to_thread.run_sync(self._write, attempt)

    def _read(self) -> Attempt | None:
        try:
            with self._path.open("rb") as file:
                return wire.decode(file.read(_MAX_BYTES), Attempt)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("announcement_note_unreadable", path=str(self._path), reason=str(error))
            return None

    def _write(self, attempt: Attempt | None) -> None:
        if attempt is None:
            self._path.unlink(missing_ok=True)
            files.sync(self._path.parent)
        else:
            files.put(self._path, msgspec.json.encode(attempt))
