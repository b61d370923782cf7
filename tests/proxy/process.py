"""A real proxy in a real process, started by its console command's module."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from engram.proxy.settings.environment import VARIABLES
from tests.proxy.signing import ALICE, BOB

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 90.0


def document(*ports: int, **sections: dict[str, Any]) -> dict[str, Any]:
    """A config.json of the original, with free ports; `ports` are the training and the inference server's."""
    training, inference = (ports or (9,))[0], (ports or (9,))[-1]
    base: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": 0, "reload": False, "drain_s": 5},
        "auth": {"miner_hotkey": BOB.ss58, "chain_endpoint": "", "allowed_senders": [ALICE.ss58]},
        "services": {
            "training_server_url": f"http://127.0.0.1:{training}",
            "inference_server_url": f"http://127.0.0.1:{inference}",
        },
    }
    return {name: base.get(name, {}) | sections.get(name, {}) for name in {*base, *sections}}


class ProxyProcess:
    """`python -m reverse_proxy.server` in a folder with `reverse_proxy/config.json`."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.config = folder / "reverse_proxy" / "config.json"
        self.config.parent.mkdir(exist_ok=True)
        self.write(settings)
        self.log_path = folder / "proxy.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}

    def write(self, settings: dict[str, Any], toml: str = "") -> None:
        self.config.write_text(json.dumps({k: v for k, v in settings.items() if k != "toml"}))
        if toml:
            self.config.with_suffix(".toml").write_text(toml)

    @property
    def url(self) -> str:
        return str(self.ready["proxy_url"])

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def ops_url(self) -> str:
        return str(self.ready["ops_url"])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, **environ: str) -> Self:
        read_end, write_end = os.pipe()
        os.set_inheritable(write_end, True)
        command = [sys.executable, "-m", "reverse_proxy.server", "--data-dir", "data", "--ops-port", "0"]
        command += ["--ready-fd", str(write_end)]
        clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                env={**clean, "PYTHONPATH": str(ROOT), **environ},
            )
        os.close(write_end)
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([read_end], [], [], READY_TIMEOUT_S)
            piece = os.read(read_end, 4_096) if readable else b""
            if not piece:
                self.__exit__()
            assert piece, f"the proxy did not become ready:\n{self.log_path.read_text()}"
            line += piece
        os.close(read_end)
        self.ready = json.loads(line)
        return self

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
