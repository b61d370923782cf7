"""What the data folder may hold: measured now and then, counted in between."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import final

import trio

from engram.memory.errors import QuotaExceeded
from engram.memory.rules import IngestInput

_MEASURE_EVERY_S = 5.0
_BYTES_PER_RECORD = 2_048
"""Rows, keys and indexes of one record beside its own bytes (measured: below)."""


@final
class StorageGauge:
    """Refuses what would take the folder over its quota (bytes on disk, holes not counted)."""

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        self._folder = folder
        self.quota_bytes = quota_bytes
        self.used_bytes = size_on_disk(folder)
        """Bytes on disk when last measured."""
        self._admitted = 0

    async def run(self, ready: Callable[[], None]) -> None:
        """Measures again while things change, until cancelled."""
        ready()
        while True:
            await trio.sleep(_MEASURE_EVERY_S)
            if self._admitted:
                await self.measure()

    async def measure(self) -> int:
        """Measures now and returns the bytes on disk."""
        counted = self._admitted
        self.used_bytes = await trio.to_thread.run_sync(size_on_disk, self._folder)
        self._admitted -= counted
        return self.used_bytes

    def admit(self, cost_bytes: int) -> None:
        """Counts what is about to be stored. Raises QuotaExceeded; then nothing is counted."""
        if self.used_bytes + self._admitted + cost_bytes > self.quota_bytes:
            raise QuotaExceeded(
                f"This node's storage of {self.quota_bytes / 1024**2:,.0f} MB is used up; delete something first."
            )
        self._admitted += cost_bytes


def cost_bytes(checked: IngestInput, dimension: int) -> int:
    """Returns what a record costs at most: the vector in database and index, each with its log, and the rest."""
    vector = 4 * dimension
    texts = len((checked.text or "").encode()) + sum(len(k) + len(v) for k, v in checked.metadata.items()) * 4
    return 4 * vector + 2 * texts + _BYTES_PER_RECORD


def size_on_disk(folder: Path) -> int:
    """Returns the bytes that the files of a folder take; blocking."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
