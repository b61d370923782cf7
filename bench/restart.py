"""From the start of the process to ready, with 0, 100 and 5,000 live sessions in the ledger, and what it weighs then.

The gateway is the real one, started as by `run.py gateway --profile local`; only its nodes are a double, which knows
all of them at once. In turns with it a bare process opens the same ledger, checks it and reads the same rows
(bench/support/bare_restart.py). Beside it, what a purchase and a checkpoint cost with 200,000 sessions
(bench/support/crowd.py). `python -m bench.restart [--quick]`.
"""

import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.support import crowd
from bench.support.report import print_line
from bench.support.sessions import Live, fill

QUICK = "--quick" in sys.argv
ROUNDS = {0: 1, 100: 1, 5_000: 1} if QUICK else {0: 5, 100: 5, 5_000: 5}
SETTLE_S = 3.0
WANTED = {
    "ready_vs_yardstick_100": "<= 50",
    "ready_vs_yardstick_5000": "<= 20",
    "rss_mb_5000": "<= 150",
    "reserve_sql_ms_200k": "<= 1",
    "writer_stall_200k_ms": "<= 50",
}


def endpoint_of(n: int) -> str:
    return f"http://127.{1 + n // 62_500}.{n // 250 % 250}.{1 + n % 250}:9"


def gateway(folder: Path, ready_fd: int) -> int:
    """The gateway's process: everything its own but the nodes."""
    import config
    import run
    from engram.provisioning import backend_factory
    from engram.provisioning.backends import Backends
    from tests.fakes.nodes import InMemoryProvisioner

    double = InMemoryProvisioner(places=10_000)
    for live in json.loads((folder / "nodes.json").read_text(encoding="utf-8")):
        double.adopt(Live(*live).spec())
    setattr(backend_factory, "make_backends", lambda ports: Backends([double]))  # noqa: B010  # alone not its own
    flags = {
        "data_dir": str(folder),
        "gateway.port": "0",
        "ops.port": "0",
        "log.level": "ERROR",
        "sessions.live_in_all": "10000",
    }
    status = run.main(["gateway"], config.load(profile="local", files=[], environ={}, flags=flags), ready_fd=ready_fd)
    (folder / "watched.json").write_text(json.dumps([double.was_watched, len(double.launches)]), encoding="utf-8")
    return status


def boot(count: int) -> tuple[float, float, float]:
    """Returns seconds to ready, resident megabytes some seconds later, and seconds to ready of the yardstick."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        live = fill(folder, count, endpoint_of)
        nodes = [[one.session_id, one.token, one.endpoint, one.port] for one in live]
        (folder / "nodes.json").write_text(json.dumps(nodes), encoding="utf-8")
        bare = ["-m", "bench.support.bare_restart", str(folder / "ledger.sqlite3")]
        with ready(bare) as (_, bare_s):
            pass
        with ready(["-m", "bench.restart", "--gateway", name]) as (process, ready_s):
            time.sleep(SETTLE_S)
            rss_mb = resident_mb(process.pid)
        if json.loads((folder / "watched.json").read_text(encoding="utf-8")) != [True, 0]:
            raise RuntimeError("the gateway did not work with the double, or started nodes that run already")
        return ready_s, rss_mb, bare_s


@contextlib.contextmanager
def ready(command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A process that has said on the descriptor given last that it is ready, and how many seconds that took."""
    reading, writing = os.pipe()
    words = [sys.executable, *command, str(writing)]
    began = time.perf_counter()
    process = subprocess.Popen(words, pass_fds=(writing,), cwd=Path(__file__).parent.parent)
    os.close(writing)
    try:
        if not select.select([reading], [], [], 60.0)[0] or not os.read(reading, 4096):
            raise RuntimeError(f"{command[1:3]} did not become ready")
        yield process, time.perf_counter() - began
    finally:
        os.close(reading)
        process.terminate()
        process.wait(60)


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def main() -> None:
    if "--gateway" in sys.argv:
        at = sys.argv.index("--gateway")
        sys.exit(gateway(Path(sys.argv[at + 1]), int(sys.argv[at + 2])))
    figures: dict[str, float] = {}
    bare: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for count, rounds in ROUNDS.items():
        boots = [boot(count) for _ in range(rounds)]
        figures[f"ready_s_{count}"] = statistics.median(ready_s for ready_s, _, _ in boots)
        figures[f"rss_mb_{count}"] = max(rss_mb for _, rss_mb, _ in boots)
        bare[f"ready_s_{count}"] = statistics.median(bare_s for _, _, bare_s in boots)
        ratios[f"ready_vs_yardstick_{count}"] = statistics.median(ready_s / bare_s for ready_s, _, bare_s in boots)
    figures |= crowd.measure()
    print_line("restart", figures, {"yardstick": bare}, ratios, WANTED)


if __name__ == "__main__":
    main()
