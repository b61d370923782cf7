"""The gauges of the disk that a process keeps its data on."""

import os
from collections.abc import Callable
from pathlib import Path

from engram.telemetry.metrics import Metrics


def disk_gauges(metrics: Metrics, folder: Path) -> Callable[[], None]:
    """Return a function for `Metrics.before_scrape`. Where the folder cannot be read, nothing is shown."""

    def refresh() -> None:
        try:
            disk = os.statvfs(folder)
        except OSError:
            metrics.disk_free.clear()
            metrics.disk_size.clear()
        else:
            metrics.disk_free.set(disk.f_bavail * disk.f_frsize)
            metrics.disk_size.set(disk.f_blocks * disk.f_frsize)

    return refresh
