"""A validator's round over 256 miners, each with an address of its own (127.x.y.z); one process answers for them all.

The miners answer at once and stupidly, so what is measured is the validator's own time and CPU; per request it is set
against a poll of the gateway's poller (bench/poll.py) in the same run. Texts and truths come ready-made:
embedding happens between rounds, in a child at the lowest priority. `python -m bench.validator [--quick]`.
"""

import asyncio
import gc
import json
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import trio

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from bench import poll
from bench.poll import host_of
from bench.support.report import print_line
from bench.support.sessions import fill
from engram.chain.model import Axon, FinalizedBlock, Metagraph
from engram.chain.read.codec import Codec
from engram.chain.read.recorded.node import read_recording
from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import LedgerActor, LedgerClient
from engram.memory.embed.hash_embedder import hash_vector
from engram.roles.process import yield_to_the_loop
from engram.validator import reports
from engram.validator.garden import Garden
from engram.validator.gardening import Gardener
from engram.validator.miner_client import MinerClient
from engram.validator.model import PlantState
from engram.validator.records import asking as asking_records
from engram.validator.records import plants as plant_records
from engram.validator.rounds import Rounds, RoundTerms
from engram.validator.tables import questions, round_miners
from engram.validator.tables import rounds as rounds_table
from engram.validator.workbench import Done, Draft, Truth

QUICK = "--quick" in sys.argv
MINERS = 256
HELD = 6
ROUNDS = 2 if QUICK else 4
KEPT = 100 if QUICK else 1_000
WANTED = {
    "round_s": "<= 2",
    "round_cpu_vs_poller": "<= 1.3",
    "rss_mb": "<= 200",
    "loop_lag_p99_ms": "<= 20",
    "explain_ms": "<= 50",
}
OWN = Keypair.from_seed(bytes(32))
VECTOR = hash_vector("anything", 384)


class Miner(asyncio.Protocol):
    """Answers every request with one search result, or an ingest's CID; keeps its connection."""

    BODY = json.dumps(poll.STATS | {"results": [{"cid": "v1::x", "score": 0.5, "metadata": {}}]}).encode()
    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = bytearray()

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.received[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            del self.received[: end + 4 + length]
            self.transport.write(self.ANSWER)


async def respond() -> None:
    server = await asyncio.get_running_loop().create_server(Miner, "0.0.0.0", 0, backlog=1_000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


class Passes(trio.abc.Instrument):
    """CPU of the loop's thread in each pass over its tasks: the loop's own lag, whatever else runs on the machine."""

    def __init__(self) -> None:
        self.cpu_ms: list[float] = []
        self.began = time.thread_time()

    def after_io_wait(self, timeout: float) -> None:
        self.began = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        self.cpu_ms.append((time.thread_time() - self.began) * 1e3)


class ReadyMade:
    """Vectors and truths without work."""

    async def __call__(self, texts: Sequence[str], drafts: Sequence[Draft]) -> Done:
        await trio.lowlevel.checkpoint()
        vectors = [hash_vector(text, 384) for text in texts]
        truths = [Truth(VECTOR, [each.cid for each in draft.candidates[:10]], 10) for draft in drafts]
        return Done(vectors, truths)


def subnet(port: int) -> Metagraph:
    """The recorded subnet, its miners at this port of addresses of their own."""
    recording = read_recording()
    codec = Codec(bytes.fromhex(recording.metadata[2:]), 293, 1)
    (parts,) = recording.metagraphs.values()
    octets = bytes.fromhex(parts.before_block) + b"\x04" + bytes.fromhex(parts.after_block)
    found = codec.metagraph(
        codec.decode_fields(octets), 450, FinalizedBlock(1, bytes(32)), read_at_s=0.0, endpoint="bench", witness=None
    )
    neurons = tuple(
        msgspec.structs.replace(each, axon=Axon(ip=host_of(each.uid), port=port, version=1, protocol=4, block=1))
        for each in found.neurons
    )
    return msgspec.structs.replace(found, neurons=neurons)


async def measure(folder: Path, port: int) -> dict[str, float]:
    """Hold rounds on a ledger in `folder`."""
    registry = Registry()
    ledger = LedgerClient(registry.ref(LedgerActor, "ledger"), folder)
    http, clock, rng = HttpClient(), SystemClock(), Random(1)
    client, embeds = MinerClient(http, clock, 5.0), ReadyMade()
    gardener = Gardener(
        Garden(
            ledger=ledger,
            client=client,
            keypair=OWN,
            clock=clock,
            rng=rng,
            seed=lambda: secrets.token_bytes(32),
            embeds=embeds,
            planted_a_round=20,
            keep_rounds=6,
            round_s=0.001,
            concurrency=64,
        )
    )
    terms = RoundTerms(
        netuid=450,
        queries=4,
        challenges=2,
        least_planted=5,
        concurrency=64,
        deadline_s=60.0,
        keep_rounds=KEPT,
        planted_rounds=6,
        share_scores=True,
        private_allowed=True,
        blacklist=frozenset(),
    )
    rounds = Rounds(
        terms,
        ledger,
        client,
        OWN,
        clock,
        rng,
        gardener,
        embeds,
        "boot",
        lambda closed, seconds: lengths.append(seconds),
    )
    lengths: list[float] = []
    lags: list[float] = []
    spec = SupervisorSpec("root", [ChildSpec("ledger", lambda: LedgerActor(folder, lambda error: None), name="ledger")])
    graph = subnet(port)
    cpu, asked = 0.0, 0
    async with open_system(spec, registry=registry):
        await rounds.prepare(graph)
        await _hold_everything(ledger)
        gc.collect()
        gc.freeze()  # as every process does once its tree stands (engram/roles/process.py)
        passes = Passes()
        trio.lowlevel.add_instrument(passes)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, lags)
            for _ in range(ROUNDS):
                began = time.process_time()
                done = await rounds.hold(graph)
                cpu += time.process_time() - began
                asked += await ledger.read(lambda c, i=done.id: _asked(c, i))  # type: ignore[misc]
            nursery.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(passes)
        rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        await _keep_rounds(ledger, done.id)
        explained = []
        for _ in range(20):
            began = time.perf_counter()
            await ledger.read(lambda c: reports.explain(c, 450, 7, 1))
            explained.append((time.perf_counter() - began) * 1e3)
    ledger.close()
    await http.aclose()
    return {
        "round_s": statistics.median(lengths),
        "cpu_ms_per_request": cpu * 1e3 / max(asked, 1),
        "requests_a_round": asked / ROUNDS,
        "rss_mb": rss_mb,
        "loop_lag_p99_ms": statistics.quantiles(lags, n=100)[98],
        "pass_cpu_p99_ms": statistics.quantiles(passes.cpu_ms, n=100)[98],
        "pass_cpu_max_ms": max(passes.cpu_ms),
        "explain_ms": statistics.median(explained),
    }


async def _hold_everything(ledger: LedgerClient) -> None:
    """Take all drafts for held, as if the miners had stored them."""

    def hold(connection) -> None:  # type: ignore[no-untyped-def]
        for plant in plant_records.due_plants(connection, time.time() + 1e6, 100_000, 1e6):
            plant_records.set_plant(connection, plant.id, (PlantState.READY,), PlantState.HELD, time.time())

    await ledger.write(hold)


async def _keep_rounds(ledger: LedgerClient, last: int) -> None:
    """Repeat the last round, all of it, until KEPT rounds are kept."""

    def repeat(connection, first: int, until: int) -> None:  # type: ignore[no-untyped-def]
        for table in (rounds_table, round_miners, questions):
            column = "id" if table is rounds_table else "round_id"
            others = ", ".join(each.name for each in table.c if each.name not in ("id", column))
            for number in range(first, until):
                connection.exec_driver_sql(
                    f"INSERT INTO {table.name} ({column}, {others}) "
                    f"SELECT {number}, {others} FROM {table.name} WHERE {column} = {last}"
                )

    for first in range(last + 1, KEPT + 1, 20):
        await ledger.write(partial(repeat, first=first, until=min(first + 20, KEPT + 1)))


def _asked(connection, round_id: int) -> int:  # type: ignore[no-untyped-def]
    return sum(len(found) for found in asking_records.answers_of(connection, round_id).values())


async def _watch(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + 0.02
        await trio.sleep(0.02)
        lags.append((time.perf_counter() - due) * 1e3)


def main() -> None:
    yield_to_the_loop()  # as every role does
    if "--respond" in sys.argv:
        asyncio.run(respond())
        return
    responder = subprocess.Popen(
        [sys.executable, "-m", "bench.validator", "--respond"], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    try:
        assert responder.stdout is not None
        port = int(responder.stdout.readline())
        with tempfile.TemporaryDirectory() as folder:
            ours = trio.run(measure, Path(folder), port)
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), poll.NODES, lambda n: f"http://{host_of(n)}:{port}")
            poller = trio.run(poll.measure, Path(folder))
    finally:
        responder.kill()
        responder.wait()
    ratios = {"round_cpu_vs_poller": ours["cpu_ms_per_request"] / poller["cpu_ms_per_poll"]}
    print_line("validator", ours, {"poller": poller}, ratios, WANTED)


if __name__ == "__main__":
    main()
