"""A validator's round over 256 miners, each with an address of its own (127.x.y.z); one process answers for them all.

The miners store what is planted, search by returning what they got first, and prove storage by the second form, so what
is measured is a whole round of the validator: each proof is checked. Before every round records are planted, and those
whose rounds are over deleted, which is not measured; so every round asks each miner all of its questions. Its own time
and CPU are counted; per request they are set against a poll of the gateway's poller (bench/poll.py) in the same run.
Texts are embedded, by word hashes, and truths are found in the workbench's child at the lowest priority.
`python -m bench.validator [--quick]`.
"""

import asyncio
import gc
import json
import resource
import secrets
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

import msgspec
import trio
from sqlalchemy import Connection

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from bench import poll
from bench.poll import host_of
from bench.support.report import print_line
from bench.support.sessions import fill
from config.model import MinerSettings
from engram.chain.model import Axon, FinalizedBlock, Metagraph
from engram.chain.read.codec import Codec
from engram.chain.read.recorded.node import read_recording
from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import LedgerActor, LedgerClient
from engram.memory import cid as cids
from engram.memory.model import PUBLIC
from engram.memory.proof import keyed_tree, proofs
from engram.roles.process import yield_to_the_loop
from engram.validator import reports
from engram.validator.garden import Garden
from engram.validator.gardening import Gardener
from engram.validator.miner_client import MinerClient
from engram.validator.records import asking as asking_records
from engram.validator.rounds import Rounds, RoundTerms
from engram.validator.tables import questions, round_miners
from engram.validator.tables import rounds as rounds_table
from engram.validator.workbench import Workbench

QUICK = "--quick" in sys.argv
MINERS = 256
ROUNDS = 2 if QUICK else 3
WARM = 1 if QUICK else 4
"""Rounds before the first that is measured: by then most records are there that a miner holds at once."""
QUERIES, CHALLENGES, DECOYS = 4, 2, 2
KEPT = 100 if QUICK else 1_000
WANTED = {
    "round_s": "<= 2",
    "round_cpu_vs_poller": "<= 1.3",
    "rss_mb": "<= 200",
    "loop_lag_p99_ms": "<= 20",
    "explain_ms": "<= 50",
}
OWN = Keypair.from_seed(bytes(32))


class Store:
    """What one miner holds, and its tree, which is made anew once it has been given something."""

    def __init__(self, uid: int) -> None:
        self.keypair = Keypair.from_uri("//Alice" if uid == 0 else f"//sn450//hot//{uid}")
        self.records: dict[str, bytes] = {}
        self.texts: dict[str, str] = {}
        self.tree: keyed_tree.KeyedTree | None = None

    def keep(self, body: dict[str, Any]) -> dict[str, Any]:
        vector = struct.pack(f"<{len(body['raw_embedding'])}f", *body["raw_embedding"])
        cid = cids.compute(vector, body["metadata"])
        self.records[cid], self.tree = vector, None
        self.texts[cid] = body["metadata"]["text"]
        return {"cid": cid, "error": None}

    def delete(self, cid: str) -> dict[str, Any]:
        self.texts.pop(cid, None)
        deleted, self.tree = self.records.pop(cid, None) is not None, None
        return {"deleted": deleted, "cid": cid}

    def listed(self, body: dict[str, Any]) -> dict[str, Any]:
        offset, limit = body["offset"], body["limit"]
        page = list(self.texts.items())[offset:][:limit]
        records = [{"cid": cid, "metadata": {"text": text}} for cid, text in page]
        return {"records": records, "count": len(records), "offset": offset, "limit": limit}

    def found(self) -> dict[str, Any]:
        hits = [{"cid": cid, "score": 0.5, "metadata": {"text": "a note of some length"}} for cid in self.records]
        return {"results": hits[:10], "latency_ms": 0.1, "error": None}

    def prove(self, body: dict[str, Any]) -> dict[str, Any]:
        cid, own = body["cid"], self.keypair
        if self.tree is None:
            self.tree = keyed_tree.KeyedTree(keyed_tree.entry_of(each, held) for each, held in self.records.items())
        challenge = proofs.Challenge(
            own.public_key,
            bytes.fromhex(body["validator_hotkey_hex"]),
            bytes.fromhex(body["nonce_hex"]),
            cid,
            PUBLIC,
            self.tree.root,
            len(self.records),
            body["expires_at"],
        )
        proof = proofs.possession_proof(self.records[cid], challenge)
        return {
            "version": 2,
            "proof": proof,
            "root_hex": self.tree.root.hex(),
            "count": len(self.records),
            "signature": "0x" + own.sign(proofs.transcript(challenge) + bytes.fromhex(proof)).hex(),
            "inclusion": msgspec.to_builtins(self.tree.show(cid)),
        }


class Miner(asyncio.Protocol):
    """Answers for the miner of the address that it was reached at; keeps its connection."""

    stores: ClassVar[dict[str, Store]] = {
        host_of(uid): Store(uid) for uid in range(MINERS if "--respond" in sys.argv else 0)
    }
    STATS: Final = json.dumps(poll.STATS).encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.store = self.stores.get(transport.get_extra_info("sockname")[0])
        self.received = bytearray()

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.received[:end])
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            body = bytes(self.received[end + 4 : end + 4 + length])
            del self.received[: end + 4 + length]
            answer = self.answer(head.split(b" ", 2)[1], body)
            lines = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
            self.transport.write(lines + answer)

    def answer(self, path: bytes, body: bytes) -> bytes:
        match path:
            case b"/QuerySynapse" if self.store is not None:
                return json.dumps(self.store.found()).encode()
            case b"/IngestSynapse" if self.store is not None:
                return json.dumps(self.store.keep(json.loads(body))).encode()
            case b"/list" if self.store is not None:
                return json.dumps(self.store.listed(json.loads(body))).encode()
            case _ if path.startswith(b"/retrieve/") and self.store is not None:
                return json.dumps(self.store.delete(json.loads(body)["cid"])).encode()
            case b"/ChallengeSynapse" if self.store is not None:
                return json.dumps(self.store.prove(json.loads(body))).encode()
            case _:
                return self.STATS


async def respond() -> None:
    Miner.stores |= {host_of(uid): Store(uid) for uid in range(MINERS)}
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
    client = MinerClient(http, clock, 5.0)
    embeds = Workbench(MinerSettings(embedder="hash"), folder / "cache")
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
        queries=QUERIES,
        challenges=CHALLENGES,
        decoys=DECOYS,
        least_planted=5,
        concurrency=64,
        deadline_s=60.0,
        keep_rounds=KEPT,
        planted_rounds=6,
        unasked_rounds=6,
        share_scores=True,
        private_allowed=True,
        blacklist={},
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
    cpu, asked, proved = 0.0, 0, 0

    async def planted() -> None:
        await rounds.prepare(graph)
        for _ in range(2):  # at most 48 records of each miner in one pass
            await gardener.tend_once()

    async def counted(round_id: int) -> tuple[int, int]:
        """Return how many questions a round had, of all miners, and how many proofs held."""
        put, held = await ledger.read(partial(_proof_counts, round_id=round_id))
        wanted = len(graph.neurons) * (QUERIES + CHALLENGES)
        assert put >= 0.9 * wanted, f"round {round_id} asked {put} questions, not about {wanted}"
        return put, held

    async with open_system(spec, registry=registry):
        for _ in range(WARM):
            await planted()
            done = await rounds.hold(graph)
        gc.collect()
        gc.freeze()  # as every process does once its tree stands (engram/roles/process.py)
        lengths.clear()
        for _ in range(ROUNDS):
            await planted()
            began = time.process_time()
            done = await rounds.hold(graph)
            cpu += time.process_time() - began
            put, held = await counted(done.id)
            asked, proved = asked + put, proved + held
        passes = Passes()
        for _ in range(ROUNDS):
            await planted()
            passes.began = time.thread_time()  # what was planted is no pass of the round's
            trio.lowlevel.add_instrument(passes)
            async with trio.open_nursery() as nursery:  # looking at the loop costs a third of what a round does
                nursery.start_soon(_watch, lags)
                done = await rounds.hold(graph)
                nursery.cancel_scope.cancel()
            trio.lowlevel.remove_instrument(passes)
            await counted(done.id)
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
        "proofs_a_round": proved / ROUNDS,
        "rss_mb": rss_mb,
        "loop_lag_p99_ms": statistics.quantiles(lags, n=100)[98],
        "pass_cpu_p99_ms": statistics.quantiles(passes.cpu_ms, n=100)[98],
        "pass_cpu_max_ms": max(passes.cpu_ms),
        "explain_ms": statistics.median(explained),
    }


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


def _proof_counts(connection: Connection, round_id: int) -> tuple[int, int]:
    """Return how many questions there were, and how many proofs held."""
    found = [each for answers in asking_records.answers_of(connection, round_id).values() for each in answers]
    return len(found), sum(answer.proved for _, answer in found)


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
