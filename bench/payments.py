"""Payments on a real chain: anvil, the x402 package's own facilitator, and a real gateway without a fleet.

Three parts. (1) What is checked of a payment before a facilitator is called: header, terms, EIP-712 signature; the peer
is the package's own decoding and verifying of the same, the yardstick the same checks by json, keccak and coincurve.
(2) A paid POST to its 202, one phone, in turns with FastAPI behind the package's middleware on the same chain and
facilitator; `facilitator_share` is the part of that time that is spent waiting for the facilitator,
`cpu_ms_per_purchase` user and system time of the selling process, threads included. (3) 10,000 payments of unknown
outcome found at start (a quarter was settled on the chain, 2 % can still be, the rest expired unused) while another
phone goes on buying: how late the gateway's loop wakes a task meanwhile, how much memory it takes, how long those
purchases take; the yardstick is a bare trio loop that asks the chain about the same payments
(bench/support/bare_reconciler.py). `python -m bench.payments [--quick]`.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import trio

from actors import ChildSpec, Context, Job
from bench.support import bare_reconciler, static_checks
from bench.support.keepalive import own_cpu_s
from bench.support.paying import Phone
from bench.support.report import print_line
from engram.http.client import HttpClient
from engram.payments.keccak import checksummed
from engram.payments.model import Requirements
from engram.payments.networks import BASE_SEPOLIA

QUICK: Final = "--quick" in sys.argv
ROUNDS, IN_A_ROUND = (16, 5) if QUICK else (96, 5)
"""Turns are so short that what else the machine does hits both shops alike."""
WARM_UP: Final = 20
UNKNOWN: Final = 1_000 if QUICK else 10_000
PAUSE_S: Final = 0.2
"""Between the purchases that go on while unknown payments are looked at."""
WANTED: Final = {
    "static_check_vs_yardstick": "<= 2",
    "reconcile_lag_p99_vs_yardstick": "<= 4",
    "cpu_ms_per_purchase_vs_fastapi_x402": "<= 1.5",
    "p50_ms_vs_fastapi_x402": "<= 1.1",
}
"""The peer keeps nothing durable."""
LAG_EVERY_S: Final = 0.005
SELDOM_S: Final = 60.0
ROOT: Final = Path(__file__).resolve().parent.parent
RECIPIENT: Final = b"\xee" * 20
REQUIREMENTS: Final = Requirements(BASE_SEPOLIA, 100_000, RECIPIENT, 120)
LIMITLESS: Final = 1_000_000


# --- the gateway, in a process of its own -----------------------------------------------------------------------------


def serve(folder: Path, facilitator_url: str, rpc_url: str, lag_every_s: float, ready_fd: int) -> int:
    """The gateway without a fleet: whoever pays gets a session that stays `provisioning`.

    A sample of the loop's lag is taken every `lag_every_s`, which itself costs the more the more often it is.
    """
    import config
    import run
    from bench.support.shop import Shared, sell_without_fleet

    lags: list[tuple[float, float]] = []

    def measuring(p: Shared) -> ChildSpec:
        async def measure(context: Context) -> None:
            context.ready()
            try:
                while True:
                    due = trio.current_time() + lag_every_s
                    await trio.sleep_until(due)
                    lags.append((time.monotonic(), trio.current_time() - due))
            finally:
                waited = [
                    sample.value
                    for metric in p.metrics.facilitator_seconds.collect()
                    for sample in metric.samples
                    if sample.name.endswith("_sum") and sample.labels["call"] != "look"
                ]
                found = {"facilitator_s": sum(waited), "lags": lags}
                (folder / "measured.json").write_text(json.dumps(found))

        return ChildSpec("measure", lambda: Job(measure))

    sell_without_fleet(measuring)
    flags = {
        "data_dir": str(folder),
        "payments.network": BASE_SEPOLIA.caip2,
        "payments.recipient": checksummed(RECIPIENT),
        "payments.facilitator_url": facilitator_url,
        "payments.rpc_url": rpc_url,
        "payments.confirmations": "1",
        "payments.holds_per_payer": str(LIMITLESS),
        "payments.holds_per_address": str(LIMITLESS),
        "sessions.live_per_hotkey": str(LIMITLESS),
        "sessions.live_in_all": str(LIMITLESS),
        "http.requests_per_minute_per_ip": "0",
        "http.requests_per_minute_per_hotkey": "0",
        "gateway.port": "0",
        "ops.port": "0",
        "log.level": "ERROR",
    }
    return run.main(["gateway"], config.load("local", environ={}, flags=flags, env_files=()), ready_fd=ready_fd)


class Served:
    """A process that says where it serves; told to end when the stack is left."""

    def __init__(self, stack: ExitStack, *command: str) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen([sys.executable, "-m", *command, str(writing)], cwd=ROOT, pass_fds=(writing,))
        stack.callback(self.end)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
        if not line:
            raise RuntimeError(f"{command[0]} did not start: exit status {self._process.wait(30)}")
        self.url = str(json.loads(line)["url"])

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    @property
    def cpu_s(self) -> float:
        return own_cpu_s(self._process.pid)

    @property
    def resident_mb(self) -> float:
        for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")


class House:
    """A chain and the official facilitator; what sells on it is started one after the other."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        from tests.evm.chain import Chain
        from tests.evm.facilitator_process import OfficialFacilitator
        from tests.evm.shop import GAS_KEY

        self._stack, self._folder = stack, folder
        self.chain = stack.enter_context(Chain(folder / "anvil.log"))
        self.facilitator = stack.enter_context(OfficialFacilitator(self.chain.url, GAS_KEY, folder / "facilitator.log"))

    def gateway(self, folder: Path, lag_every_s: float) -> Served:
        folder.mkdir(mode=0o700, exist_ok=True)
        arguments = (str(folder), self.facilitator.url, self.chain.url, str(lag_every_s))
        return Served(self._stack, "bench.payments", "--serve", *arguments)

    def peer(self) -> Served:
        recipient = checksummed(RECIPIENT)
        return Served(self._stack, "bench.support.fastapi_shop", self.facilitator.url, recipient)

    def phone(self, shop: Served) -> Phone:
        phone = Phone(shop.url)
        self.chain.mint(phone.wallet.address, 1_000_000_000_000)
        return phone


# --- a purchase -------------------------------------------------------------------------------------------------------


async def take_turns(shops: Sequence[Served], phones: Sequence[Phone]) -> list[float]:
    """Buy at each shop in turns; returns the CPU milliseconds that a purchase took each shop."""
    spent = [0.0] * len(shops)
    for phone in phones:
        await phone.ask_price()
        for _ in range(WARM_UP):
            await phone.buy()
        phone.taken_ms.clear()
    for _ in range(ROUNDS):
        for number, (shop, phone) in enumerate(zip(shops, phones, strict=True)):
            before = shop.cpu_s
            for _ in range(IN_A_ROUND):
                await phone.buy()
            spent[number] += shop.cpu_s - before
    return [cpu * 1000 / (ROUNDS * IN_A_ROUND) for cpu in spent]


async def ask_spent(peer: Served) -> float:
    answer = await HttpClient().request("GET", f"{peer.url}/spent")
    return float(answer.json()["facilitator_s"])


def purchases(house: House, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    ours, peer = house.gateway(folder / "gateway", SELDOM_S), house.peer()
    phones = [house.phone(ours), house.phone(peer)]
    cpu = trio.run(take_turns, (ours, peer), phones)
    peer_waited_s = trio.run(ask_spent, peer)
    ours.end()
    waited_s = json.loads((folder / "gateway" / "measured.json").read_text())["facilitator_s"]
    figures = [
        {
            "p50_ms": statistics.median(phone.taken_ms),
            "p99_ms": percentile(phone.taken_ms, 0.99),
            # What is waited for in the warm-up counts on neither side of the fraction.
            "facilitator_share": waited * 1000 / (WARM_UP + len(phone.taken_ms)) / statistics.fmean(phone.taken_ms),
            "cpu_ms_per_purchase": cpu_ms,
        }
        for phone, waited, cpu_ms in zip(phones, (waited_s, peer_waited_s), cpu, strict=True)
    ]
    return figures[0], figures[1]


# --- reconciling ------------------------------------------------------------------------------------------------------


class Reconciled:
    """What was seen while unknown payments became known."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.resident_mb: list[float] = []
        self.turned_away = 0
        """Purchases answered by a 503: the facilitator did not serve them."""


async def reconcile(gateway: Served, phone: Phone, still_unknown: Callable[[], int]) -> Reconciled:
    seen = Reconciled()
    seen.began, seen.resident_mb = time.monotonic(), [gateway.resident_mb]
    await phone.ask_price()
    async with trio.open_nursery() as nursery:

        async def shop() -> None:
            while True:
                answer = await phone.try_to_buy()
                assert answer.status in (202, 503), answer.content
                seen.turned_away += answer.status == 503
                await trio.sleep(PAUSE_S)

        nursery.start_soon(shop)
        with trio.fail_after(600):
            while still_unknown():
                await trio.sleep(0.5)
                seen.resident_mb.append(gateway.resident_mb)
        seen.ended = time.monotonic()
        nursery.cancel_scope.cancel()
    return seen


def reconciling(house: House, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Returns what was measured of the gateway, and of the yardstick."""
    import sqlite3

    from bench.support.unknown_payments import fill
    from engram.ledger import LEDGER_FILE

    folder.mkdir(mode=0o700)
    filled = fill(folder, house.chain, UNKNOWN, REQUIREMENTS)
    ledger = folder / LEDGER_FILE
    bare_lags, bare_s = trio.run(bare_reconciler.measure, ledger, "127.0.0.1", house.chain.port, LAG_EVERY_S)
    gateway = house.gateway(folder, LAG_EVERY_S)
    phone = house.phone(gateway)
    counts = sqlite3.connect(f"file:{folder / LEDGER_FILE}?mode=ro", uri=True)

    def count(state: str) -> int:
        return int(counts.execute("select count(*) from payments where state = ?", (state,)).fetchone()[0])

    seen = trio.run(reconcile, gateway, phone, lambda: count("unknown"))
    assert count("void") == filled.expired, "what expired unused is void"
    bought = count("settled") - filled.paid - filled.open
    assert bought >= len(phone.taken_ms) - seen.turned_away, "what was or can be paid is settled"
    counts.close()
    gateway.end()
    measured = json.loads((folder / "measured.json").read_text())["lags"]
    lags = [lag * 1000 for at, lag in measured if seen.began <= at <= seen.ended]
    took_s = seen.ended - seen.began
    bare = {"reconcile_lag_p99_ms": percentile(bare_lags, 0.99), "reconcile_s": bare_s}
    figures = {
        "reconcile_lag_p99_ms": percentile(lags, 0.99),
        "reconcile_lag_p50_ms": statistics.median(lags),
        "reconcile_lag_max_ms": max(lags),
        "reconcile_rss_growth_mb": max(seen.resident_mb) - seen.resident_mb[0],
        "reconcile_s": took_s,
        "reconcile_per_s": UNKNOWN / took_s,
        "purchase_p50_ms_meanwhile": statistics.median(phone.taken_ms),
        "purchase_p99_ms_meanwhile": percentile(phone.taken_ms, 0.99),
        "purchases_meanwhile": float(len(phone.taken_ms)),
        "purchases_turned_away_meanwhile": float(seen.turned_away),
    }
    return figures, bare


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    figures, peer, bare = static_checks.measure(rounds=3 if QUICK else 9)
    parts = [argument.removeprefix("--only=") for argument in sys.argv if argument.startswith("--only=")]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        house: Any = House(stack, folder)
        if not parts or "purchases" in parts:
            ours, theirs = purchases(house, folder)
            figures, peer = figures | ours, peer | theirs
        if not parts or "reconcile" in parts:
            ours, theirs = reconciling(house, folder / "reconciling")
            figures, bare = figures | ours, bare | theirs
    ratios: dict[str, float] = {}
    for name in ("static_check_cpu_ms", "p50_ms", "p99_ms", "cpu_ms_per_purchase"):
        if name in peer:
            ratios[f"{name}_vs_fastapi_x402"] = figures[name] / peer[name]
    for name, figure in (("static_check", "static_check_cpu_ms"), ("reconcile_lag_p99", "reconcile_lag_p99_ms")):
        if figure in bare:
            ratios[f"{name}_vs_yardstick"] = figures[figure] / bare[figure]
    print_line("payments", figures, {"fastapi_x402": peer, "yardstick": bare}, ratios, WANTED)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        at = sys.argv.index("--serve")
        served, facilitator, rpc, lag_every_s, fd = sys.argv[at + 1 : at + 6]
        sys.exit(serve(Path(served), facilitator, rpc, float(lag_every_s), int(fd)))
    main()
