"""Notes, per hotkey, which commit of a node's address may still arrive: one small file each, of mode 0600."""

from functools import partial
from pathlib import Path
from typing import Final, final

import msgspec
import structlog
import trio

from engram import files, wire
from engram.hotkeys import PublicKey, ss58

FOLDER: Final = "commitments"
_MAX_BYTES: Final = 4_096

_log = structlog.get_logger("engram.provisioning")


class InFlight(msgspec.Struct, frozen=True):
    """A commit that was, or is about to be, sent."""

    text: str
    until_block: int
    """It may be included up to this block."""


@final
class CommitmentNotes:
    """The notes in a folder; without one nothing is in flight. Writes are atomic and end whatever is cancelled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self, hotkey: PublicKey) -> InFlight | None:
        """Return the note; None when there is none, or it cannot be read."""
        return await trio.to_thread.run_sync(self._read, self._path(hotkey))

    async def keep(self, hotkey: PublicKey, note: InFlight | None) -> None:
        """Store the note, or that there is none, before returning. Raises OSError."""
        await trio.to_thread.run_sync(partial(self._write, self._path(hotkey), note))

    def _path(self, hotkey: PublicKey) -> Path:
        return self._folder / f"{ss58.encode(hotkey)}.json"

    def _read(self, path: Path) -> InFlight | None:
        try:
            with path.open("rb") as file:
                return wire.decode(file.read(_MAX_BYTES), InFlight)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("commitment_note_unreadable", path=str(path), reason=str(error))
            return None

    def _write(self, path: Path, note: InFlight | None) -> None:
        if note is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.put(path, msgspec.json.encode(note))
        elif path.exists():
            path.unlink(missing_ok=True)
            files.sync(self._folder)
