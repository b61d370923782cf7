"""Buying: from a paid POST to its 202, by 8 phones with a hotkey and a wallet each.

Three processes, as in production: the gateway (its real tree without a fleet, so that the purchase is what is
measured), the play-money facilitator, and this one with the phones. Limits are off. `python -m bench.purchase
[--quick]`. `fsyncs_per_purchase` counts the gateway's ledger commits: each is one fsync of the write-ahead log.
"""

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from actors import ChildSpec, Context, Job
from bench.support.paying import Phone

QUICK = "--quick" in sys.argv
PHONES = 8
PURCHASES = 400 if QUICK else 1_600
WARM_UP = 80
WANTED_LEAST = {"purchases_per_s": 130.0}
WANTED_MOST = {"p50_ms": 60.0}
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


def serve(facilitator_url: str, folder: str, ready_fd: int) -> int:
    """The gateway without a fleet: whoever pays gets a session that stays `provisioning`."""
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
    flags = NO_LIMITS | {"payments.facilitator_url": facilitator_url, "data_dir": folder}
    del flags["environment"]
    loaded = config.load("local", environ={}, flags=flags, env_files=())
    return run.main(["gateway"], loaded, ready_fd=ready_fd)


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


async def shop(url: str, gateway: int, facilitator: int) -> dict[str, float]:
    phones = [Phone(url) for _ in range(PHONES)]

    async def visit(phone: Phone, purchases: int) -> None:
        for _ in range(purchases):
            await phone.buy()

    async def crowd(purchases: int) -> None:
        async with trio.open_nursery() as nursery:
            for phone in phones:
                nursery.start_soon(visit, phone, purchases // PHONES)

    for phone in phones:
        await phone.ask_price()
    await crowd(WARM_UP)
    for phone in phones:
        phone.taken_ms.clear()
    cpu, facilitator_cpu, own = cpu_s(gateway), cpu_s(facilitator), resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    await crowd(PURCHASES)
    took_s = time.perf_counter() - began
    done = resource.getrusage(resource.RUSAGE_SELF)
    taken = sorted(ms for phone in phones for ms in phone.taken_ms)
    return {
        "p50_ms": statistics.median(taken),
        "p99_ms": taken[int(len(taken) * 0.99)],
        "purchases_per_s": len(taken) / took_s,
        "cpu_ms_per_purchase": (cpu_s(gateway) - cpu) * 1000 / len(taken),
        "facilitator_cpu_ms_per_purchase": (cpu_s(facilitator) - facilitator_cpu) * 1000 / len(taken),
        "phones_cpu_ms_per_purchase": (done.ru_utime + done.ru_stime - own.ru_utime - own.ru_stime) * 1000 / len(taken),
    }


def main() -> None:
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        gateway_folder = Path(folder) / "gateway"
        gateway_folder.mkdir()
        facilitator_folder = str(Path(folder) / "facilitator")
        try:
            facilitator, told = start(
                [*FACILITATOR, "--data-dir", facilitator_folder, "--ready-fd"],
            )
            running.append(facilitator)
            gateway, said = start(["-m", "bench.purchase", "--serve", told["facilitator_url"], str(gateway_folder)])
            running.append(gateway)
            figures = trio.run(shop, said["gateway_url"], gateway.pid, facilitator.pid)
        finally:
            for process in reversed(running):
                process.send_signal(signal.SIGTERM)
                process.wait(60)
        counted = json.loads((gateway_folder / "counted.json").read_text())
    figures["fsyncs_per_purchase"] = counted["commits"] / (PURCHASES + WARM_UP)
    missed = [name for name, least in WANTED_LEAST.items() if figures[name] < least]
    missed += [name for name, most in WANTED_MOST.items() if figures[name] > most]
    line = {
        "bench": "purchase",
        "figures": {name: round(value, 3) for name, value in figures.items()},
        "peers": {},
        "ratios": {},
        "wanted": {
            **{name: f">= {least:g}" for name, least in WANTED_LEAST.items()},
            **{name: f"<= {most:g}" for name, most in WANTED_MOST.items()},
        },
        "missed": missed,
        "purchases": PURCHASES,
        "phones": PHONES,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    if "--serve" in sys.argv:
        at = sys.argv.index("--serve")
        sys.exit(serve(sys.argv[at + 1], sys.argv[at + 2], int(sys.argv[at + 3])))
    main()
