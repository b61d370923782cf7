"""Buying: from a paid POST to its 202, by 8 phones with a hotkey and a wallet each.

Three processes, as in production: the gateway (its real tree without a fleet, so that the purchase is what is
measured), the play-money facilitator, and this one with the phones. Limits are off. In turns with it the phones buy
from the yardstick, a bare process that does the same fsyncs, signature checks and HTTP (bench/support/bare_shop.py).
`python -m bench.purchase [--quick]`. `fsyncs_per_purchase` counts commits: each is one fsync of the write-ahead log.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from operator import truediv
from pathlib import Path
from typing import Any

import trio

from actors import ChildSpec, Context, Job
from bench.support.paying import Phone
from bench.support.report import print_line
from engram.http.client import HttpClient

QUICK = "--quick" in sys.argv
PHONES = 8
PURCHASES = 400 if QUICK else 1_600
WARM_UP = 80
ROUNDS = 4
WANTED = {"purchases_vs_yardstick": ">= 0.6", "p50_vs_yardstick": "<= 1.7"}
ROOT = Path(__file__).resolve().parent.parent
FACILITATOR = ("run.py", "facilitator", "--profile", "local", "--port", "0", "--log-level", "WARNING")
NO_LIMITS = {
    "environment": "local",
    "payments.recipient": "0x" + "ee" * 20,
    "http.requests_per_minute_per_ip": "0",
    "http.requests_per_minute_per_hotkey": "0",
    "sessions.live_per_hotkey": "1000000",
    "sessions.live_in_all": "1000000",
    "payments.holds_per_payer": "1000000",
    "payments.holds_per_address": "1000000",
    "gateway.port": "0",
    "ops.port": "0",
    "log.level": "WARNING",
}


# --- the gateway, in a process of its own -----------------------------------------------------------------------------


def serve(facilitator_url: str, folder: str, ledger_url: str, ready_fd: int) -> int:
    """The gateway without a fleet: whoever pays gets a session that stays `provisioning`. Without a `ledger_url` its
    ledger is a file."""
    import config
    import run
    from bench.support.shop import Shared, sell_without_fleet

    counted = Path(folder) / "counted.json"

    def counting(p: Shared) -> ChildSpec:
        async def count(context: Context) -> None:
            context.ready()
            try:
                await trio.sleep_forever()
            finally:
                with context.cleanup():
                    commits = await p.ledger.commits()
                    counted.write_text(json.dumps({"commits": commits.commits}))

        return ChildSpec("count", lambda: Job(count))

    sell_without_fleet(counting)
    flags = NO_LIMITS | {"payments.facilitator_url": facilitator_url, "data_dir": folder, "ledger.url": ledger_url}
    del flags["environment"]
    loaded = config.load("local", environ={}, flags=flags, env_files=())
    return run.main(["gateway"], loaded, ready_fd=ready_fd)


def gateway_command(facilitator_url: str, folder: Path, ledger_url: str = "") -> list[str]:
    """Return the command that serves so in `folder`, for `start`."""
    return ["-m", "bench.purchase", "--serve", facilitator_url, str(folder), ledger_url]


def start(command: list[str]) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Start a process that says when it serves; returns it and what it said."""
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, *command, str(writing)], cwd=ROOT, pass_fds=(writing,))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        line = pipe.readline()
    if not line:
        raise RuntimeError(f"{command[:3]} did not start: exit status {process.wait(30)}")
    return process, json.loads(line)


def cpu_s(pid: int) -> float:
    """CPU seconds of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the phones -------------------------------------------------------------------------------------------------------


class Shop:
    """A process that sells, and the phones that buy there."""

    def __init__(self, url: str, pid: int) -> None:
        self.phones = [Phone(url) for _ in range(PHONES)]
        self.pid = pid
        self.taken_ms: list[float] = []
        self.per_s: list[float] = []
        self.cpu_ms: list[float] = []

    async def open(self) -> None:
        """Ask for the price and buy until all is warm."""
        for phone in self.phones:
            await phone.ask_price()
        await self._crowd(WARM_UP)

    async def round(self) -> None:
        """One round of purchases, measured."""
        cpu, began = cpu_s(self.pid), time.perf_counter()
        await self._crowd(PURCHASES // ROUNDS)
        self.per_s.append(PURCHASES / ROUNDS / (time.perf_counter() - began))
        self.cpu_ms.append((cpu_s(self.pid) - cpu) * 1000 / PURCHASES * ROUNDS)
        self.taken_ms += [ms for phone in self.phones for ms in phone.taken_ms]

    async def _crowd(self, purchases: int) -> None:
        async def visit(phone: Phone) -> None:
            phone.taken_ms.clear()
            for _ in range(purchases // PHONES):
                await phone.buy()

        async with trio.open_nursery() as nursery:
            for phone in self.phones:
                nursery.start_soon(visit, phone)

    def figures(self) -> dict[str, float]:
        taken = sorted(self.taken_ms)
        return {
            "p50_ms": statistics.median(taken),
            "p99_ms": taken[int(len(taken) * 0.99)],
            "purchases_per_s": statistics.median(self.per_s),
            "cpu_ms_per_purchase": statistics.fmean(self.cpu_ms),
        }


async def take_turns(ours: Shop, bare: Shop) -> None:
    """Rounds of both, which of them begins changing."""
    for number in range(ROUNDS):
        for shop in (ours, bare) if number % 2 else (bare, ours):
            await shop.round()


async def count_bare_commits(url: str) -> int:
    answer = await HttpClient().request("GET", f"{url}/commits")
    return int(answer.json()["commits"])


def main() -> None:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "gateway").mkdir()
        facilitator, said = start([*FACILITATOR, "--data-dir", str(folder / "facilitator"), "--ready-fd"])
        stack.callback(end, facilitator)
        facilitator_url = said["facilitator_url"]
        gateway, said = start(gateway_command(facilitator_url, folder / "gateway"))
        stack.callback(end, gateway)
        ours = Shop(said["gateway_url"], gateway.pid)
        trio.run(ours.open)
        offer, ledger = json.dumps(ours.phones[0].offer), str(folder / "gateway" / "ledger.sqlite3")
        yardstick, said = start(["-m", "bench.support.bare_shop", facilitator_url, offer, ledger])
        stack.callback(yardstick.kill)
        bare = Shop(said["url"], yardstick.pid)
        trio.run(bare.open)
        cpu = cpu_s(facilitator.pid)
        trio.run(take_turns, ours, bare)
        facilitator_cpu_ms = (cpu_s(facilitator.pid) - cpu) * 1000 / (2 * PURCHASES)
        bare_commits = trio.run(count_bare_commits, said["url"])
        end(gateway)
        commits = json.loads((folder / "gateway" / "counted.json").read_text())["commits"]
    figures, theirs = ours.figures(), bare.figures()
    figures["facilitator_cpu_ms_per_purchase"] = facilitator_cpu_ms
    figures["fsyncs_per_purchase"] = commits / (PURCHASES + WARM_UP)
    theirs["fsyncs_per_purchase"] = bare_commits / (PURCHASES + WARM_UP)
    ratios = {
        "purchases_vs_yardstick": statistics.median(map(truediv, ours.per_s, bare.per_s)),
        "p50_vs_yardstick": figures["p50_ms"] / theirs["p50_ms"],
        "cpu_vs_yardstick": statistics.median(map(truediv, ours.cpu_ms, bare.cpu_ms)),
    }
    print_line("purchase", figures, {"yardstick": theirs}, ratios, WANTED, purchases=PURCHASES, phones=PHONES)


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        at = sys.argv.index("--serve")
        sys.exit(serve(sys.argv[at + 1], sys.argv[at + 2], sys.argv[at + 3], int(sys.argv[at + 4])))
    main()
