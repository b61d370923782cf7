"""The one file beside the same code in a venv: CPU time of a start, memory at rest, size, and the gap of a restart.

CPU seconds are those of the process and its children, so that a busy machine does not show. Both forms are started in
turns. `python -m bench.binary [--quick]`; ENGRAM_BINARY names a file that is built already, ENGRAM_BINARY_GATEWAY the
one without nodes.
"""

import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench.support.report import print_line
from shipping import binary
from shipping.folder import Variant

QUICK = "--quick" in sys.argv
ROUNDS = 1 if QUICK else 5
SETTLE_S = 3.0
CLIENTS = 8
ASK_EVERY_S = 0.01
WANTED = {
    "version_cpu_more_s": "<= 0.3",
    "ready_cpu_more_s": "<= 0.4",
    "idle_pss_more_mb": "<= 20",
    "size_mb_gateway": "<= 60",
    "size_mb": "<= 215",
    "restart_lost": "<= 0",
}
ROOT = Path(__file__).parents[1]


def cpu_s(command: Sequence[str], environ: dict[str, str]) -> float:
    """CPU seconds of a command that ends by itself."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Started:
    """A gateway, until it is left."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], folder: Path, listening: socket.socket | None):
        reading, writing = os.pipe()
        arguments = ["gateway", "--profile", "local", "--data-dir", str(folder), "--ops-port", "0"]
        arguments += ["--set", "http.requests_per_minute_per_ip=0"]
        script = 'export LISTEN_PID=$$; exec "$@"'
        passed = {writing}
        if listening is None:
            arguments += ["--port", "0"]
        else:
            script = f"exec 3<&{listening.fileno()}; {script}"
            passed.add(listening.fileno())
            environ = {**environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "gateway"}
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command, *arguments, "--ready-fd", str(writing)],
            env={"PATH": os.environ["PATH"], **environ},
            cwd=folder.parent,
            pass_fds=tuple(passed),
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        with open(reading, "rb") as ready:
            self.ready = json.loads(ready.readline())

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> dict[str, float]:
        """Proportional and resident; of the first, a venv has less with each other process of its interpreter."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        return {"idle_pss_mb": kilobytes["Pss"] / 1_000, "idle_rss_mb": kilobytes["Rss"] / 1_000}

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Asking(threading.Thread):
    """A client that asks again and again, on a connection of its own each time, until it is told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.enough = threading.Event()
        self.longest_s, self.answered, self.lost = 0.0, 0, 0

    def run(self) -> None:
        while not self.enough.wait(ASK_EVERY_S):
            began = time.monotonic()
            connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.request("GET", "/tiers")
                answered = connection.getresponse().status == 200
            except (OSError, HTTPException):
                answered = False
            finally:
                connection.close()
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.answered += answered
            self.lost += not answered


def restart(command: Sequence[str], environ: dict[str, str], folder: Path) -> dict[str, float]:
    """The longest that a request of several clients waits, from before SIGTERM until the next process serves behind the
    held socket; and how many were not answered."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen(1_024)
        started = Started(command, environ, folder, held)
        clients = [Asking(held.getsockname()[1]) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(SETTLE_S / 3)
        before = max(client.longest_s for client in clients)
        for client in clients:
            client.longest_s = 0.0
        started.end()
        started = Started(command, environ, folder, held)
        time.sleep(SETTLE_S / 3)
        for client in clients:
            client.enough.set()
        for client in clients:
            client.join()
        started.end()
        return {
            "restart_gap_ms": max(client.longest_s for client in clients) * 1_000,
            "restart_longest_before_ms": before * 1_000,
            "restart_lost": float(sum(client.lost for client in clients)),
            "restart_answered": float(sum(client.answered for client in clients)),
        }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full, gateway = (
            Path(os.environ[variable]) if variable in os.environ else binary.build(folder / label, variant).path
            for variable, label, variant in (
                ("ENGRAM_BINARY", "engram", Variant.FULL),
                ("ENGRAM_BINARY_GATEWAY", "engram-gateway", Variant.GATEWAY),
            )
        )
        packed = {"ENGRAM_UNPACK_DIR": str(folder / "unpacked")}
        venv = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        forms = {"packed": ([str(full)], packed), "venv": ([str(Path(sys.executable).with_name("engram"))], venv)}
        began = time.monotonic()
        first_cpu_s = cpu_s([str(full), "--version"], packed)
        first_s = time.monotonic() - began
        found: dict[str, dict[str, list[float]]] = {form: {} for form in forms}
        for _ in range(ROUNDS):
            for form, (command, environ) in forms.items():
                found[form].setdefault("version_cpu_s", []).append(cpu_s([*command, "--version"], environ))
                started = Started(command, environ, folder / form, None)
                found[form].setdefault("ready_cpu_s", []).append(started.cpu_s())
                time.sleep(SETTLE_S)
                for key, value in started.memory_mb().items():
                    found[form].setdefault(key, []).append(value)
                started.end()
                for key, value in restart(command, environ, folder / form).items():
                    found[form].setdefault(key, []).append(value)
        medians = {form: {key: statistics.median(values) for key, values in of.items()} for form, of in found.items()}
        ours, peer = medians["packed"], medians["venv"]
        figures = {
            **ours,
            "first_start_s": first_s,
            "first_start_cpu_s": first_cpu_s,
            "size_mb": full.stat().st_size / 1e6,
            "size_mb_gateway": gateway.stat().st_size / 1e6,
            "version_cpu_more_s": ours["version_cpu_s"] - peer["version_cpu_s"],
            "ready_cpu_more_s": ours["ready_cpu_s"] - peer["ready_cpu_s"],
            "idle_pss_more_mb": ours["idle_pss_mb"] - peer["idle_pss_mb"],
            "idle_rss_more_mb": ours["idle_rss_mb"] - peer["idle_rss_mb"],
        }
        ratios = {f"{key}_vs_venv": ours[key] / peer[key] for key in ours if peer[key]}
        print_line("binary", figures, {"venv": peer}, ratios, WANTED, load=os.getloadavg()[0])


if __name__ == "__main__":
    main()
