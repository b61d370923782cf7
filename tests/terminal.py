"""A process on a pseudo terminal, which is its controlling one: what it asks is answered by typing."""

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, final


@final
class OnTerminal:
    """Everything that the process reads and writes goes through the terminal, which echoes unless told not to."""

    def __init__(self, command: Sequence[str], *, cwd: Path, environ: Mapping[str, str]) -> None:
        self._end, inner = pty.openpty()

        def take() -> None:
            fcntl.ioctl(inner, termios.TIOCSCTTY, 0)

        self._process = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=cwd,
            env={**environ, "TERM": "dumb", "COLUMNS": "200"},
            start_new_session=True,
            preexec_fn=take,
        )
        os.close(inner)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        os.close(self._end)

    def until(self, text: str, timeout_s: float = 40.0) -> str:
        """Reads until this is shown; returns all that was. Raises AssertionError when it is not."""
        give_up = time.monotonic() + timeout_s
        while text not in self.shown:
            if not self._more(give_up):
                raise AssertionError(f"{text!r} was not shown, but: {self.shown}")
        return self.shown

    def type(self, line: str) -> None:
        os.write(self._end, line.encode())

    def end(self, timeout_s: float = 40.0) -> tuple[int, str]:
        """The exit code, and all that was shown."""
        give_up = time.monotonic() + timeout_s
        while self._more(give_up):
            pass
        return self._process.wait(10), self.shown

    def _more(self, give_up: float) -> bool:
        ready, _, _ = select.select([self._end], [], [], max(0.0, give_up - time.monotonic()))
        if not ready:
            return False
        try:
            piece = os.read(self._end, 65_536)
        except OSError:  # Linux says EIO when the last process has closed its end
            return False
        self.shown += piece.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)
