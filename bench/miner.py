"""A memory node under load, over HTTP: signed and durable ingest, search, proofs, restart.

The node is the real one, a process with its index worker; the load comes from this process over eight kept-alive
connections. Vectors are ingested, not texts: clustered unit vectors of 384 numbers (48 latent dimensions, 1,500
centres), half of them public, the rest over 100 private namespaces. `--quick` 2,000 vectors, else 25,000, `--full`
100,000. Peers that are installed (numpy always; hnswlib, faiss) search the same public vectors in their own process's
memory: their figures hold no HTTP, signatures or durable writes.

`proof_v2_ms`, `inclusion_proof_ms` and `commitment_ms` are whole HTTP requests. `single_100k_vs_1k` compares the CPU
time of node and index worker for a single ingest at the end and at 1,000 vectors (or as many as there are); a graph
that is being built meanwhile is not in it.
"""

import base64
import http.client
import importlib
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config.model import MinerSettings
from tests.miner.nodes import CONTROLLER, NodeProcess, encoded, signed

QUICK, FULL = "--quick" in sys.argv, "--full" in sys.argv
AMOUNT = 2_000 if QUICK else 100_000 if FULL else 25_000
CONNECTIONS = 8
BATCH = 64
SECONDS = 2.0 if QUICK else 8.0
OPEN_LOOP_PER_S = 400
QUERIES = 100 if QUICK else 400
SINGLES = 200
NAMESPACES = 100
DIMENSION = 384
GRAPH_WITHIN_S = 240.0
JSON = {"Content-Type": "application/json"}
LEAST = {"ingest_batch64_per_s": 1_500.0, "ingest_single_per_s": 300.0, "queries_per_s_8": 700.0}
LEAST |= {"queries_vs_health": 0.5, "recall_at_10": 0.995}
MOST = {"query_p50_ms": 4.0, "query_p99_ms": 15.0, "private_p50_ms": 3.0, "rss_mb": 600.0, "restart_s": 3.0}
MOST |= {"single_100k_vs_1k": 1.3, "proof_v2_ms": 1.0, "inclusion_proof_ms": 1.0, "commitment_ms": 1.0}


def clustered(rng: np.random.Generator, amount: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    centres = np.random.default_rng(7).normal(size=(1_500, 48))
    into = np.random.default_rng(8).normal(size=(48, DIMENSION))
    points = (centres[rng.integers(0, 1_500, amount)] + 0.5 * rng.normal(size=(amount, 48))) @ into
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), dtype="<f4")


def packed(vector: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(vector.tobytes()).decode()


class Caller:
    """One kept-alive connection to the node."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __call__(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        try:
            answer, content = self._exchange(method, path, body)
        except (BrokenPipeError, http.client.RemoteDisconnected):  # idle for too long; every call here may be repeated
            self._connection.close()
            answer, content = self._exchange(method, path, body)
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:200]!r}")
        told: dict[str, Any] = json.loads(content)
        if told.get("error"):
            raise RuntimeError(f"{method} {path}: {told['error']}")
        return told

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.request(method, path, body, JSON if body else {})
        answer = self._connection.getresponse()
        return answer, answer.read()


def at_once(port: int, work: Callable[[Caller, int], int]) -> float:
    """Runs `work` on all connections at once; returns how many it did a second."""
    did = [0] * CONNECTIONS
    threads = [
        threading.Thread(target=lambda i=i: did.__setitem__(i, work(Caller(port), i))) for i in range(CONNECTIONS)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if 0 in did:
        raise RuntimeError("a connection of the load broke")
    return sum(did) / (time.perf_counter() - began)


def for_a_while(ask: Callable[[Caller, int], object]) -> Callable[[Caller, int], int]:
    def work(caller: Caller, lane: int) -> int:
        count, until = 0, time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            ask(caller, lane + CONNECTIONS * count)
            count += 1
        return count

    return work


def timed(ask: Callable[[int], object], count: int) -> list[float]:
    """Milliseconds of each of `count` asks, one after the other."""
    took = []
    for number in range(count):
        began = time.perf_counter()
        ask(number)
        took.append(1_000 * (time.perf_counter() - began))
    return took


def percentile(took: Sequence[float], share: float) -> float:
    return sorted(took)[min(len(took) - 1, int(len(took) * share))]


def open_loop(port: int, bodies: Sequence[bytes]) -> list[float]:
    """Milliseconds from when each query was due, 400 a second; waiting for a connection counts."""
    began, lock, took = time.perf_counter() + 0.1, threading.Lock(), list[float]()
    total = int(OPEN_LOOP_PER_S * SECONDS)
    due = iter(range(total))

    def lane(caller: Caller) -> None:
        while True:
            with lock:
                number = next(due, None)
            if number is None:
                return
            at = began + number / OPEN_LOOP_PER_S
            time.sleep(max(0.0, at - time.perf_counter()))
            caller("POST", "/QuerySynapse", bodies[number % len(bodies)])
            took.append(1_000 * (time.perf_counter() - at))

    threads = [threading.Thread(target=lane, args=(Caller(port),)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(took) != total:
        raise RuntimeError("a connection of the load broke")
    return took


def namespace_of(number: int) -> str | None:
    """The namespace of batch `number`: every second one is public."""
    return None if number % 2 == 0 else f"tenant_{number // 2 % NAMESPACES}"


def single(vector: np.ndarray[Any, Any]) -> bytes:
    return signed(CONTROLLER, "IngestSynapse", {"raw_embedding_b64": packed(vector), "metadata": {"kind": "single"}})


def load(port: int, vectors: np.ndarray[Any, Any], cids: list[str]) -> float:
    """Ingests all, in batches of 64 over eight connections; returns vectors a second."""
    batches = [range(start, min(start + BATCH, len(vectors))) for start in range(0, len(vectors), BATCH)]

    def work(caller: Caller, lane: int) -> int:
        did = 0
        for number in range(lane, len(batches), CONNECTIONS):
            items = [
                {"raw_embedding_b64": packed(vectors[i]), "text": f"record {i} ".ljust(132, "."), "metadata": {}}
                for i in batches[number]
            ]
            name = namespace_of(number)
            body = signed(CONTROLLER, "IngestBatch", {"items": items, **({"namespace": name} if name else {})})
            for i, result in zip(batches[number], caller("POST", "/IngestBatch", body)["results"], strict=True):
                cids[i] = result["cid"]
            did += len(items)
        return did

    return at_once(port, work)


def recall(
    caller: Caller, there: np.ndarray[Any, Any], cids: Sequence[str], wanted: np.ndarray[Any, Any], name: str | None
) -> float:
    """The share of the ten exactly nearest that the node found, by CID."""
    nearest = np.argsort(-(wanted @ there.T), axis=1)[:, :10]
    found = 0
    for query, best in zip(wanted, nearest, strict=True):
        results = caller("POST", "/QuerySynapse", asking(query, name))["results"]
        found += len({hit["cid"] for hit in results} & {cids[i] for i in best})
    return float(found / nearest.size)


def asking(query: np.ndarray[Any, Any], name: str | None = None) -> bytes:
    fields: dict[str, Any] = {"query_vector_b64": packed(query), "top_k": 10}
    return encoded(fields) if name is None else signed(CONTROLLER, "QuerySynapse", {**fields, "namespace": name})


def resident_mb(pid: int) -> float:
    """Of a process and of all that it started."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except OSError:
            continue
        if int(fields["PPid"]) == pid:
            total += resident_mb(int(folder.name))
        elif int(folder.name) == pid and "VmRSS" in fields:
            total += int(fields["VmRSS"].split()[0]) / 1024
    return total


def cpu_of_singles(pid: int, add_one: Callable[[int], object]) -> float:
    """CPU milliseconds of the node and its worker for a single ingest, one after the other."""
    began = cpu_s(pid)
    for number in range(SINGLES):
        add_one(number)
    return 1_000 * (cpu_s(pid) - began) / SINGLES


def cpu_s(pid: int) -> float:
    children = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()
    ticks = 0
    for each in (str(pid), *children):
        fields = (Path("/proc") / each / "stat").read_text().rsplit(") ", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_for_graph(folder: Path, amount: int) -> float | None:
    """Seconds until the public vectors had their graph; None when there is none to wait for, or none in time."""
    if amount / 2 < 10_000:
        return None
    began = time.perf_counter()
    while time.perf_counter() - began < GRAPH_WITHIN_S:
        names = {path.name for path in (folder / "data" / "index").iterdir() if path.is_dir()}
        if len(names) == 2 and not names & {"public", "private"}:
            return time.perf_counter() - began
        time.sleep(0.25)
    return None


def peers(vectors: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> dict[str, dict[str, float | str | None]]:
    public = np.ascontiguousarray(vectors[[i for i in range(len(vectors)) if namespace_of(i // BATCH) is None]])
    flat = timed(lambda i: np.argpartition(-(public @ wanted[i % len(wanted)]), 10)[:10], QUERIES)
    told: dict[str, dict[str, float | str | None]] = {"numpy_flat": {"query_p50_ms": round(percentile(flat, 0.5), 3)}}
    for name in ("hnswlib", "faiss", "chromadb"):
        if importlib.util.find_spec(name) is None:
            told[name] = {"query_p50_ms": None, "reason": "not installed"}
    if importlib.util.find_spec("hnswlib") is not None:
        hnswlib = importlib.import_module("hnswlib")
        index = hnswlib.Index("cosine", DIMENSION)
        index.init_index(len(public), M=16, ef_construction=128)
        began = time.perf_counter()
        index.add_items(public)
        index.set_ef(96)
        rate = len(public) / (time.perf_counter() - began)
        took = timed(lambda i: index.knn_query(wanted[i % len(wanted)], 10), QUERIES)
        told["hnswlib"] = {"query_p50_ms": round(percentile(took, 0.5), 3), "ingest_per_s": round(rate, 1)}
    return told


def measure(node: NodeProcess) -> dict[str, float | None]:
    rng = np.random.default_rng(1)
    vectors, extra = clustered(rng, AMOUNT), clustered(rng, 4 * SINGLES + 200_000 // 10)
    wanted = clustered(rng, 100)
    cids, port = [""] * AMOUNT, node.port
    caller, spare = Caller(port), iter(extra)
    added: list[tuple[np.ndarray[Any, Any], str]] = []

    def add_one(_: int) -> None:
        vector = next(spare)
        added.append((vector, caller("POST", "/IngestSynapse", single(vector))["cid"]))

    figures: dict[str, float | None] = {}

    load(port, vectors[:1_000], cids)
    assert node.process is not None
    at_1k = cpu_of_singles(node.process.pid, add_one)
    rest = [""] * AMOUNT
    figures["ingest_batch64_per_s"] = load(port, vectors, rest)
    cids = rest
    figures["graph_s"] = wait_for_graph(node.folder, AMOUNT)
    at_end = cpu_of_singles(node.process.pid, add_one)
    figures["single_100k_vs_1k"] = at_end / at_1k
    pool, lock = iter(extra[2 * SINGLES :]), threading.Lock()

    def ingest_one(caller: Caller, _: int) -> object:
        with lock:
            vector = next(pool)
        return caller("POST", "/IngestSynapse", single(vector))

    public = [asking(query) for query in wanted]
    figures["query_p50_ms"] = percentile(
        timed(lambda i: caller("POST", "/QuerySynapse", public[i % len(public)]), QUERIES), 0.5
    )
    private = [asking(wanted[i % len(wanted)], f"tenant_{i % 16}") for i in range(QUERIES)]
    figures["private_p50_ms"] = percentile(timed(lambda i: caller("POST", "/QuerySynapse", private[i]), QUERIES), 0.5)
    figures["query_p99_ms"] = percentile(open_loop(port, public), 0.99)
    rate = figures["queries_per_s_8"] = at_once(
        port, for_a_while(lambda caller, i: caller("POST", "/QuerySynapse", public[i % len(public)]))
    )
    health = at_once(port, for_a_while(lambda caller, i: caller("GET", "/health")))
    figures["queries_vs_health"] = rate / health
    shares = []
    for name, more in ((None, added), ("tenant_3", [])):
        mine = [i for i in range(AMOUNT) if namespace_of(i // BATCH) == name]
        there = np.concatenate([vectors[mine], *(vector[None] for vector, _ in more)])
        shares.append(recall(caller, there, [*(cids[i] for i in mine), *(cid for _, cid in more)], wanted, name))
    figures["recall_at_10"] = min(shares)
    cid = cids[0]
    figures["proof_v2_ms"] = statistics.median(timed(lambda i: caller("POST", "/ChallengeSynapse", challenge(cid)), 50))
    figures["inclusion_proof_ms"] = statistics.median(
        timed(lambda i: caller("POST", "/prove-memory", encoded({"cid": cid})), 50)
    )
    after_writes = []
    for _ in range(30):
        caller("POST", "/IngestSynapse", single(next(spare)))
        after_writes += timed(lambda i: caller("GET", "/commitment"), 1)
    figures["commitment_ms"] = statistics.median(after_writes)
    figures["ingest_single_per_s"] = at_once(port, for_a_while(ingest_one))
    figures["rss_mb"] = resident_mb(node.process.pid)
    node.terminate()
    began = time.perf_counter()
    node.start()
    caller = Caller(port)
    caller("POST", "/QuerySynapse", public[0])
    figures["restart_s"] = time.perf_counter() - began
    return figures


def challenge(cid: str) -> bytes:
    return encoded({"cid": cid, "nonce_hex": os.urandom(32).hex(), "version": 2, "expires_at": int(time.time()) + 60})


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        settings = MinerSettings(private_bucket_ms=0, requests_per_minute=100_000_000)
        node = NodeProcess(Path(name), miner=settings)
        try:
            node.start()
            measured = measure(node)
        finally:
            if node.process is not None and node.process.poll() is None:
                node.kill()
    rng = np.random.default_rng(1)
    others = peers(clustered(rng, AMOUNT), clustered(rng, 100))
    figures = {name: None if value is None else round(value, 3) for name, value in measured.items()}
    missed = [name for name, least in LEAST.items() if (value := figures[name]) is None or value < least]
    missed += [name for name, most in MOST.items() if (value := figures[name]) is None or value > most]
    ratios = {
        f"query_p50_vs_{name}": round(ours / theirs, 3)
        for name, peer in others.items()
        if (ours := figures["query_p50_ms"]) is not None and isinstance(theirs := peer["query_p50_ms"], float)
    }
    told = {
        "bench": "miner",
        "vectors": AMOUNT,
        "figures": figures,
        "peers": others,
        "ratios": ratios,
        "wanted": {**{k: f">= {v:g}" for k, v in LEAST.items()}, **{k: f"<= {v:g}" for k, v in MOST.items()}},
        "missed": missed,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
