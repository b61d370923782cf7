"""Readings of the machine's clocks that mean the same before and after a restart of the gateway."""

import time
from pathlib import Path
from typing import Protocol, final

from engram.clock import Clock
from engram.sessions.model import Instant

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Instants(Protocol):
    """Where readings come from."""

    def now(self) -> Instant: ...


@final
class SystemInstants:
    """The machine's own: CLOCK_BOOTTIME and the kernel's boot id.

    Where there is no boot id (not Linux) every process counts as a boot of its own, so that the wall clock
    bridges restarts.
    """

    def __init__(self, boot_id_file: Path = BOOT_ID) -> None:
        try:
            self._boot = boot_id_file.read_text(encoding="ascii").strip()
        except OSError:
            self._boot = f"process-{time.time_ns()}"

    def now(self) -> Instant:
        return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), self._boot)


@final
class ClockInstants:
    """Readings of a given clock, for tests and simulations. `boot` may be changed to play a reboot."""

    def __init__(self, clock: Clock, boot: str = "boot-1") -> None:
        self._clock = clock
        self.boot = boot

    def now(self) -> Instant:
        return Instant(self._clock.now(), self._clock.monotonic(), self.boot)
