"""What a service manager (systemd) gives to a process and wants to hear from it: sd_notify(3), and the folders and
credentials named by systemd.exec(5).

Where no service manager started this process, nothing is sent and nothing is given. The protocol is a line in a
datagram; https://systemd.io/PORTABILITY_AND_STABILITY counts it as stable.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, final

import trio

EXTEND_EVERY_S: Final = 30.0
"""Between two requests for more time to start, each of which asks for twice as much."""
LONGEST_OPENING_S: Final = 6 * 3_600.0
WATCHDOG_PARTS: Final = 3
"""The watchdog is fed so many times in its period: two may be late."""


@final
class ServiceManager:
    """The manager that started this process, if any."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)
        """The process is restarted when it is silent for so long; None where there is no watchdog."""

    @contextlib.contextmanager
    def opening(self, every_s: float = EXTEND_EVERY_S) -> Iterator[None]:
        """Ask for more time to start, from a thread, while the body blocks: it may copy and migrate a large ledger.

        Ends after LONGEST_OPENING_S, so that a start that hangs is restarted in the end.
        """
        if not self._address:
            yield
            return
        opened = threading.Event()
        extending = threading.Thread(target=self._extend, args=(opened, every_s), name="extending", daemon=True)
        extending.start()
        try:
            yield
        finally:
            opened.set()
            extending.join()

    def ready(self, status: str) -> None:
        """Say that everything serves; `status` is shown by `systemctl status`."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the settings are being read again; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self, status: str) -> None:
        """Say that the process ends."""
        self._send("STOPPING=1", f"STATUS={status}")

    async def feed_watchdog(self) -> None:
        """Feed the watchdog for ever from the loop that runs this: a loop that hangs lets it starve."""
        if self.watchdog_s is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / WATCHDOG_PARTS)

    def _extend(self, opened: threading.Event, every_s: float) -> None:
        until = time.monotonic() + LONGEST_OPENING_S
        while time.monotonic() < until:
            self._send(f"EXTEND_TIMEOUT_USEC={round(2 * every_s * 1_000_000)}", "STATUS=opening the ledger")
            if opened.wait(every_s):
                return

    def _send(self, *lines: str) -> None:
        """Send without waiting. A manager that does not read is no reason to stop."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            sending.sendto("\n".join(line.replace("\n", " ") for line in lines).encode(), self._address)


def credential(name: str, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the file of a credential (`LoadCredential=NAME:…`), or None when it was not given.

    Only this service can read it: the manager keeps credentials in memory that is not swapped.
    """
    folder = (os.environ if environ is None else environ).get("CREDENTIALS_DIRECTORY")
    file = Path(folder, name) if folder else None
    return file if file is not None and file.is_file() else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        period_s = int(environ.get("WATCHDOG_USEC", "0")) / 1_000_000
        return period_s if period_s > 0 else None
    return None
