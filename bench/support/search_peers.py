"""Searches by other stores on the sets of bench/search.py; each in an environment of its own.

`python bench/support/search_peers.py NAME FOLDER` reads `set.json` of FOLDER (ids and texts of records; texts and
answers of questions), `records.npy` and `questions.npy` (their vectors, by the node's own model, of which the first 256
tokens are read) and prints one JSON line: the shares found first and among ten, the mean of one over the place, and the
p50 of a search in milliseconds. Chroma searches by vectors, as it has no fusion with words in the process; LanceDB by
vectors and by words, fused as its `hybrid` does by itself. Imports nothing of ours: the environment does not have it.
"""

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

TOP = 10
BATCH = 500


class Peer(Protocol):
    """A store of texts and vectors."""

    def add(self, ids: list[str], texts: list[str], vectors: Any) -> None:
        """Stores records; called once."""
        ...

    def find(self, text: str, vector: Any) -> list[str]:
        """The ids of the ten best."""
        ...


class Chroma:
    """chromadb in the process, on disk."""

    def __init__(self, folder: Path) -> None:
        chromadb = importlib.import_module("chromadb")
        client = chromadb.PersistentClient(str(folder))
        self._collection = client.create_collection("set", metadata={"hnsw:space": "cosine"})

    def add(self, ids: list[str], texts: list[str], vectors: Any) -> None:
        for start in range(0, len(ids), BATCH):
            some = slice(start, start + BATCH)
            self._collection.add(ids=ids[some], documents=texts[some], embeddings=vectors[some].tolist())

    def find(self, text: str, vector: Any) -> list[str]:
        found = self._collection.query(query_embeddings=[vector.tolist()], n_results=TOP, include=["documents"])
        return list(found["ids"][0])


class LanceDb:
    """LanceDB in the process, on disk: an exact search by vectors and an index of words, fused by reciprocal ranks."""

    def __init__(self, folder: Path) -> None:
        self._base = importlib.import_module("lancedb").connect(str(folder))
        self._table: Any = None

    def add(self, ids: list[str], texts: list[str], vectors: Any) -> None:
        rows = [
            {"id": number, "text": text, "vector": vector.tolist()}
            for number, text, vector in zip(ids, texts, vectors, strict=True)
        ]
        self._table = self._base.create_table("set", rows)
        self._table.create_fts_index("text")

    def find(self, text: str, vector: Any) -> list[str]:
        search = self._table.search(query_type="hybrid").vector(vector.tolist()).text(text).limit(TOP)
        return [row["id"] for row in search.to_list()]


PEERS: dict[str, Callable[[Path], Peer]] = {"chromadb": Chroma, "lancedb": LanceDb}


def main(name: str, folder: Path) -> None:
    """Stores the set and asks its questions."""
    made = json.loads((folder / "set.json").read_text())
    records, questions = np.load(folder / "records.npy"), np.load(folder / "questions.npy")
    peer: Peer = PEERS[name](folder / name)
    peer.add(made["ids"], made["texts"], records)
    places, took = [], []
    for question, vector in zip(made["questions"], questions, strict=True):
        began = time.perf_counter()
        found = peer.find(question["text"], vector)
        took.append(1_000 * (time.perf_counter() - began))
        places.append(found.index(question["answer"]) + 1 if question["answer"] in found else 0)
    total = max(1, len(places))
    figures = {
        "r_at_1": places.count(1) / total,
        "r_at_10": sum(1 for place in places if place) / total,
        "mrr": sum(1 / place for place in places if place) / total,
        "p50_ms": statistics.median(took),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
