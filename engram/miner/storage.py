"""Enforces the storage quota of the data folder: measured every few seconds, counted in between."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import final

import trio

from engram.hotkeys import PublicKey
from engram.memory.embed.protocol import MOST_WINDOWS, WINDOW_STRIDE
from engram.memory.errors import QuotaExceeded, TruthUnavailable
from engram.memory.rules import IngestInput

_MEASURE_EVERY_S = 5.0
_BYTES_PER_RECORD = 2_048
"""Overhead of a record for rows, keys and indexes (measured: less than this)."""


@final
class StorageGauge:
    """Refuses records that would take the folder over its quota (bytes on disk, without holes of sparse files).

    The last `kept_share` (0 to 1) of the quota is reserved for `keeper`. `reusable` returns how many bytes inside files
    are free because records were deleted; they do not count.
    """

    def __init__(
        self,
        folder: Path,
        quota_bytes: int,
        *,
        keeper: PublicKey | None = None,
        kept_share: float = 0.0,
        reusable: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._folder = folder
        self._keeper = keeper
        self._reusable = reusable
        self._for_others = int(quota_bytes * (1.0 - kept_share))
        self.quota_bytes = quota_bytes
        self.used_bytes = size_on_disk(folder)
        """Bytes on disk when last measured."""
        self._admitted = 0
        self._is_stale = True
        """Whether the last measurement led to a refusal, or there is none yet."""

    async def run(self, ready: Callable[[], None]) -> None:
        """Measure again every few seconds while records are added, until cancelled."""
        ready()
        while True:
            await trio.sleep(_MEASURE_EVERY_S)
            if self._admitted or self._is_stale:
                await self.measure()

    async def measure(self) -> int:
        """Measure now and return the bytes on disk."""
        counted, self._is_stale = self._admitted, False
        reusable = 0
        if self._reusable is not None:
            with suppress(TruthUnavailable):  # the next measurement tries again
                reusable = await self._reusable()
        self.used_bytes = await trio.to_thread.run_sync(size_on_disk, self._folder) - reusable
        self._admitted -= counted
        return self.used_bytes

    def admit(self, cost_bytes: int, signer: PublicKey | None) -> None:
        """Count what `signer` (None: unsigned) is about to store. Raises QuotaExceeded, and then counts nothing."""
        after = self.used_bytes + self._admitted + cost_bytes
        self._is_stale = self._is_stale or after > self._for_others
        if after > self.quota_bytes:
            raise QuotaExceeded(
                f"This node's storage of {self.quota_bytes / 1024**2:,.0f} MB is used up; delete something first."
            )
        if after > self._for_others and signer != self._keeper:
            raise QuotaExceeded("This node takes no more from others: the rest of its storage is its controller's.")
        self._admitted += cost_bytes


def cost_bytes(checked: IngestInput, dimension: int) -> int:
    """Return the most bytes that a record takes: its vector in database and index, each with its log, its words, the
    windows of a long text, and the rest."""
    vector = 4 * dimension
    texts = len((checked.text or "").encode()) + sum(len(k) + len(v) for k, v in checked.metadata.items()) * 4
    made_here = checked.text is not None and checked.embedding is None
    windows = min(len(checked.text or "") // WINDOW_STRIDE, MOST_WINDOWS) if made_here else 0
    return (4 + windows) * vector + 3 * texts + _BYTES_PER_RECORD


def size_on_disk(folder: Path) -> int:
    """Return the bytes that the files of a folder take; blocking."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
