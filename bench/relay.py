"""The relay from finality to the receiver's acknowledgement, both sides durable, over loopback; draining; signing.

The emitter is the one of a gateway or validator, in this process; the receiver is `engram.xeris` in a process of its
own, each with a ledger on the disk. Payloads are the scores of 64 miners, in 64 streams. A payload is timed from the
moment at which it was to be queued (open loop: a slow answer delays none of the following) to the commit that has it
delivered. With quorum 2 each payload was signed by two validators, one of them elsewhere, before it is queued. Guarded
is what a validator runs: the default concurrency, and the finality guard over an endpoint of the chain that answers
within 5 ms; the blocks are final already, and each is new to the emitter once for all of its 64 payloads. The other
figures have no guard.

`python -m bench.relay [--quick] [--drain] [--latency]`: without `--quick` 100,000 payloads are drained, which takes
minutes; `--drain` empties a small outbox and nothing else, for a profiler; `--latency` leaves the draining out.
"""

import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec
import structlog
import trio
from sqlalchemy import Connection, update

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from bench.support.report import print_line
from config.model import HttpSettings, RelaySettings
from engram.chain.errors import CallRefused
from engram.chain.read.node import Json, RpcCall
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import LedgerActor, LedgerClient, open_inline
from engram.relay import MinerScore, PayloadSigner, RetryPolicy, ScoresPayload, records, scores_payload
from engram.relay.actor import EmitterPorts, RelayEmitter
from engram.relay.chain_heads import ChainHeads
from engram.relay.finality import DEPTH
from engram.relay.model import Entry
from engram.relay.protocol import OutboxGrew
from engram.relay.queueing import queue
from engram.relay.receiver import Receiver
from engram.relay.rounds import RoundLosses
from engram.relay.signer import Keyring
from engram.relay.tables import relay_outbox
from engram.roles.process import yield_to_the_loop
from engram.telemetry.metrics import Metrics
from engram.xeris import judging
from engram.xeris import records as xeris_records
from engram.xeris.app import xeris_app
from engram.xeris.receiver import XerisReceiver
from tests.http.harness import serving

QUICK = "--quick" in sys.argv
ONE, TWO, RECEIVER = (Keypair.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
SHARES = Random(1)
STREAMS = 64
MINERS = 64
RATE_S = 300
BLOCKS = 10**6
"""The tempo here: the first and the last block are of one epoch, so the permits noted for them hold for all."""
OPEN_LOOP_S = 3 if QUICK else 20
SATURATED = 1_000 if QUICK else 10_000
ENDPOINT_S = 0.005
DRAINED = 5_000 if QUICK else 20_000 if "--drain" in sys.argv else 100_000
WANTED = {
    "emit_ack_p50_ms": "<= 15",
    "emit_ack_guarded_p50_ms": "<= 15",
    "emits_per_s": ">= 300",
    "drain_rss_growth_mb": "<= 50",
    "loop_lag_p99_ms": "<= 20",
    "enqueue_ms_at_100k": "<= 1",
    "sign_cost_vs_raw_256": "<= 12",
}

REPORTED = {
    "emit_ack_quorum2_p50_ms": "no bound: the time from a bundle that is signed to its acknowledgement. Collecting the"
    " signatures comes before it, and takes as long as the block's finality and the proposer's turn",
    "check_quorum2_cpu_us": "no bound: a second signature to verify is what a bundle costs a receiver beyond quorum 1",
}
"""Figures that are measured and held to no bound, and why."""


def scores(block: int, stream: int, miners: int = MINERS) -> ScoresPayload:
    """A round's payload; every tenth miner's latency was never measured."""
    found = {
        str(uid): MinerScore(SHARES.random(), SHARES.random() * 300 if uid % 10 else None, SHARES.random())
        for uid in range(miners)
    }
    return scores_payload(found, netuid=stream + 1, block=block, uid=stream, round_ts=time.time())


async def receive(folder: Path, quorum: int) -> None:
    """Run the receiver until its standard input ends; its first line is its port."""
    registry, clock = Registry(), SystemClock()
    ledger = LedgerClient(registry.ref(LedgerActor, "ledger"), folder)
    spec = SupervisorSpec("root", [ChildSpec("ledger", lambda: LedgerActor(folder, lambda error: None), name="ledger")])
    settings = HttpSettings(requests_per_minute_per_ip=0)
    receiver = XerisReceiver(
        ledger, RECEIVER, clock, gateways=frozenset(), netuids=range(1, STREAMS + 1), quorum=quorum, keep_s=86_400.0
    )
    app = xeris_app(receiver, ledger, settings=settings, clock=clock, ids=SeededIds(1), metrics=Metrics())
    async with open_system(spec, registry=registry):
        keys = [ONE.public_key, TWO.public_key]
        for netuid in range(1, STREAMS + 1):  # all blocks of the payloads here are of one long epoch
            for block in (0, BLOCKS):
                await ledger.write(lambda c, n=netuid, b=block: xeris_records.note_permits(c, n, b, keys, BLOCKS))  # type: ignore[misc]
        async with serving(app, settings) as running:
            sys.stdout.write(f"{running.address.port}\n")
            sys.stdout.flush()
            await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    ledger.close()


class Bundle(msgspec.Struct, frozen=True):
    """A payload that two validators have signed, as it is sent."""

    body: bytes
    hash: str


def bundle(payload: ScoresPayload) -> Bundle:
    """Sign a payload by both validators."""
    signed = PayloadSigner.of(ONE).sign(msgspec.json.encode(payload))
    second = {"hotkey": TWO.ss58, "signature": "0x" + TWO.sign(signed.signed_hash.encode()).hex()}
    body = signed.body[:-1] + b',"cosignatures":' + msgspec.json.encode([second]) + b"}"
    return Bundle(body, signed.signed_hash)


def enqueue(connection: Connection, payload: ScoresPayload, signed: Bundle | None) -> None:
    """Queue a payload, or the bundle that it became."""
    records.enqueue(connection, payload, time.time(), signer=ONE.ss58, block_hash=hash_of(payload.block))
    if signed is not None:
        connection.execute(
            update(relay_outbox)
            .where(relay_outbox.c.nonce == payload.nonce, relay_outbox.c.kind == "scores")
            .values(signed=signed.body, signed_hash=signed.hash)
        )


class FinalChain:
    """An endpoint of the chain on which every block of these payloads is final and deep, asked over a network."""

    name = "bench"
    head = BLOCKS

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        await trio.sleep(ENDPOINT_S)
        return [self._answer(call) for call in calls]

    def _answer(self, call: RpcCall) -> Json:
        match call.method, call.params:
            case "chain_getFinalizedHead", _:
                return "0x" + hash_of(self.head).hex()
            case "chain_getBlockHash", (int(number),):
                return "0x" + hash_of(number).hex()
            case "chain_getHeader", at:
                return {"number": hex(self.head if at else self.head + DEPTH)}
            case _:
                return CallRefused(-32601, f"{call.method} is not of this bench")


def hash_of(block: int) -> bytes:
    """Return the hash that a block has here."""
    return block.to_bytes(32, "big")


class Emitting:
    """The emitter with its ledger; `settled` is called for each payload once it is delivered."""

    def __init__(self, folder: Path, port: int, *, guarded: bool = False) -> None:
        self.registry = Registry()
        self.ledger = LedgerClient(self.registry.ref(LedgerActor, "ledger"), folder)
        self.http, metrics, clock = HttpClient(), Metrics(), SystemClock()
        self.settled: Callable[[Entry], None] = lambda entry: None
        receiver = Receiver(self.http, f"http://127.0.0.1:{port}/payloads", 30.0)
        ports = EmitterPorts(
            ledger=self.ledger,
            receiver=receiver,
            ask_terms=receiver.ask_terms,
            destination="bench",
            keyring=Keyring(PayloadSigner.of(ONE)),
            policy=RetryPolicy(),
            clock=clock,
            rng=Random(1),
            metrics=metrics,
            losses=RoundLosses(metrics),
            concurrency=RelaySettings().concurrency if guarded else STREAMS,
            guard=ChainHeads([FinalChain()], clock) if guarded else None,
            settled=self._settled,
        )
        self.ledger_spec = ChildSpec("ledger", lambda: LedgerActor(folder, lambda error: None), name="ledger")
        self.relay_spec = ChildSpec("relay", lambda: RelayEmitter(ports), name="relay")
        self.ref = self.registry.ref(RelayEmitter, "relay")

    def _settled(self, entry: Entry) -> None:
        self.settled(entry)

    async def close(self) -> None:
        """Close what it opened."""
        self.ledger.close()
        await self.http.aclose()


async def open_loop(folder: Path, port: int, quorum: int, guarded: bool = False) -> float:
    """Queue RATE_S payloads a second; return the median of milliseconds to their acknowledgement."""
    due_at: dict[str, float] = {}
    took: list[float] = []
    all_here = trio.Event()
    planned = [
        scores(number // STREAMS if guarded else number, number % STREAMS) for number in range(RATE_S * OPEN_LOOP_S)
    ]
    bundles = {each.nonce: bundle(each) for each in planned} if quorum > 1 else {}
    emitting = Emitting(folder, port, guarded=guarded)

    def settled(entry: Entry) -> None:
        took.append((time.perf_counter() - due_at[entry.nonce]) * 1e3)
        if len(took) == len(planned):
            all_here.set()

    emitting.settled = settled

    async def one(payload: ScoresPayload) -> None:
        await queue(
            emitting.ledger,
            lambda c: enqueue(c, payload, bundles.get(payload.nonce)),
            lambda: emitting.ref.hint(OutboxGrew()),
        )

    spec = SupervisorSpec("root", [emitting.ledger_spec, emitting.relay_spec])
    async with open_system(spec, registry=emitting.registry), trio.open_nursery() as nursery:
        await trio.sleep(0.5)
        began = time.perf_counter()
        for number, payload in enumerate(planned):
            at = began + number / RATE_S
            due_at[payload.nonce] = at
            await trio.sleep(max(0.0, at - time.perf_counter()))
            nursery.start_soon(one, payload)
        with trio.move_on_after(60 + OPEN_LOOP_S):
            await all_here.wait()
    await emitting.close()
    assert len(took) == len(planned), f"{len(planned) - len(took)} payloads were not acknowledged"
    return statistics.median(took)


async def drain(folder: Path, port: int, payloads: int) -> dict[str, float]:
    """Fill the outbox, then start the emitter; return how fast, how smoothly and in how much memory it empties it."""
    emitting, done, watched = Emitting(folder, port), trio.Event(), Watched()
    left = payloads

    def settled(_: Entry) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    emitting.settled = settled
    samples = [scores(0, stream) for stream in range(STREAMS)]

    def fill(connection: Connection, first: int) -> None:
        for number in range(first, min(first + 1_000, payloads)):
            sample = samples[number % STREAMS]
            nonce = f"{number}:{number % STREAMS}:{number}"
            payload = msgspec.structs.replace(sample, block=number, nonce=nonce, round_ts=time.time())
            records.enqueue(connection, payload, time.time(), signer=ONE.ss58)

    before_mb = rss_mb()  # before the outbox is filled: what filling leaves behind would hide what draining takes
    inline = open_inline(folder / "ledger.sqlite3")
    for first in range(0, payloads, 1_000):
        inline.write_now(lambda c, f=first: fill(c, f))  # type: ignore[misc]
    inline.close()
    spec = SupervisorSpec("root", [emitting.ledger_spec, emitting.relay_spec])
    began, cpu = time.perf_counter(), time.process_time()
    async with open_system(spec, registry=emitting.registry), trio.open_nursery() as nursery:
        nursery.start_soon(watched.run)
        await done.wait()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        nursery.cancel_scope.cancel()
    await emitting.close()
    return {
        "per_s": payloads / seconds,
        "cpu_ms": cpu * 1e3 / payloads,
        "rss_growth_mb": watched.peak_mb - before_mb,
        "loop_lag_p99_ms": statistics.quantiles(watched.lags, n=100)[98],
    }


def rss_mb() -> float:
    """Return the memory that the process has now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class Watched:
    """How late the loop is, in milliseconds, and the most memory that the process has, while it runs."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.peak_mb = rss_mb()

    async def run(self) -> None:
        """Look every 20 ms until cancelled."""
        while True:
            due = time.perf_counter() + 0.02
            await trio.sleep(0.02)
            self.lags.append((time.perf_counter() - due) * 1e3)
            self.peak_mb = max(self.peak_mb, rss_mb())


def cpu_us(work: Callable[[], object], rounds: int = 300) -> float:
    """Return the median CPU time of a call in microseconds: what others run meanwhile does not count."""
    took = []
    for _ in range(rounds):
        began = time.thread_time_ns()
        work()
        took.append((time.thread_time_ns() - began) / 1e3)
    return statistics.median(took)


def signing() -> float:
    """Return what signing a payload of 256 miners costs, in signatures over its hash alone."""
    payload, signer = msgspec.json.encode(scores(1, 1, 256)), PayloadSigner.of(ONE)
    return cpu_us(lambda: signer.sign(payload)) / cpu_us(lambda: ONE.sign(b"0" * 64))


def enqueueing(folder: Path, waiting: int) -> tuple[float, float]:
    """Return the milliseconds of queueing a payload and of the relay's status, with so many payloads waiting."""
    ledger = open_inline(folder / "ledger.sqlite3")
    sample = scores(0, 0, 1)

    def fill(connection: Connection, first: int) -> None:
        for number in range(first, first + 5_000):
            nonce = f"{number}:{number % STREAMS}:{number}"
            payload = msgspec.structs.replace(sample, netuid=1 + number % STREAMS, block=number, nonce=nonce)
            records.enqueue(connection, payload, 0.0, signer=ONE.ss58)

    for first in range(0, waiting, 5_000):
        ledger.write_now(lambda c, f=first: fill(c, f))  # type: ignore[misc]
    more = iter([scores(10**6 + number, number % STREAMS) for number in range(300)])
    queued_ms = ledger.write_now(lambda c: cpu_us(lambda: records.enqueue(c, next(more), 1.0, signer=ONE.ss58)) / 1e3)
    status_ms = ledger.write_now(
        lambda c: cpu_us(lambda: records.status(c, enabled=True, failures_in_a_row=0), 20) / 1e3
    )
    ledger.close()
    return queued_ms, status_ms


def checking() -> tuple[float, float]:
    """Return the CPU microseconds in which a receiver checks a payload of one signature, and a bundle of two."""
    payload, now = scores(1, 1), time.time()
    one = PayloadSigner.of(ONE).sign(msgspec.json.encode(payload)).body
    two = bundle(payload).body
    return cpu_us(lambda: judging.read(one, now, 86_400.0)), cpu_us(lambda: judging.read(two, now, 86_400.0))


class ReceiverProcess:
    """The receiver as a process of its own, with a folder of its own."""

    def __init__(self, folder: Path, quorum: int) -> None:
        folder.mkdir()
        command: Sequence[str] = [sys.executable, "-m", "bench.relay", "--receive", str(folder), str(quorum)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd())
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> int:
        return self.port

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def measured(quorum: int, work: Callable[[Path, int], object]) -> object:
    """Run the work with folders and a receiver of its own."""
    with tempfile.TemporaryDirectory() as name, ReceiverProcess(Path(name, "receiver"), quorum) as port:
        Path(name, "emitter").mkdir()
        return work(Path(name, "emitter"), port)


def main() -> None:
    yield_to_the_loop()  # as every role does
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if "--receive" in sys.argv:
        folder, quorum = sys.argv[-2:]
        trio.run(receive, Path(folder), int(quorum))
        return
    figures: dict[str, object] = {"sign_cost_vs_raw_256": signing()}
    if "--drain" in sys.argv:
        sys.stderr.write(f"{measured(1, lambda folder, port: trio.run(drain, folder, port, DRAINED))}\n")
        return
    with tempfile.TemporaryDirectory() as name:
        figures["enqueue_ms_at_100k"], figures["status_ms_at_100k"] = enqueueing(Path(name), 100_000)
    figures["check_cpu_us"], figures["check_quorum2_cpu_us"] = checking()
    sys.stderr.write(json.dumps(figures) + "\n")
    for needed, figure in ((1, "emit_ack_p50_ms"), (2, "emit_ack_quorum2_p50_ms")):
        figures[figure] = measured(needed, lambda folder, port, q=needed: trio.run(open_loop, folder, port, q))  # type: ignore[misc]
    figures["emit_ack_guarded_p50_ms"] = measured(1, lambda folder, port: trio.run(open_loop, folder, port, 1, True))
    if "--latency" in sys.argv:
        wanted = {name: WANTED[name] for name in WANTED if name in figures}
        print_line("relay", figures, {}, {}, wanted, reported=REPORTED)
        return
    saturated = measured(1, lambda folder, port: trio.run(drain, folder, port, SATURATED))
    drained = measured(1, lambda folder, port: trio.run(drain, folder, port, DRAINED))
    assert isinstance(saturated, dict)
    assert isinstance(drained, dict)
    figures |= {
        "emits_per_s": saturated["per_s"],
        "emitter_cpu_ms": saturated["cpu_ms"],
        "drained": DRAINED,
        "drain_per_s": drained["per_s"],
        "drain_rss_growth_mb": drained["rss_growth_mb"],
        "loop_lag_p99_ms": drained["loop_lag_p99_ms"],
    }
    print_line("relay", figures, {}, {}, WANTED, reported=REPORTED)


if __name__ == "__main__":
    main()
