"""A real receiver in a real process: `run.py xeris --profile local`, waited for by its ready pipe, killed, started.

It forks from a warmed interpreter; `is_warm` says otherwise where the process itself is the subject.
"""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from tests.warmed import WarmProgram, starts_alike

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 60.0
SETTINGS = """
[xeris]
port = 0
quorum = 1
gateways = ["{gateway}"]
{more}
[ops]
port = 0
[facilitator]
port = 0
[http]
requests_per_minute_per_ip = 0
requests_per_minute_per_hotkey = 0
"""


class XerisProcess:
    """`start` it (again) on the same folder; its address is the same each time after the first."""

    def __init__(
        self, folder: Path, gateway: str, more: str = "", port: int = 0, besides: str = "", *, is_warm: bool = True
    ) -> None:
        """`more` are lines of [xeris], `besides` are sections of their own."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = port
        self._gateway, self._more, self._besides = gateway, more, besides
        self._is_warm = is_warm
        self.ready: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | WarmProgram | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ops_url(self) -> str:
        return str(self.ready["ops_url"])

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def ledger(self) -> Path:
        return self.folder / "data" / "ledger.sqlite3"

    def spawn(self, kill_at: str = "", trace: str = "") -> bool:
        """Start; True when it says that it is ready, False when it ended before. `trace` gets the points it passes."""
        config = self.folder / "xeris.toml"
        text = SETTINGS.format(gateway=self._gateway, more=self._more) + self._besides
        config.write_text(text.replace("port = 0", f"port = {self.port}", 1), encoding="utf-8")
        read_end, write_end = os.pipe()
        os.set_inheritable(write_end, True)
        command = ["run.py", "xeris", "--profile", "local", "--config", str(config)]
        command += ["--data-dir", str(self.folder / "data"), "--ready-fd", str(write_end)]
        with (self.folder / "log").open("ab") as log:
            env = {**os.environ, "ENGRAM_TEST_KILL": "1", "ENGRAM_KILL_AT": kill_at, "ENGRAM_KILL_TRACE": trace}
            output = log.fileno()
            self._process = (
                WarmProgram(command, env=env, stdout=output, stderr=output, pass_fds=(write_end,))
                if self._is_warm and starts_alike(env)
                else subprocess.Popen(
                    [sys.executable, *command],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_end,),
                    env=env,
                )
            )
        os.close(write_end)
        line = b""
        try:
            while not line.endswith(b"\n"):
                readable, _, _ = select.select([read_end], [], [], READY_WITHIN_S)
                piece = os.read(read_end, 4096) if readable else b""
                if not piece:
                    return False
                line += piece
        finally:
            os.close(read_end)
        self.ready = json.loads(line)
        self.port = int(str(self.ready["xeris_url"]).rpartition(":")[2])
        return True

    def start(self) -> "XerisProcess":
        assert self.spawn(), f"the receiver did not become ready:\n{self.log()}"
        return self

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def wait(self) -> int:
        """Return the exit status once it has ended."""
        assert self._process is not None
        return self._process.wait(60)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def ended(self) -> int:
        """Return the exit status once it has ended, without holding up the loop."""
        return await trio.to_thread.run_sync(self.wait, abandon_on_cancel=True)
