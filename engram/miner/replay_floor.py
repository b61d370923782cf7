"""Stamps that were ahead of the clock when they were taken, kept over a restart.

Replays are forgotten with the process, which is safe for what was stamped before it began: that is refused. A sender
whose clock runs ahead may have stamped what was taken later than the next start. The latest such second is on disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

import trio

from engram import files
from engram.clock import Clock
from engram.hotkeys import miner_scheme

NAME: Final = "stamps-ahead"
_LONGEST_MS: Final = miner_scheme.NAMESPACE_WINDOW_MS


@final
class StampsAhead:
    """One file with a unix time in ms, before which nothing stamped is taken. One write for each second of stamps."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Reads what the last process left (blocking). Raises OSError.

        A time further off than any window is of a clock that was wrong: then nothing is taken for one window.
        """
        self._file = folder / NAME
        self._clock = clock
        self._writing = trio.Lock()
        self.before_ms = self._read()

    async def keep(self, timestamp_ms: int) -> None:
        """Returns when no later process takes this stamp again. Raises OSError: it must not be taken now either."""
        if timestamp_ms <= self._now_ms() or timestamp_ms < self.before_ms:
            return
        async with self._writing:
            if timestamp_ms < self.before_ms:
                return
            before_ms = timestamp_ms // 1_000 * 1_000 + 1_000
            await trio.to_thread.run_sync(files.put, self._file, b"%d" % before_ms)
            self.before_ms = before_ms

    def _read(self) -> int:
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return 0
        farthest_ms = self._now_ms() + _LONGEST_MS
        return min(int(content), farthest_ms) if content.isdigit() else farthest_ms

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1_000)
