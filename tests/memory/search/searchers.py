"""A store with its words and windows, searched as a node searches it."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio

from engram.clock import ManualClock, SeededIds
from engram.memory import cid
from engram.memory.embed.hash_embedder import HashEmbedder, hash_vector
from engram.memory.embed.protocol import Cut, EmbedderState
from engram.memory.errors import EmbedderUnavailable
from engram.memory.indexed_store import IndexedStore
from engram.memory.model import ALWAYS, PUBLIC, Change, Entry, Record, Validity
from engram.memory.rules import RecordLimits
from engram.memory.search import windows_db, words_db
from engram.memory.search.rules import check_search
from engram.memory.search.searcher import Ranked, Searcher
from engram.memory.search.windows import Windows
from engram.memory.search.words import Words
from engram.memory.store.record_db import Truth
from tests.memory.stores import DIMENSION, ExactIndex

READ = 60
"""Characters of a text that the vector of a ShortSighted embedder covers."""


class ShortSighted:
    """An embedder that reads the first characters of a text, and makes windows of the rest."""

    dimension = DIMENSION
    name = "short-sighted"
    state: EmbedderState = "ready"

    def __init__(self) -> None:
        self.windowed: list[str] = []
        self.fails = False

    async def run(self, ready: object) -> None:
        await trio.sleep_forever()

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        return [hash_vector(text[:READ], DIMENSION) for text in texts]

    async def cuts(self, texts: Sequence[str]) -> list[Cut | None]:
        await trio.lowlevel.checkpoint()
        return [Cut(len(text), READ) if len(text) > READ else None for text in texts]

    async def windows(self, text: str) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise EmbedderUnavailable("not now")
        self.windowed.append(text)
        return [hash_vector(text[at : at + READ], DIMENSION) for at in range(READ, len(text), READ)]


class Searching:
    """What a test stores in and searches; `clock` says when things are stored and expire."""

    def __init__(self, truth: Truth, store: IndexedStore, words: Words, windows: Windows, clock: ManualClock) -> None:
        self.truth = truth
        self.store = store
        self.words = words
        self.windows = windows
        self.clock = clock
        self._searcher = Searcher(store, truth, words, windows)

    async def put(
        self,
        text: str,
        /,
        namespace: str = "mine",
        *,
        owner: bytes | None = None,
        validity: Validity = ALWAYS,
        made_here: bool | None = True,
        **metadata: str,
    ) -> Record:
        embedding = hash_vector(text[:READ], DIMENSION)
        made = (namespace, cid.compute(embedding, metadata), embedding, text, metadata, "v1", owner)
        return await self.store.put(Entry(*made, validity, made_here))

    async def find(self, text: str, /, space: str = "mine", **options: Any) -> list[Ranked]:
        wanted = check_search({"query_text": text, **options}, RecordLimits(DIMENSION))
        return await self._searcher.find(space, wanted, hash_vector(text[:READ], DIMENSION))

    async def texts(self, text: str, /, space: str = "mine", **options: Any) -> list[str | None]:
        return [each.record.text for each in await self.find(text, space, **options)]


@contextlib.asynccontextmanager
async def searching(
    folder: Path, embedder: HashEmbedder | ShortSighted | None = None, *, of_private: bool = True, follows: bool = True
) -> AsyncIterator[Searching]:
    """Open everything in a folder; with `follows` off, words and windows stand still."""
    clock = ManualClock()
    truth = Truth.open(folder / "truth.db", clock, SeededIds(1))
    store = IndexedStore(truth, ExactIndex())
    await store.load()
    words = Words(folder / words_db.FILE, truth)
    windows = Windows(folder / windows_db.FILE, truth, embedder or HashEmbedder(DIMENSION), of_private=of_private)

    def committed(changes: Sequence[Change]) -> None:
        words.hint(changes)
        windows.hint(changes)

    store.on_changes = committed
    if follows:
        store.kept_after = lambda: min(words.kept_after, windows.kept_after)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(truth.run, lambda: None)
        nursery.start_soon(store.run, lambda: None)
        if follows:
            nursery.start_soon(words.run, lambda: None)
            nursery.start_soon(windows.run, lambda: None)
        with trio.fail_after(20):
            yield Searching(truth, store, words, windows, clock)
        nursery.cancel_scope.cancel()
    words.close()
    windows.close()
    truth.close()


__all__ = ["PUBLIC", "READ", "Searching", "ShortSighted", "searching"]
