"""The full-text index of a node: follows the truth, and finds records by their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, final

import trio

from engram.durable import Database, Readers
from engram.durable.database import REFUSED_BY_DISK, text_of
from engram.durable.driver import code_of, sqlite3
from engram.memory.errors import IndexUnavailable, TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.model import Change
from engram.memory.search import terms, words_db
from engram.memory.search.derived_file import DAMAGED
from engram.memory.search.feed import Fed
from engram.memory.search.following import Cleared, Follower
from engram.memory.search.words_db import WordsDb
from engram.memory.store.record_db import Truth

_BATCH: Final = 256
_MOST_CHARS: Final = 65_536
"""Texts of so many characters take about 5 ms; somebody's search may wait for them."""
_READERS: Final = 2
_LEVEL_WITHIN_S: Final = 3.0
_HAS_WORDS: Final = sqlite3.sqlite_version_info >= words_db.LEAST_SQLITE
_READ: Final = Database[sqlite3.Connection](
    name="the words of this node",
    migrations=(),
    wrap=lambda connection: connection,
    not_done=TruthUnavailable,
    unknown=WriteUnknown,
    unusable=TruthUnreadable,
    remedy=lambda path: f"remove {path}: it is built again",
    fault=lambda error: (
        text_of(error)
        if isinstance(error, sqlite3.Error) and code_of(error) in (*REFUSED_BY_DISK, sqlite3.SQLITE_INTERRUPT)
        else None
    ),
)


@final
class Words:
    """Keep `run` running; call `hint` with the changes of each commit, and `close` at the end."""

    name = "words"
    batch = _BATCH
    most_chars = _MOST_CHARS
    is_shared = False

    def __init__(self, path: Path, truth: Truth) -> None:
        self._path = path
        self._truth = truth
        self._db: WordsDb | None = None
        self._writing = trio.CapacityLimiter(1)
        self._readers = Readers(_READ, path, _READERS)
        self._follower = Follower(truth, self)

    @property
    def kept_after(self) -> int:
        """The change after which deletions must still be listed."""
        return self._follower.kept_after if _HAS_WORDS else 2**63

    def hint(self, changes: Sequence[Change]) -> None:
        """Note that these changes were committed."""
        self._follower.hint(changes)

    def report(self, on_progress: Callable[[int], None]) -> None:
        """Have `on_progress` called with the number of changes that are not applied yet, whenever it changes."""
        self._follower.on_progress = on_progress

    async def run(self, ready: Callable[[], None]) -> None:
        """Follow the truth until cancelled."""
        if _HAS_WORDS:
            await self._follower.run(ready)
        ready()
        await trio.sleep_forever()

    def close(self) -> None:
        """Close all connections; blocking."""
        self._readers.close()
        if self._db is not None:
            self._db.close()

    async def find(self, namespace: str, query: str, most: int = words_db.FIRST_RANKED) -> dict[int, float]:
        """Return BM25 by record id, best first, for at most `most` records of a namespace that have a word of it.

        All that was acknowledged before is found; what others have stored is not waited for. Raises IndexUnavailable
        while the index is built, TruthUnavailable.
        """
        if not _HAS_WORDS:
            raise IndexUnavailable("words need SQLite 3.43 or later, which this node does not have")
        await self._follower.reached(_LEVEL_WITHIN_S, self._follower.lane(namespace, None))
        expression = terms.expression(query)
        try:
            return await self._readers.read(lambda held: words_db.find(held, namespace, expression, most))
        except sqlite3.Error as error:
            if code_of(error) not in DAMAGED:  # a table that was dropped meanwhile
                return {}
            self._follower.found_damage()
            raise IndexUnavailable("the words of this node are damaged and are being built again") from error

    async def open(self) -> int:
        self._db = await trio.to_thread.run_sync(WordsDb, self._path, self._truth.truth_id, limiter=self._writing)
        return self._db.sequence

    async def apply(self, changes: Sequence[Fed], sequence: int) -> None:
        assert self._db is not None
        await trio.to_thread.run_sync(self._db.apply, changes, sequence, limiter=self._writing)

    async def missed(self, truth: Truth) -> int:
        await self.reset()
        return 0

    async def reset(self) -> None:
        assert self._db is not None
        self._readers.close()
        self._readers = Readers(_READ, self._path, _READERS)  # those in use are on the file that is removed
        await trio.to_thread.run_sync(self._db.reset, limiter=self._writing)

    async def clear(self) -> Cleared:
        assert self._db is not None
        if not await trio.to_thread.run_sync(self._db.is_unclean, limiter=self._writing):
            return "done"
        return await trio.to_thread.run_sync(self._db.clear, limiter=self._writing)
