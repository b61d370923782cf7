"""How well and how fast a node finds what was stored, by mode.

The node is the real one, with all-MiniLM-L6-v2; it embeds the texts itself, in private namespaces. What the sets are
is said in bench/support/search_sets.py. Each question has one right record: `r_at_1_*` and `r_at_10_*` are the shares
found first and among ten, `mrr_*` the mean of one over the place. `plain` is a search without a mode, as validators
search. Of facts in three versions it is the share whose newest version comes first.

Figures of speed are on `SPEED` texts whose vectors are given, so nothing is embedded: `hybrid_extra_ms_p50` is the
p50 of a hybrid search less that of a plain one, alternating. `vector_p50_vs_before` compares plain searches with those
of a node of the checkout that `--before FOLDER` names, in alternating rounds. `words_ingest_cpu_ms` and
`words_index_share` are of the file of words alone. `window_cpu_vs_onnxruntime` compares a window of the embedder with
the graph alone on the same tokens. Chroma and LanceDB hold the sets of texts with vectors of the same model, in
environments of their own, and are asked the same questions (bench/support/search_peers.py). `--quick`: a tenth of all.
`--words`, `--windows`, `--speed`, `--quality`, `--peers`: these parts alone; `--sets facts,far`: these sets alone.
"""

import contextlib
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.support import search_sets
from bench.support.environments import environment
from bench.support.report import print_line
from bench.support.search_sets import Set
from config.model import MinerSettings
from engram.api import node as api
from engram.clock import SeededIds, SystemClock
from engram.memory.embed import minilm_graph
from engram.memory.embed.minilm import _Model
from engram.memory.model import Entry
from engram.memory.search import feed, words_db
from engram.memory.store import record_sql
from engram.memory.store.record_db import Truth
from engram.nodes import launch
from engram.sdk import NodeClient
from engram.sdk.ranking import Mode
from tests.miner.nodes import CONTROLLER, NodeProcess

QUICK = "--quick" in sys.argv
BEFORE = Path(sys.argv[sys.argv.index("--before") + 1]) if "--before" in sys.argv else None
PARTS = [name for name in ("words", "windows", "speed", "quality", "peers") if f"--{name}" in sys.argv] or [
    *("words", "windows", "speed", "quality", "peers")
]
ALL_SETS = ("docstrings", "packages", "identifiers", "near", "far", "facts")
SETS = sys.argv[sys.argv.index("--sets") + 1].split(",") if "--sets" in sys.argv else ALL_SETS
RECORDS, QUESTIONS, LONG, FACTS = (100, 40, 10, 16) if QUICK else (1_000, 400, 100, 160)
SPEED = 2_000 if QUICK else 20_000
ROUNDS, SEARCHES = 9, 40
BATCH = 16
DIMENSION = minilm_graph.DIMENSION
MODES: tuple[Mode | None, ...] = (None, "vector", "words", "hybrid")
SETTINGS = MinerSettings(requests_per_minute=0, private_bucket_ms=0)
WANTED = {
    "r_at_1_docstrings_gain": ">= 0.08",
    "r_at_10_docstrings_gain": ">= 0.04",
    "r_at_10_far_hybrid": ">= 0.7",
    "facts_newest_first": ">= 0.95",
    "words_ingest_cpu_ms": "<= 1",
    "hybrid_extra_ms_p50": "<= 12",
    "vector_p50_vs_before": "<= 1.05",
    "words_index_share": "<= 0.6",
    "window_cpu_vs_onnxruntime": "<= 1.1",
}
Figures = dict[str, Any]


def quality(port: int) -> Figures:
    """Store every set in a namespace of its own, and ask its questions in every mode."""
    sets = {name: each for name, each in search_sets.made(RECORDS, QUESTIONS, LONG).items() if name in SETS}
    stored: dict[frozenset[str], str] = {}
    figures: Figures = {}
    for name, each in sets.items():
        namespace = stored.setdefault(frozenset(each.records), name)
        with NodeClient(f"http://127.0.0.1:{port}", CONTROLLER, namespace=namespace, timeout_s=120) as client:
            if namespace == name:
                _store(client, list(each.records.items()))
            figures |= _asked(client, name, each)
    for figure in ("r_at_1", "r_at_10") if "docstrings" in sets else ():
        figures[f"{figure}_docstrings_gain"] = (
            figures[f"{figure}_docstrings_hybrid"] - figures[f"{figure}_docstrings_plain"]
        )
    if "facts" in SETS:
        with NodeClient(f"http://127.0.0.1:{port}", CONTROLLER, namespace="facts") as client:
            figures |= _facts(client)
    return figures


PEERS = {
    "chromadb": ("search-chromadb", "chromadb==1.5.9", "numpy==2.4.6"),
    "lancedb": ("search-lancedb", "lancedb==0.40.0", "pyarrow", "numpy==2.4.6"),
}


def peers(folder: Path) -> dict[str, Figures]:
    """The same sets and questions in other stores; None with a reason where one cannot be had."""
    model = _Model.load(None, Path(tempfile.gettempdir()) / "engram-bench-cache")

    vector = functools.cache(model.vector)

    def vectors(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.frombuffer(b"".join(map(vector, texts)), "<f4").reshape(-1, DIMENSION)

    told: dict[str, Figures] = {name: {} for name in PEERS}
    pythons = {name: environment(*what) for name, what in PEERS.items()}
    for name, each in search_sets.made(RECORDS, QUESTIONS, LONG).items():
        if name not in SETS:
            continue
        at = folder / name
        at.mkdir()
        ids, texts = list(each.records), list(each.records.values())
        questions = [{"text": one.text, "answer": one.answer} for one in each.questions]
        (at / "set.json").write_text(json.dumps({"ids": ids, "texts": texts, "questions": questions}))
        np.save(at / "records.npy", vectors(texts))
        np.save(at / "questions.npy", vectors([one.text for one in each.questions]))
        for peer, python in pythons.items():
            told[peer] |= {f"{key}_{name}": value for key, value in _peer(peer, python, at).items()}
    return told


def _peer(name: str, python: Path | None, folder: Path) -> Figures:
    if python is None:
        return {"r_at_1": None, "reason": "could not be installed"}
    command = [str(python), str(Path(__file__).parent / "support" / "search_peers.py"), name, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if ran.returncode:
        return {"r_at_1": None, "reason": (ran.stderr.strip().splitlines() or ["it ended"])[-1][:200]}
    figures: Figures = json.loads(ran.stdout.splitlines()[-1])
    return figures


def _store(client: NodeClient, records: Sequence[tuple[str, str]]) -> None:
    for start in range(0, len(records), BATCH):
        some = records[start : start + BATCH]
        for result in client.ingest_batch([(text, {"id": number}) for number, text in some]):
            assert isinstance(result, str), result
    if max(len(text) for _, text in records) > 1_000:
        _await_windows(client, records[-1][1])


def _await_windows(client: NodeClient, text: str) -> None:
    """Wait until the windows of a text are there; they are made in the order of storing."""
    words = text.split()
    last = " ".join(words[-100:])
    until = time.monotonic() + 900
    while time.monotonic() < until:
        [plain], [best] = client.query(last, top_k=1), client.query(last, top_k=1, mode="vector")
        if best.score > plain.score + 0.02 or best.score > 0.9:
            return
        time.sleep(1.0)


def _asked(client: NodeClient, name: str, each: Set) -> Figures:
    figures: Figures = {f"records_{name}": len(each.records), f"questions_{name}": len(each.questions)}
    for mode in MODES:
        places = []
        for question in each.questions:
            found = [hit.metadata["id"] for hit in client.query(question.text, top_k=10, mode=mode)]
            places.append(found.index(question.answer) + 1 if question.answer in found else 0)
        label = f"{name}_{mode or 'plain'}"
        total = max(1, len(places))
        figures[f"r_at_1_{label}"] = places.count(1) / total
        figures[f"r_at_10_{label}"] = sum(1 for place in places if place) / total
        figures[f"mrr_{label}"] = sum(1 / place for place in places if place) / total
    return figures


def _facts(client: NodeClient) -> Figures:
    facts = list(search_sets.facts(FACTS))
    for version in range(3):
        for key, versions, _ in facts:
            client.ingest(versions[version], key=key)
    first = {
        mode: sum(client.query(asked, top_k=1, mode=mode)[0].text == versions[-1] for _, versions, asked in facts)
        for mode in MODES
    }
    with_all = sum(
        client.query(asked, top_k=1, mode="hybrid", history=True)[0].text == versions[-1]
        for _, versions, asked in facts
    )
    figures: Figures = {f"facts_newest_first_{mode or 'plain'}": found / len(facts) for mode, found in first.items()}
    return figures | {
        "facts_newest_first": first["hybrid"] / len(facts),
        "facts_newest_first_without_keys": with_all / len(facts),
    }


def texts(amount: int) -> list[str]:
    """Docstrings, each often enough and with a number, so that there are as many."""
    listed = list(search_sets.made(RECORDS, 1, 1)["docstrings"].records.values())
    return [f"{listed[number % len(listed)]} number{number}" for number in range(amount)]


def words(folder: Path, stored: Sequence[str]) -> Figures:
    """What the file of words costs, apart from the node."""
    truth = Truth.open(folder / "truth.db", SystemClock(), SeededIds(1))
    rng = random.Random(1)
    connection = truth._writer.raw
    connection.execute("BEGIN")
    for number, text in enumerate(stored):
        embedding = rng.randbytes(4 * DIMENSION)
        record_sql.put(connection, Entry("mine", f"v1::{number:064x}", embedding, text, {}, "v1", None), 1.0)
    connection.execute("COMMIT")
    written = words_db.WordsDb(folder / "words.db", truth.truth_id)
    began, done = time.process_time(), 0
    while changes := feed.since(connection, written.sequence, 256):
        written.apply(changes, changes[-1].sequence)
        done += len(changes)
    took_s = time.process_time() - began
    written._raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = (folder / "words.db").stat().st_size
    written.close()
    truth.close()
    return {
        "words_ingest_cpu_ms": 1_000 * took_s / done,
        "words_index_share": size / sum(len(text.encode()) for text in stored),
    }


class Searched:
    """A node with texts and given vectors, searched by both."""

    def __init__(self, port: int) -> None:
        self.client = NodeClient(f"http://127.0.0.1:{port}", CONTROLLER, namespace="speed", timeout_s=120)

    def load(self, stored: Sequence[str], vectors: np.ndarray[Any, Any]) -> None:
        for start in range(0, len(stored), 128):
            items: list[Any] = [
                {"text": text, "raw_embedding": vector.tolist(), "metadata": {"n": start + at}}
                for at, (text, vector) in enumerate(
                    zip(stored[start : start + 128], vectors[start : start + 128], strict=True)
                )
            ]
            self.client.ask(self.client.calls.ingest_items(items))

    def p50_ms(self, vectors: np.ndarray[Any, Any], asked: Sequence[str] | None = None) -> float:
        """The p50 of plain searches, or of hybrid ones for these words."""
        took = []
        for at, vector in enumerate(vectors):
            fields: dict[str, Any] = {"query_vector": vector.tolist(), "top_k": 10}
            if asked is not None:
                fields |= {"query_text": asked[at], "mode": "hybrid"}
            call = self.client.calls.post(api.QUERY, fields, lambda answer: answer.status)
            began = time.perf_counter()
            assert self.client.ask(call) == 200
            took.append(1_000 * (time.perf_counter() - began))
        return statistics.median(took)


def speed(folder: Path, stored: Sequence[str]) -> Figures:
    """Latency of plain and hybrid searches, and of plain ones before this search existed."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((len(stored), DIMENSION), dtype=np.float32)
    asked = [" ".join(stored[int(at)].split()[:12]) for at in rng.integers(0, len(stored), SEARCHES)]
    wanted = rng.standard_normal((SEARCHES, DIMENSION), dtype=np.float32)
    (folder / "now").mkdir()
    with contextlib.ExitStack() as running:
        now = Searched(running.enter_context(_node(folder / "now")).port)
        now.load(stored, vectors)
        before = None
        if BEFORE is not None:
            (folder / "before").mkdir()
            before = Searched(running.enter_context(_node(folder / "before", BEFORE)).port)
            before.load(stored, vectors)
        time.sleep(15 if len(stored) > 10_000 else 2)  # graphs are built, words are followed
        plain, hybrid, ratios = [], [], []
        for _ in range(ROUNDS):
            plain.append(now.p50_ms(wanted))
            hybrid.append(now.p50_ms(wanted, asked))
            if before is not None:
                ratios.append(now.p50_ms(wanted) / before.p50_ms(wanted))
    extra = statistics.median(one - other for one, other in zip(hybrid, plain, strict=True))
    return {
        "plain_p50_ms": statistics.median(plain),
        "hybrid_p50_ms": statistics.median(hybrid),
        "hybrid_extra_ms_p50": extra,
        "vector_p50_vs_before": statistics.median(ratios) if ratios else None,
    }


class Earlier(NodeProcess):
    """A node of another checkout, which knows none of the settings that are new."""

    def __init__(self, folder: Path, checkout: Path, **told: Any) -> None:
        super().__init__(folder, **told)
        run = f"import runpy, sys; sys.path.insert(0, {str(checkout)!r}); sys.argv[0] = 'miner'"
        self.entry = ["-c", f"{run}; runpy.run_module('engram.miner', run_name='__main__')"]

    def start(self) -> float:
        began = time.monotonic()
        launch.write(self.launch_file, self.launch)
        fields = json.loads(self.launch_file.read_bytes())
        fields["miner"] = {"requests_per_minute": 0, "private_bucket_ms": 0}
        self.launch_file.write_text(json.dumps(fields))
        command = [sys.executable, *self.entry, "--config", str(self.launch_file)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self.await_health()
        return time.monotonic() - began


@contextlib.contextmanager
def _node(folder: Path, checkout: Path | None = None) -> Iterator[NodeProcess]:
    embedder = launch.EmbedderLaunch(kind="minilm", cache_dir=str(Path(tempfile.gettempdir()) / "engram-bench-cache"))
    told: dict[str, Any] = {"embedder": embedder, "miner": SETTINGS}
    made = NodeProcess(folder, **told) if checkout is None else Earlier(folder, checkout, **told)
    try:
        made.start()
        yield made
    finally:
        made.terminate()


def window_cpu() -> float:
    """CPU of a window by the embedder over that of the graph alone on the same tokens, alternating."""
    model = _Model.load(None, Path(tempfile.gettempdir()) / "engram-bench-cache")
    text = " ".join(search_sets.made(RECORDS, 1, 5)["far"].records.values())[:8_192]
    ours, alone = [], []
    for _ in range(2 if QUICK else 5):
        began = time.process_time()
        windows = [model.vector_of(tokens) for tokens in model.further(text)]
        ours.append((time.process_time() - began) / len(windows))
        inputs = [np.array([tokens], dtype=np.int64) for tokens in model.further(text)]
        began = time.process_time()
        for ids in inputs:
            model._session.run(["vectors"], {"ids": ids, "mask": np.ones_like(ids)})
        alone.append((time.process_time() - began) / len(inputs))
    return statistics.median(ours) / statistics.median(alone)


def main() -> None:
    """Measure everything and print it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in PARTS:
            (folder / name).mkdir()
        figures: Figures = {}
        if "words" in PARTS:
            figures |= words(folder / "words", texts(SPEED))
        if "windows" in PARTS:
            figures["window_cpu_vs_onnxruntime"] = window_cpu()
        if "speed" in PARTS:
            figures |= speed(folder / "speed", texts(SPEED))
        if "quality" in PARTS:
            with _node(folder / "quality") as running:
                figures |= quality(running.port)
        others = peers(folder / "peers") if "peers" in PARTS else {}
    print_line("search", figures, others, {}, WANTED, load=os.getloadavg()[0])


if __name__ == "__main__":
    main()
