"""A real gateway in a real process: started, waited for by its ready pipe, killed, started again.

It forks from a warmed interpreter; `is_warm` says otherwise where the start itself is the subject.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.warmed import WarmProgram, starts_alike

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 60.0

FAST = """
[miner]
embedder = "hash"
[log]
format = "json"
[http]
requests_per_minute_per_ip = 0
requests_per_minute_per_hotkey = 0
[stats]
interval_s = 1.0
"""


class GatewayProcess:
    """`python run.py gateway` on free ports, its output kept in `<data_dir>.log`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: str = FAST,
        environ: dict[str, str] | None = None,
        program: Path = ROOT / "run.py",
        profile: str = "local",
        binary: Path | None = None,
        port: int = 0,
        arguments: tuple[str, ...] | None = None,
        is_warm: bool = True,
    ) -> None:
        """`binary` is a packed program to start in place of `program`; `arguments` come last."""
        self.data_dir = data_dir
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self._settings = data_dir.with_name(data_dir.name + ".toml")
        self._settings.write_text(with_ports_of_its_own(settings))
        self._environ = environ or {}
        self._command = [str(binary)] if binary else [str(program)]
        self._is_warm = is_warm and binary is None
        self._first = [] if binary else [sys.executable]
        self._arguments = ("--port", str(port)) if arguments is None else arguments
        self._profile = profile
        self._process: subprocess.Popen[bytes] | WarmProgram | None = None
        self.ready: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def ops_url(self) -> str:
        return str(self.ready["ops_url"])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, **environ: str) -> "GatewayProcess":
        """Start and wait until it is ready. Raises AssertionError with the log when it is not in time."""
        self.spawn(**environ)
        assert self.wait_ready(), f"the gateway is not ready, exit status {self._status()}:\n{self.log()}"
        return self

    def _status(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def spawn(self, **environ: str) -> None:
        read_end, write_end = os.pipe()
        os.set_inheritable(write_end, True)
        command = [*self._command, "gateway", "--profile", self._profile, "--config"]
        command += [str(self._settings), "--data-dir", str(self.data_dir), "--ops-port", "0"]
        command += ["--ready-fd", str(write_end), *self._arguments]
        env = {**_clean_environ(), **self._environ, **environ}
        with self.log_path.open("ab") as log:
            if self._is_warm and starts_alike(env):
                output = log.fileno()
                self._process = WarmProgram(command, env=env, stdout=output, stderr=output, pass_fds=(write_end,))
            else:
                self._process = subprocess.Popen(
                    [*self._first, *command],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_end,),
                    env=env,
                )
        os.close(write_end)
        self._ready_end = read_end

    def wait_ready(self) -> bool:
        """True when it said it is ready; False when it ended before."""
        import select

        line = b""
        try:
            while not line.endswith(b"\n"):
                readable, _, _ = select.select([self._ready_end], [], [], READY_TIMEOUT_S)
                piece = os.read(self._ready_end, 4096) if readable else b""
                if not piece:
                    return False
                line += piece
        finally:
            os.close(self._ready_end)
        self.ready = json.loads(line)
        return True

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as a power cut of the process would be."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def wait(self, timeout: float = 20.0) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    def terminate(self, timeout: float = 20.0) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-20_000:] if self.log_path.exists() else ""

    def nodes(self) -> list[int]:
        """Process ids of miners and their stubs that belong to this data folder, from the process table."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            is_node = b"\0engram.miner\0" in command or b"/fake_node.py\0" in command
            if is_node and str(self.data_dir).encode() in command:
                found.append(int(entry.name))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        for pid in self.nodes():
            try:
                os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue


def _clean_environ() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")
    return {name: os.environ[name] for name in kept if name in os.environ}


def with_ports_of_its_own(settings: str) -> str:
    """The settings with ports for nodes that gateways of other test workers do not give to theirs.

    Of two gateways that find one port free at one moment, one has to launch its node again: right, but another story.
    """
    if "first_port" in settings:
        return settings
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")
    line = f"first_port = {20_000 + 1_000 * int(worker)}\n"
    section = "[provisioning]\n"
    return settings.replace(section, section + line) if section in settings else f"{settings}{section}{line}"
