"""The worker beside python-socketio's own asyncio client, both at one npm socket.io server. `python -m bench.worker`.

Rounds alternate. The jobs are the original's: no id, answered by the acknowledgement, run by a function that returns
its payload. Jobs with an id are committed to the ledger twice each, which the peer does not do; their figures have no
yardstick. `reconnect_s_p99` runs from the moment a restarted server listens to its `authenticate`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.proxy import Served
from bench.support.http_servers import end
from bench.support.processes import resident_mb
from bench.support.report import print_line
from engram.hotkeys import Keypair, wallet

QUICK: Final = "--quick" in sys.argv
ROUNDS: Final = 3 if QUICK else 7
SINGLE: Final = 200 if QUICK else 500
BURST: Final = 1_000 if QUICK else 3_000
LANES: Final = 32
RESTARTS: Final = 5 if QUICK else 30
IN_FLIGHT: Final = 1_000
ROOT: Final = Path(__file__).resolve().parent.parent
OURS: Final = Keypair.from_uri("//Alice")
PEER: Final = "peer"
WANTED: Final = {"roundtrip_vs_python_socketio": "<= 1.1", "jobs_per_s_vs_python_socketio": ">= 0.9"}
PAYLOAD: Final = {"prompt": "a picture of a cat", "steps": 20, "seed": 7}


class Server:
    """npm's socket.io, spoken to by lines of JSON."""

    def __init__(self, stack: ExitStack, port: int = 0) -> None:
        self.process = subprocess.Popen(
            ["node", "orchestrator.mjs", str(port), "25000", "20000"],
            cwd=ROOT / "tests" / "node",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self.process.kill)
        self.port = int(self.until("listening")["listening"])

    def until(self, key: str) -> dict[str, Any]:
        """Return the next line that has this key."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if key in (found := json.loads(line)):
                return dict(found)
        raise RuntimeError(f"the server ended before {key}")

    def do(self, word: str, **fields: Any) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": word, **fields}) + "\n")
        self.process.stdin.flush()

    def burst(self, count: int, lanes: int, named: str | None = None) -> tuple[float, float]:
        """Run jobs; return the median roundtrip in ms, and jobs a second."""
        self.do("burst", count=count, lanes=lanes, named=named, data={"type": "echo", "payload": PAYLOAD})
        found = self.until("burst")["burst"]
        return found["p50_ms"], count / found["all_ms"] * 1000


def worker(stack: ExitStack, port: int, **settings: object) -> Served:
    """Start our worker as an operator does; its port is that of its operator's listener."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    wallet.write_hotkey_file(folder / "hotkey", OURS)
    values = {"orchestrator_url": f"http://127.0.0.1:{port}", "hotkey_file": str(folder / "hotkey"), **settings}
    kinds = ["echo=bench.support.job_kinds:Echo", "hold=bench.support.job_kinds:Hold"]
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**values, "kinds": kinds}.items()]
    (folder / "worker.toml").write_text("\n".join(["[worker]", *lines]))
    words = ["run.py", "worker", "--profile", "local", "--config", str(folder / "worker.toml")]
    words += ["--data-dir", str(folder / "data"), "--ops-port", "0", "--ready-fd", "FD"]
    return Served(stack, words, PYTHONPATH=str(ROOT))


def speeds() -> dict[str, list[float]]:
    """Measure both clients in turn, at one server."""
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        server = Server(stack)
        worker(stack, server.port, concurrency=LANES)
        server.until("authenticate")
        peer = subprocess.Popen(
            [sys.executable, "-m", "bench.support.socketio_peer", f"http://127.0.0.1:{server.port}", PEER], cwd=ROOT
        )
        stack.callback(end, peer)
        server.until("authenticate")
        for number in range(ROUNDS + 1):  # the first warms both up
            for name, hotkey, named in (
                ("ours", OURS.ss58, None),
                ("peer", PEER, None),
                ("named", OURS.ss58, f"r{number}"),
            ):
                server.do("use", hotkey=hotkey)
                single, _ = server.burst(SINGLE, 1, named and f"{named}s")
                _, rate = server.burst(BURST, LANES, named and f"{named}b")
                if number:
                    found.setdefault(f"{name}_ms", []).append(single)
                    found.setdefault(f"{name}_jobs_per_s", []).append(rate)
    return found


def reconnects() -> list[float]:
    """Restart the server again and again; return seconds from listening to `authenticate`."""
    seconds = []
    with ExitStack() as stack:
        first = Server(stack)
        worker(stack, first.port, steady_s=0.05)
        first.until("authenticate")
        current = first
        for _ in range(RESTARTS):
            current.process.kill()
            current.process.wait()
            current = Server(stack, first.port)
            began = time.perf_counter()
            current.until("authenticate")
            seconds.append(time.perf_counter() - began)
            time.sleep(0.1)  # longer than steady_s
    return sorted(seconds)


def weight_mb() -> float:
    """The worker's memory with jobs in flight, each with an id."""
    with ExitStack() as stack:
        server = Server(stack)
        process = worker(stack, server.port, concurrency=IN_FLIGHT, waiting=0)
        server.until("authenticate")
        for number in range(IN_FLIGHT):
            server.do("tell", data={"id": str(number), "type": "hold", "payload": PAYLOAD})
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/status") as answer:
                if json.load(answer)["jobs"]["running"] == IN_FLIGHT:
                    return resident_mb(process.pid)
            time.sleep(0.05)


def main() -> None:
    """Measure, and print the line."""
    middle = {name: statistics.median(values) for name, values in speeds().items()}
    waits = reconnects()
    figures = {
        "job_roundtrip_p50_ms": middle["ours_ms"],
        "jobs_per_s": middle["ours_jobs_per_s"],
        "named_job_roundtrip_p50_ms": middle["named_ms"],
        "named_jobs_per_s": middle["named_jobs_per_s"],
        "reconnect_s_p50": statistics.median(waits),
        "reconnect_s_p99": waits[min(len(waits) - 1, round(0.99 * len(waits)))],
        "rss_mb": weight_mb(),
    }
    peer = {"job_roundtrip_p50_ms": middle["peer_ms"], "jobs_per_s": middle["peer_jobs_per_s"]}
    ratios = {
        "roundtrip_vs_python_socketio": middle["ours_ms"] / middle["peer_ms"],
        "jobs_per_s_vs_python_socketio": middle["ours_jobs_per_s"] / middle["peer_jobs_per_s"],
    }
    print_line("worker", figures, {"python-socketio": peer}, ratios, WANTED)


if __name__ == "__main__":
    main()
