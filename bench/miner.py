"""A memory node under load, over HTTP: signed and durable ingest, search, proofs, restart.

The node is the real one, a process with its index worker. The load comes from this process, one thread on eight raw
kept-alive connections (bench/support/http_load.py); `client_cpu` is the share of a core that it took away at full-speed
queries. Vectors are ingested, not texts (bench/support/memories.py). `--quick` 2,000 vectors, else 25,000, `--full`
100,000. Other stores hold the same vectors in processes of their own (bench/support/memory_peers.py), and search them
in rounds between ours; they have no HTTP and no signatures. The yardstick is one of them, and always there: the engine
of the node alone. Proofs are measured against a bare server that reads a row and hashes (bench/support/bare_node.py),
the loop's lag against Python's own json on one batch of numbers. What is wanted of these is for 25,000 vectors.
`--alone`: no other stores but the yardstick.

`query_p99_ms` is at an open-loop 400 queries a second. Public queries are unsigned, as a local node takes them, private
ones signed. `recall_at_10` is the least of what is public and of three private namespaces. `proof_v2_ms`,
`inclusion_proof_ms` and `commitment_ms` are whole HTTP requests, each proof about another record. `single_100k_vs_1k`
compares the CPU time of node and index worker for a single ingest at the end and at 1,000 vectors (or as many as there
are); a graph that is being built meanwhile is not in it. `loop_lag_p99_ms` is the worst of four: batches of base64,
batches of JSON numbers, single records, and while graphs are built under 100 queries a second; it is read from the
node's own /metrics. `rss_mb` is of all processes under load when the graphs stand; `rss_building_mb` is the most while
one is built, by a process of its own: two thirds of it are pages of mapped files.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.support import memories
from bench.support.bare_node import BareNode, decode_ms, question
from bench.support.environments import environment
from bench.support.http_load import Lane, Load, closed_loop, open_loop, percentile, request
from bench.support.memories import BATCH, Vectors
from bench.support.memory_peers import SINGLES
from bench.support.processes import cpu_s, resident_mb
from bench.support.report import print_line
from config.model import MinerSettings
from tests.miner.nodes import NodeProcess

QUICK, FULL = "--quick" in sys.argv, "--full" in sys.argv
AMOUNT = 2_000 if QUICK else 100_000 if FULL else 25_000
CONNECTIONS = 8
ROUNDS = 5
ROUND_S = 0.5 if QUICK else 1.2
OPEN_LOOP_PER_S, OPEN_LOOP_S = 400, 2.0 if QUICK else 10.0
SINGLES_AT_ONCE_S = 1.0 if QUICK else 6.0
QUERIES = 100
RECALLED = (3, 7, 11)
"""Private namespaces whose recall is measured, beside what is public."""
NUMBERS = 640 if QUICK else 6_400
GRAPH_FROM, GRAPH_WITHIN_S = 10_000, 120.0
PEER_S = 5.0 if QUICK else 30.0 if not FULL else 60.0
PEERS: dict[str, tuple[str, ...]] = {
    "qdrant_client_local": ("qdrant-client", "qdrant-client==1.20.0", "numpy==2.4.6"),
    "hnswlib_sqlite": ("hnswlib", "hnswlib==0.8.0", "numpy==2.4.6"),
    "faiss": ("faiss-cpu", "faiss-cpu==1.15.1", "numpy==2.4.6"),
    "chromadb": ("chromadb", "chromadb==1.5.9", "numpy==2.4.6"),
}
WANTED = {
    "ingest_batch64_vs_yardstick": ">= 0.16",
    "ingest_single_vs_yardstick": ">= 0.4",
    "queries_vs_yardstick": ">= 0.15",
    "query_p50_vs_yardstick": "<= 15",
    "query_p99_vs_yardstick": "<= 60",
    "private_p50_vs_yardstick": "<= 30",
    "restart_vs_yardstick": "<= 7",
    "proof_v2_vs_yardstick": "<= 15",
    "inclusion_proof_vs_yardstick": "<= 15",
    "commitment_vs_yardstick": "<= 15",
    "loop_lag_p99_vs_yardstick": "<= 2",
    "queries_vs_health": ">= 0.5",
    "recall_at_10": ">= 0.995",
    "single_100k_vs_1k": "<= 1.3",
    "rss_mb": "<= 600",
}
HEALTH, COMMITMENT = request("GET", "/health"), request("GET", "/commitment")

Figures = dict[str, float | None]


class Bench:
    """The node and what is measured of it."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.figures: Figures = {}
        self.vectors = memories.clustered(1, AMOUNT + SINGLES)
        self.wanted = memories.clustered(2, QUERIES)
        self._more: Iterator[Vectors] = iter(memories.clustered(3, 30_000))
        self._added: list[Vectors] = []
        self._public = [memories.query(vector) for vector in self.wanted]
        self._peak_mb = dict.fromkeys(("rss_mb", "rss_building_mb"), 0.0)
        self._lags: dict[str, float] = {}
        self.bare: dict[str, float] = {}
        """What the yardsticks took that are no store."""

    @property
    def _pid(self) -> int:
        assert self.node.process is not None
        return self.node.process.pid

    def load(self) -> None:
        """Everything that is stored, and what it does to the loop."""
        self._load(0, 1_024)
        at_1k = self._cpu_of_singles()
        before = self._lag_counts()
        self.figures["ingest_batch64_per_s"] = self._load(1_024, AMOUNT)
        self._lags["base64"] = self._lag_p99_ms(before)
        before = self._lag_counts()
        self.figures["graph_s"] = self._wait_for_graphs()
        if self.figures["graph_s"] is not None:
            self._lags["reindex"] = self._lag_p99_ms(before)
        self.figures["single_100k_vs_1k"] = self._cpu_of_singles() / at_1k

    def _load(self, first: int, upto: int) -> float:
        """Stores vectors in batches over all connections; returns vectors a second. Requests are made in between."""
        took_s, chunk = 0.0, 128 * BATCH
        for start in range(first, upto, chunk):
            stop = min(start + chunk, upto)
            batches = [memories.batch(self.vectors[at : min(at + BATCH, stop)], at) for at in range(start, stop, BATCH)]
            took_s += self._closed(batches, 60.0).seconds
        return (upto - first) / took_s

    def numbers(self) -> None:
        """Batches of vectors written as JSON numbers; they are stored beside the others, unmeasured for recall."""
        before = self._lag_counts()
        first = BATCH  # a private namespace
        vectors = memories.clustered(4, NUMBERS)
        batches = [memories.batch(vectors[at : at + BATCH], first, as_numbers=True) for at in range(0, NUMBERS, BATCH)]
        self.bare["json_batch_ms"] = decode_ms(batches[0].partition(b"\r\n\r\n")[2])
        self.figures["ingest_numbers_per_s"] = NUMBERS / self._closed(batches, 60.0).seconds
        self._lags["numbers"] = self._lag_p99_ms(before)

    def round(self, told: dict[str, list[float]]) -> None:
        """One round of searches, one after the other, then at full speed beside /health."""
        lane = Lane(self.node.port)
        told["query_p50_ms"].append(_median_ms(lane, self._public))
        private = [memories.query(vector, i % 16) for i, vector in enumerate(self.wanted)]
        told["private_p50_ms"].append(_median_ms(lane, private))
        began = cpu_s(self._pid)
        queries = self._closed(self._public * 100, ROUND_S)
        told["query_cpu_ms"].append(1_000 * (cpu_s(self._pid) - began) / len(queries.took_ms))
        health = self._closed([HEALTH] * 100_000, ROUND_S / 2)
        told["queries_per_s_8"].append(queries.per_s)
        told["queries_vs_health"].append(queries.per_s / health.per_s)
        told["client_cpu"].append(queries.client_cpu)
        self._sample_rss("rss_mb")

    def measure(self) -> None:
        """All but storing and rounds."""
        load = open_loop(
            self.node.port, self._public, connections=CONNECTIONS, per_s=OPEN_LOOP_PER_S, seconds=OPEN_LOOP_S
        )
        self.figures["query_p99_ms"] = percentile(load.took_ms, 0.99)
        lane = Lane(self.node.port)
        self.figures["recall_at_10"] = min(self._recall(lane, namespace) for namespace in (None, *RECALLED))
        public = [i for i in range(AMOUNT) if memories.namespace_of(i) is None]
        cids = [memories.cid_of(self.vectors[i]) for i in public[:: len(public) // QUERIES][:QUERIES]]
        self.bare["proof_ms"] = self._bare_proof_ms()
        self.figures["proof_v2_ms"] = _median_ms(lane, [_challenge(cid) for cid in cids])
        self.figures["inclusion_proof_ms"] = _median_ms(lane, [_inclusion(cid) for cid in cids])
        fresh = []
        for vector, _ in zip(self._more, range(50), strict=False):
            lane(memories.single(vector))
            fresh.append(_ms(lane, COMMITMENT))
        self.figures["commitment_ms"] = statistics.median(fresh)
        before = self._lag_counts()
        singles = [
            memories.single(vector)
            for vector, _ in zip(self._more, range(int(1_000 * SINGLES_AT_ONCE_S)), strict=False)
        ]
        load = self._closed(singles, SINGLES_AT_ONCE_S)
        self._lags["singles"] = self._lag_p99_ms(before)
        self.figures["ingest_single_per_s"] = load.per_s
        self._sample_rss("rss_mb")

    def _bare_proof_ms(self) -> float:
        bare = BareNode(self.node.folder / "bare.db", [vector.tobytes() for vector in self.vectors])
        lane = Lane(bare.port)
        asked = [request("POST", "/", question(number * 7 % AMOUNT)) for number in range(QUERIES)]
        return _median_ms(lane, asked)

    def restart(self) -> None:
        """From the start of the process to the first answer to a query."""
        self.node.terminate()
        began = time.perf_counter()
        self.node.start()
        lane = Lane(self.node.port)
        lane(self._public[0])
        self.figures["restart_s"] = time.perf_counter() - began
        self.figures["query_p50_after_restart_ms"] = _median_ms(lane, self._public)
        self.figures |= self._peak_mb
        self.figures["loop_lag_p99_ms"] = max(self._lags.values())
        self.figures |= {f"loop_lag_p99_ms_{name}": value for name, value in self._lags.items()}

    def _closed(self, requests: Sequence[bytes], seconds: float) -> Load:
        return closed_loop(self.node.port, requests, connections=CONNECTIONS, seconds=seconds)

    def _recall(self, lane: Lane, namespace: int | None) -> float:
        """The share of the ten exactly nearest that the node found, by CID."""
        mine = self.vectors[[i for i in range(AMOUNT) if memories.namespace_of(i) == namespace]]
        there = np.concatenate([mine, self._added]) if namespace is None else mine
        answers = [lane(memories.query(vector, namespace)) for vector in self.wanted]
        return memories.recall(memories.nearest(there, self.wanted), memories.found(answers))

    def _cpu_of_singles(self) -> float:
        """CPU milliseconds of the node and its worker for a single ingest, one after the other."""
        vectors = [vector for vector, _ in zip(self._more, range(300), strict=False)]
        self._added += vectors
        requests, lane = [memories.single(vector) for vector in vectors], Lane(self.node.port)
        began = cpu_s(self._pid)
        for each in requests:
            lane(each)
        return 1_000 * (cpu_s(self._pid) - began) / len(vectors)

    def _wait_for_graphs(self) -> float | None:
        """Seconds until public and private vectors had their graphs, under queries; None: none to wait for, or none in
        time."""
        if AMOUNT / 2 < GRAPH_FROM:
            return None
        began = time.perf_counter()
        while time.perf_counter() - began < GRAPH_WITHIN_S:
            names = {path.name for path in (self.node.folder / "data" / "index").iterdir() if path.is_dir()}
            if len(names) == 2 and not names & {"public", "private"}:
                return time.perf_counter() - began
            open_loop(self.node.port, self._public, connections=CONNECTIONS, per_s=100, seconds=0.5)
            self._sample_rss("rss_building_mb")
        return None

    def _sample_rss(self, figure: str) -> None:
        self._peak_mb[figure] = max(self._peak_mb[figure], resident_mb(self._pid))

    def _lag_counts(self) -> dict[float, float]:
        """How many samples of the loop's lag were at most so many seconds, as the node tells its operator."""
        where = json.loads((self.node.folder / "data" / "ops.json").read_bytes())["url"]
        with urllib.request.urlopen(f"{where}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith("engram_loop_lag_seconds_bucket")]
        return {float(line.split('"')[1]): float(line.rsplit(" ", 1)[1]) for line in found}

    def _lag_p99_ms(self, before: dict[float, float]) -> float:
        counts = {upto: count - before[upto] for upto, count in self._lag_counts().items()}
        wanted, below, at = 0.99 * max(counts.values()), 0.0, 0.0
        for upto, count in sorted(counts.items()):
            if count >= wanted:
                return 1_000 * (below + (min(upto, 2 * below or upto) - below) * (wanted - at) / max(1.0, count - at))
            below, at = upto, count
        raise AssertionError("the last bucket has them all")


class Rival:
    """Another store in a process of its own; see memory_peers.py."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.told: dict[str, Any] = {}
        self.rounds: dict[str, list[float]] = {"public": [], "private": []}
        python = Path(sys.executable) if name == "yardstick" else environment(*PEERS[name])
        self._process: subprocess.Popen[str] | None = None
        if python is None:
            self.told = {"query_p50_ms": None, "reason": "could not be installed"}
            return
        script = Path(__file__).parent / "support" / "memory_peers.py"
        self._process = subprocess.Popen(
            [str(python), str(script), name, str(folder), str(PEER_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.told = self._answer() or {}

    def round(self) -> None:
        """One round of searches."""
        for kind, took in (self._asked("query") or {}).items():
            self.rounds[kind].append(statistics.median(took))

    def finish(self, vectors: Vectors, wanted: Vectors) -> dict[str, Any]:
        """What there is to tell of it; ends it."""
        if self._process is None or not self.rounds["public"]:
            return self.told or {"query_p50_ms": None, "reason": "it ended early"}
        for name, kind in (("query_p50_ms", "public"), ("private_p50_ms", "private")):
            self.told[name] = round(statistics.median(self.rounds[kind]), 3)
        numbers = [*range(self.told["vectors"]), *range(AMOUNT, AMOUNT + SINGLES)]
        namespaces = _namespaces()
        shares = []
        for namespace in (-1, 3):
            mine = np.array([number for number in numbers if namespaces[number] == namespace])
            found = self._asked(f"found {namespace}") or [[]]
            best = mine[np.argsort(-(wanted[: len(found)] @ vectors[mine].T), axis=1)[:, :10]]
            shares.append(sum(len({*a.tolist()} & {*b}) for a, b in zip(best, found, strict=True)) / best.size)
        self.told["recall_at_10"] = round(min(shares), 4)
        restart = self._asked("restart")
        self.told["restart_s"] = None if restart is None else round(restart, 3)
        if self.told["vectors"] < AMOUNT:
            self.told["reason"] = f"it had {PEER_S:g} s to load"
        return self.told

    def end(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _asked(self, line: str) -> Any:
        if self._process is None or self._process.poll() is not None:
            return None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None


def _namespaces() -> Vectors:
    numbers = [memories.namespace_of(i) for i in range(AMOUNT)] + [None] * SINGLES
    return np.array([-1 if number is None else number for number in numbers])


def _ms(lane: Lane, content: bytes) -> float:
    began = time.perf_counter()
    lane(content)
    return 1_000 * (time.perf_counter() - began)


def _median_ms(lane: Lane, requests: Sequence[bytes]) -> float:
    return statistics.median(_ms(lane, content) for content in requests)


def _challenge(cid: str) -> bytes:
    fields = {"cid": cid, "nonce_hex": os.urandom(32).hex(), "version": 2, "expires_at": int(time.time()) + 60}
    return request("POST", "/ChallengeSynapse", json.dumps(fields).encode())


def _inclusion(cid: str) -> bytes:
    return request("POST", "/prove-memory", json.dumps({"cid": cid}).encode())


def rivals(bench: Bench, folder: Path) -> list[Rival]:
    """The yardstick and all peers, loaded one after the other."""
    np.save(folder / "vectors.npy", bench.vectors)
    np.save(folder / "namespaces.npy", _namespaces())
    np.save(folder / "wanted.npy", bench.wanted)
    return [Rival(name, folder) for name in ("yardstick", *([] if "--alone" in sys.argv else PEERS))]


def run(node: NodeProcess, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """Measures the node, its peers and the yardsticks."""
    bench = Bench(node)
    others: list[Rival] = []
    step = _Steps()
    try:
        bench.load()
        step("loaded")
        others += rivals(bench, folder)
        step("peers loaded")
        rounds: dict[str, list[float]] = {
            name: []
            for name in (
                *("query_p50_ms", "private_p50_ms", "queries_per_s_8", "queries_vs_health", "client_cpu"),
                "query_cpu_ms",
            )
        }
        for _ in range(ROUNDS):
            bench.round(rounds)
            for other in others:
                other.round()
        bench.figures |= {name: statistics.median(values) for name, values in rounds.items()}
        step("rounds")
        bench.measure()
        bench.numbers()
        bench.restart()
        step("measured")
        told = {other.name: other.finish(bench.vectors, bench.wanted) for other in others}
        told["yardstick"] |= bench.bare
        step("peers asked")
    finally:
        for other in others:
            other.end()
    return bench.figures, told


class _Steps:
    """Says on standard error how long each part took."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def __call__(self, what: str) -> None:
        sys.stderr.write(f"{what}: {time.perf_counter() - self._began:.0f} s\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        settings = MinerSettings(private_bucket_ms=0, requests_per_minute=100_000_000)
        node = NodeProcess(Path(name), is_warm=False, miner=settings)
        try:
            node.start()
            measured, others = run(node, Path(name))
        finally:
            if node.process is not None and node.process.poll() is None:
                node.kill()
    ratios = {
        f"{figure}_vs_{name}": ours / theirs
        for name, peer in others.items()
        if name != "yardstick"
        for figure in ("query_p50_ms", "private_p50_ms", "ingest_batch64_per_s")
        if (ours := measured[figure]) is not None and (theirs := peer.get(figure))
    }
    print_line("miner", measured, others, ratios | against(measured, others["yardstick"]), WANTED, vectors=AMOUNT)


def against(figures: Figures, bare: dict[str, float]) -> dict[str, float]:
    """The ratios to the yardsticks."""
    pairs = {
        "ingest_batch64": ("ingest_batch64_per_s", "ingest_batch64_per_s"),
        "ingest_single": ("ingest_single_per_s", "ingest_single_per_s"),
        "query_p50": ("query_p50_ms", "query_p50_ms"),
        "query_p99": ("query_p99_ms", "query_p50_ms"),
        "private_p50": ("private_p50_ms", "private_p50_ms"),
        "restart": ("restart_s", "restart_s"),
        "proof_v2": ("proof_v2_ms", "proof_ms"),
        "inclusion_proof": ("inclusion_proof_ms", "proof_ms"),
        "commitment": ("commitment_ms", "proof_ms"),
        "loop_lag_p99": ("loop_lag_p99_ms", "json_batch_ms"),
    }
    ratios = {
        f"{name}_vs_yardstick": ours / bare[theirs]
        for name, (figure, theirs) in pairs.items()
        if (ours := figures[figure]) is not None
    }
    per_s = figures["queries_per_s_8"]
    assert per_s is not None
    return ratios | {"queries_vs_yardstick": per_s * bare["query_p50_ms"] / 1_000}


if __name__ == "__main__":
    main()
