"""Other vector stores on a node's vectors; each in an environment of its own.

`python bench/support/memory_peers.py NAME FOLDER SECONDS` reads `vectors.npy`, `namespaces.npy` (-1: public) and
`wanted.npy` of FOLDER, stores vectors with a text in batches of 64 for at most SECONDS, and prints one JSON line. Then,
for each line on standard input, it prints one more: `query` the milliseconds of a round of searches, `found` the
numbers that are found, `restart` the seconds from a new start to the first answer. Imports nothing of ours: the
environment does not have it. What is here has no HTTP, no signatures, no CIDs.
"""

import importlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Vectors = np.ndarray[Any, np.dtype[np.float32]]

BATCH = 64
ROUND, ROUND_S = 100, 5.0
SINGLES = 200
TOP = 10


def text_of(number: int) -> str:
    """The text that is kept beside a vector."""
    return f"record {number} ".ljust(132, ".")


class Peer(Protocol):
    """A store of vectors by number, public (namespace -1) or private."""

    def add(self, first: int, vectors: Vectors, namespace: int) -> None:
        """Stores vectors of consecutive numbers."""
        ...

    def find(self, vector: Vectors, namespace: int) -> list[int]:
        """The numbers of the ten nearest of a namespace, after their texts were read."""
        ...

    def close(self) -> None:
        """Ends it as its makers intend."""
        ...


class QdrantLocal:
    """qdrant-client in local mode: numpy in memory, SQLite on disk."""

    def __init__(self, folder: Path) -> None:
        client = importlib.import_module("qdrant_client")
        self._models = client.models
        self._client = client.QdrantClient(path=str(folder))
        params = self._models.VectorParams(size=384, distance=self._models.Distance.COSINE)
        for name in ("public", "private"):
            if not self._client.collection_exists(name):
                self._client.create_collection(name, vectors_config=params)

    def add(self, first: int, vectors: Vectors, namespace: int) -> None:
        payloads = [{"text": text_of(first + i), "namespace": namespace} for i in range(len(vectors))]
        points = [
            self._models.PointStruct(id=first + i, vector=vector.tolist(), payload=payload)
            for i, (vector, payload) in enumerate(zip(vectors, payloads, strict=True))
        ]
        self._client.upsert("public" if namespace < 0 else "private", points)

    def find(self, vector: Vectors, namespace: int) -> list[int]:
        match = self._models.MatchValue(value=namespace)
        wanted = self._models.Filter(must=[self._models.FieldCondition(key="namespace", match=match)])
        name, condition = ("public", None) if namespace < 0 else ("private", wanted)
        answer = self._client.query_points(name, query=vector.tolist(), query_filter=condition, limit=TOP)
        return [int(point.id) for point in answer.points]

    def close(self) -> None:
        self._client.close()


class Rows:
    """A durable row for each vector: SQLite, WAL, FULL, a transaction for each batch."""

    def __init__(self, path: Path) -> None:
        self._rows = sqlite3.connect(path, isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute("PRAGMA synchronous = FULL")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, namespace INTEGER, vector BLOB, text TEXT)"
        )

    def add(self, first: int, vectors: Vectors, namespace: int) -> None:
        rows = [(first + i, namespace, vector.tobytes(), text_of(first + i)) for i, vector in enumerate(vectors)]
        self._rows.execute("BEGIN IMMEDIATE")
        self._rows.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows)
        self._rows.execute("COMMIT")

    def texts(self, numbers: Sequence[int]) -> None:
        """Reads the texts of a few rows."""
        marks = ",".join("?" * len(numbers))
        self._rows.execute(f"SELECT id, text FROM rows WHERE id IN ({marks})", list(numbers)).fetchall()

    def everything(self) -> list[tuple[int, int, bytes]]:
        """Number, namespace and vector of each row."""
        return self._rows.execute("SELECT id, namespace, vector FROM rows ORDER BY id").fetchall()

    def close(self) -> None:
        """Closes the database."""
        self._rows.close()


class HnswlibSqlite:
    """A durable row, then the index: HNSW for public vectors, exact for each namespace. The indexes are in memory only;
    that of public vectors is saved at the end, the others are read from the rows again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hnswlib = importlib.import_module("hnswlib")
        self._rows = Rows(folder / "rows.db")
        self._public = self._hnswlib.Index("cosine", 384)
        self._private: dict[int, Any] = {}
        saved = folder / "public.hnsw"
        if saved.exists():
            self._public.load_index(str(saved), max_elements=100_000)
            for number, namespace, vector in self._rows.everything():
                if namespace >= 0:
                    self._place(namespace, np.frombuffer(vector, "<f4")[None], [number])
        else:
            self._public.init_index(100_000, M=16, ef_construction=128)
        self._public.set_ef(96)
        self._public.set_num_threads(1)

    def add(self, first: int, vectors: Vectors, namespace: int) -> None:
        self._rows.add(first, vectors, namespace)
        self._place(namespace, vectors, list(range(first, first + len(vectors))))

    def _place(self, namespace: int, vectors: Vectors, numbers: list[int]) -> None:
        if namespace >= 0 and namespace not in self._private:
            self._private[namespace] = self._hnswlib.BFIndex("cosine", 384)
            self._private[namespace].init_index(2_000)
        (self._public if namespace < 0 else self._private[namespace]).add_items(vectors, numbers)

    def find(self, vector: Vectors, namespace: int) -> list[int]:
        index = self._public if namespace < 0 else self._private[namespace]
        numbers = [int(number) for number in index.knn_query(vector, TOP)[0][0]]
        self._rows.texts(numbers)
        return numbers

    def close(self) -> None:
        self._public.save_index(str(self._folder / "public.hnsw"))
        self._rows.close()


class Faiss:
    """faiss in memory, HNSW for public vectors and exact for each namespace; nothing is on disk before the end, and no
    texts are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faiss = importlib.import_module("faiss")
        self._faiss.omp_set_num_threads(1)
        self._indexes: dict[int, Any] = {}
        for path in folder.glob("*.faiss"):
            self._indexes[int(path.stem)] = self._faiss.read_index(str(path))

    def add(self, first: int, vectors: Vectors, namespace: int) -> None:
        if namespace not in self._indexes:
            inner = self._exact() if namespace >= 0 else self._graph()
            self._indexes[namespace] = self._faiss.IndexIDMap(inner)
        self._indexes[namespace].add_with_ids(vectors, np.arange(first, first + len(vectors)))

    def _exact(self) -> Any:
        return self._faiss.IndexFlatIP(384)

    def _graph(self) -> Any:
        graph = self._faiss.IndexHNSWFlat(384, 16, self._faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction, graph.hnsw.efSearch = 128, 96
        return graph

    def find(self, vector: Vectors, namespace: int) -> list[int]:
        return [int(number) for number in self._indexes[namespace].search(vector[None], TOP)[1][0]]

    def close(self) -> None:
        for namespace, index in self._indexes.items():
            self._faiss.write_index(index, str(self._folder / f"{namespace}.faiss"))


class Chroma:
    """chromadb on disk, one collection for public vectors and one for all private ones."""

    def __init__(self, folder: Path) -> None:
        chromadb = importlib.import_module("chromadb")
        settings = chromadb.config.Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(path=str(folder), settings=settings)
        self._collections = [
            client.get_or_create_collection(name, embedding_function=None, metadata={"hnsw:space": "cosine"})
            for name in ("public", "private")
        ]

    def add(self, first: int, vectors: Vectors, namespace: int) -> None:
        numbers = range(first, first + len(vectors))
        self._collections[namespace >= 0].add(
            ids=[str(number) for number in numbers],
            embeddings=vectors,
            metadatas=[{"namespace": namespace} for _ in numbers],
            documents=[text_of(number) for number in numbers],
        )

    def find(self, vector: Vectors, namespace: int) -> list[int]:
        collection, where = self._collections[namespace >= 0], {"namespace": namespace} if namespace >= 0 else None
        answer = collection.query(query_embeddings=[vector], n_results=TOP, where=where, include=["documents"])
        return [int(number) for number in answer["ids"][0]]

    def close(self) -> None:
        """It has no end of its own."""


class EngineAlone:
    """The yardstick: a node's own engine and a durable row for each vector, without HTTP, signatures, CIDs or a worker.
    Shards are configured as a node's are."""

    def __init__(self, folder: Path) -> None:
        self._edge = importlib.import_module("qdrant_edge")
        self._rows = Rows(folder / "rows.db")
        there = [folder / "public", folder / "private"]
        self._shards = [
            self._edge.EdgeShard.load(str(path)) if path.exists() else self._create(path, private)
            for private, path in enumerate(there)
        ]

    def _create(self, path: Path, private: int) -> Any:
        edge = self._edge
        path.mkdir()
        graph = edge.HnswIndexConfig(
            m=0 if private else 16, ef_construct=128, full_scan_threshold=4_000, payload_m=16 if private else None
        )
        config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(size=384, distance=edge.Distance.Cosine),
            hnsw_config=graph,
            quantization_config=edge.ScalarQuantizationConfig(
                edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned
            ),
            max_search_threads=1,
            optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1_000),
        )
        shard = edge.EdgeShard.create(str(path), config)
        if private:
            shard.update(edge.UpdateOperation.create_field_index("ns", edge.KeywordIndexParams(is_tenant=True)))
        return shard

    def add(self, first: int, vectors: Vectors, namespace: int) -> None:
        self._rows.add(first, vectors, namespace)
        payload = {"ns": str(namespace)} if namespace >= 0 else {}
        points = [self._edge.Point(first + i, vector.tolist(), payload) for i, vector in enumerate(vectors)]
        self._shards[namespace >= 0].update(self._edge.UpdateOperation.upsert_points(points))

    def optimize(self) -> None:
        """Builds the graphs."""
        for shard in self._shards:
            shard.optimize()

    def find(self, vector: Vectors, namespace: int) -> list[int]:
        edge = self._edge
        match = edge.FieldCondition("ns", match=edge.MatchValue(str(namespace)))
        request = edge.QueryRequest(
            limit=TOP,
            query=edge.Query.Nearest(vector.tolist()),
            filter=edge.Filter(must=[match]) if namespace >= 0 else None,
            params=edge.SearchParams(
                hnsw_ef=128, exact=False, quantization=edge.QuantizationSearchParams(rescore=True, oversampling=2.0)
            ),
            with_payload=False,
            with_vector=False,
        )
        numbers = [int(point.id) for point in self._shards[namespace >= 0].query(request)]
        self._rows.texts(numbers)
        return numbers

    def close(self) -> None:
        for shard in self._shards:
            shard.flush()
            shard.close()
        self._rows.close()


PEERS: dict[str, type[Any]] = {
    "yardstick": EngineAlone,
    "qdrant_client_local": QdrantLocal,
    "hnswlib_sqlite": HnswlibSqlite,
    "faiss": Faiss,
    "chromadb": Chroma,
}


def load(peer: Peer, vectors: Vectors, namespaces: Sequence[int], seconds: float) -> dict[str, Any]:
    """Stores what it can within `seconds`, then single vectors."""
    amount = len(vectors) - SINGLES
    began, at = time.perf_counter(), 0
    while at < amount and time.perf_counter() - began < seconds:
        upto = min(at + BATCH, amount)
        peer.add(at, vectors[at:upto], int(namespaces[at]))
        at = upto
    took = time.perf_counter() - began
    began = time.perf_counter()
    for i in range(SINGLES):
        peer.add(amount + i, vectors[amount + i : amount + i + 1], -1)
    singly = time.perf_counter() - began
    rates = {"ingest_batch64_per_s": round(at / took, 1), "ingest_single_per_s": round(SINGLES / singly, 1)}
    return {"vectors": at, **rates, "rss_mb": resident_mb()}


def resident_mb() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1024**2, 1)


def searched(peer: Peer, wanted: Vectors, namespace: int) -> list[float]:
    """Milliseconds of a round of searches, one after the other; a slow peer does as many as it can in ROUND_S."""
    took: list[float] = []
    for i in range(ROUND):
        if sum(took) > 1_000 * ROUND_S:
            break
        began = time.perf_counter()
        peer.find(wanted[i % len(wanted)], namespace if namespace < 0 else (namespace + i) % 16)
        took.append(1_000 * (time.perf_counter() - began))
    return took


def found(peer: Peer, wanted: Vectors, namespace: int) -> list[list[int]]:
    """The numbers that are found for the first of the wanted vectors, as many as there is time for."""
    answers: list[list[int]] = []
    until = time.perf_counter() + 2 * ROUND_S
    for vector in wanted:
        if answers and time.perf_counter() > until:
            break
        answers.append(peer.find(vector, namespace))
    return answers


def restarted(name: str, folder: Path, peer: Peer) -> float:
    """Seconds that a new process needs until it answers."""
    peer.close()
    began = time.perf_counter()
    command = [sys.executable, __file__, name, str(folder), "again"]
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(name: str, folder: Path, seconds: str) -> None:
    """Serves the lines of standard input."""
    (folder / name).mkdir(exist_ok=True)
    peer, wanted = PEERS[name](folder / name), np.load(folder / "wanted.npy")
    if seconds == "again":
        peer.find(wanted[0], -1)
        sys.stdout.flush()
        os._exit(0)
    vectors, namespaces = np.load(folder / "vectors.npy"), np.load(folder / "namespaces.npy")
    rates = load(peer, vectors, namespaces, float(seconds))
    if isinstance(peer, EngineAlone):
        peer.optimize()
    print(json.dumps(rates), flush=True)
    for line in sys.stdin:
        told: Any = None
        match line.split():
            case ["query"]:
                told = {"public": searched(peer, wanted, -1), "private": searched(peer, wanted, 0)}
            case ["found", namespace]:
                told = found(peer, wanted, int(namespace))
            case _:
                told = restarted(name, folder, peer)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
