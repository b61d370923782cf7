"""What a process costs before it does anything: importing the command line, and a gateway that nobody uses.

`import_s` is CPU time (user and system) of `engram --help`, beside a Python that imports nothing; `idle_rss_mb` what is
resident of `run.py gateway --profile local` some seconds after it is ready, its children left out. `python -m
bench.process [--quick]`.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.purchase import end, start
from bench.support.report import print_line

QUICK = "--quick" in sys.argv
ROUNDS = 5 if QUICK else 21
SETTLE_S = 5.0
ROOT = Path(__file__).resolve().parent.parent
WANTED = {"import_s": "<= 0.35", "idle_rss_mb": "<= 95"}
"""The one time that is wanted in seconds: a person waits for it, whatever the machine."""


def cpu_s(*command: str) -> float:
    """CPU seconds of a Python that ends by itself."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def idle_rss_mb() -> float:
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--profile", "local", "--port", "0", "--ops-port", "0", "--log-level", "ERROR", "--data-dir", folder)
        gateway, _ = start(["run.py", "gateway", *flags, "--ready-fd"])
        try:
            time.sleep(SETTLE_S)
            return resident_mb(gateway.pid)
        finally:
            end(gateway)


def main() -> None:
    took: list[float] = []
    bare: list[float] = []
    for _ in range(ROUNDS):
        bare.append(cpu_s("-c", ""))
        took.append(cpu_s("-c", "from engram.cli import main; main()", "--help"))
    figures = {"import_s": statistics.median(took), "idle_rss_mb": max(idle_rss_mb() for _ in range(3))}
    ratios = {"import_vs_yardstick": statistics.median(took) / statistics.median(bare)}
    print_line("process", figures, {"yardstick": {"import_s": statistics.median(bare)}}, ratios, WANTED)


if __name__ == "__main__":
    main()
