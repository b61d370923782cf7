"""A restored node is the archived one: the same records in the same order, and the same answers in every mode."""

import random
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio

from engram.clock import SeededIds, SystemClock
from engram.memory import cid
from engram.memory.index.edge_index import EdgeIndex
from engram.memory.indexed_store import IndexedStore
from engram.memory.model import PUBLIC, Entry
from engram.memory.rules import RecordLimits
from engram.memory.search import words_db
from engram.memory.search.rules import check_search
from engram.memory.search.searcher import Searcher
from engram.memory.search.words import Words
from engram.memory.store import record_sql
from engram.memory.store.record_db import Truth
from engram.memory.upkeep import verify
from tests.archive.nodes import OWNER, content
from tests.archive.test_archive import Shelf
from tests.memory.stores import until

DIMENSION: Final = 384
QUERIES: Final = 500
VOCABULARY: Final = [f"{first}{second}{third}" for first in "bdfgk" for second in "aeiou" for third in "lmnrst"]
SCANS: Final = 10**9
"""A graph is built from so many vectors: never."""


class Meaning:
    """Makes vectors that have neighbours, as those of texts have: 384 numbers that follow from 12."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._follows = [(rng.randrange(12), rng.gauss(0, 1)) for _ in range(DIMENSION)]

    def vector(self) -> bytes:
        free = [self._rng.gauss(0, 1) for _ in range(12)]
        return struct.pack(f"<{DIMENSION}f", *(free[at] * weight for at, weight in self._follows))

    def records(self, count: int, namespace: str) -> Iterator[Entry]:
        for number in range(count):
            embedding, text = self.vector(), " ".join(self._rng.choices(VOCABULARY, k=12))
            metadata = {"n": f"{namespace} {number}", "text": text}
            yield Entry(
                namespace, cid.compute(embedding, metadata), embedding, text, metadata, "v1", bytes(OWNER.public_key)
            )


@asynccontextmanager
async def searcher_of(folder: Path, graph_from: int) -> AsyncIterator[Searcher]:
    """The node's own parts, on its folder, once its words are up to date and its graph is built."""
    truth = Truth.open(folder / "truth.db", SystemClock(), SeededIds(1))
    index = EdgeIndex(
        folder / "index", DIMENSION, truth.truth_id, truth_path=folder / "truth.db", graph_from=graph_from
    )
    store, words = IndexedStore(truth, index), Words(folder / words_db.FILE, truth)
    await store.load()
    async with trio.open_nursery() as nursery:
        for run in (truth.run, store.run, words.run):
            nursery.start_soon(run, lambda: None)
        with trio.fail_after(300):
            last = await truth.read(record_sql.last_sequence)
            await until(lambda: store.usable and words.kept_after >= last)
            if graph_from < SCANS:
                await until(lambda: not (folder / "index" / "public").exists())
        yield Searcher(store, truth, words, None)
        nursery.cancel_scope.cancel()
    words.close()
    truth.close()


async def answers(
    folder: Path, queries: list[tuple[str, bytes, str]], modes: Sequence[str], graph_from: int
) -> dict[str, list[list[str]]]:
    """The CIDs that each query finds in each mode, best first."""
    found: dict[str, list[list[str]]] = {mode: [] for mode in modes}
    async with searcher_of(folder, graph_from) as searcher:
        for mode in modes:
            for namespace, vector, text in queries:
                wanted = check_search({"query_text": text, "mode": mode, "top_k": 10}, RecordLimits(DIMENSION))
                found[mode].append([each.record.cid for each in await searcher.find(namespace, wanted, vector)])
    return found


@pytest.mark.parametrize("records", [5_000, pytest.param(100_000, marks=pytest.mark.nightly)])
async def test_a_restored_node_answers_as_the_archived_one(tmp_path: Path, records: int) -> None:
    rng = random.Random(11)
    meaning = Meaning(rng)
    shelf = Shelf(tmp_path)
    for begin in range(0, records, 5_000):
        shelf.node.put(*meaning.records(5_000, PUBLIC), now=1_000.0 + begin)
    shelf.node.put(*meaning.records(300, "diary"))
    for number in range(20):
        shelf.node.note(number)
    await shelf.update()
    await shelf.restore()
    assert content(shelf.target) == content(shelf.node.folder)
    before, after = (verify.check(folder) for folder in (shelf.node.folder, shelf.target))
    assert after.is_sound
    assert (after.whole_root, after.public_root) == (before.whole_root, before.public_root)

    rows = [row for row in content(shelf.node.folder)["records"] if rng.random() < 2 * QUERIES / records]
    queries = []
    for row in rng.sample(rows, QUERIES):
        queries.append((str(row[1]), meaning.vector(), " ".join(rng.sample(str(row[4]).split(), 3))))
    modes = ("vector", "words", "hybrid")
    exact = await answers(shelf.node.folder, queries, modes, SCANS)
    assert all(len(each) > 0 for mode in modes for each in exact[mode])
    assert await answers(shelf.target, queries, modes, SCANS) == exact
    through_graph = await answers(shelf.target, queries, ["vector"], 1_000)
    pairs = list(zip(exact["vector"], through_graph["vector"], strict=True))
    assert sum(len(set(one) & set(other)) for one, other in pairs) / sum(len(one) for one, _ in pairs) >= 0.99
