"""Windows of long texts: embedded behind the acknowledgement, and found by the best of them.

Only where this node made the vector from the text itself: no windows where the client brings its own vector, and none
of ciphertext. Public texts have them where everyone may read them, in the metadata too. For records from before it was
noted, the text is embedded once more and compared. Private records have none while noise is added to private vectors,
for a window would be the text's own, without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, final

import trio

from engram.durable import Database, Readers
from engram.durable.driver import code_of, sqlite3
from engram.memory.embed.protocol import Embedder
from engram.memory.errors import TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.model import PUBLIC, Change, Record
from engram.memory.search import feed, windows_db
from engram.memory.search.derived_file import DAMAGED
from engram.memory.search.feed import Fed, TextGone, TextStored
from engram.memory.search.following import Cleared, Follower
from engram.memory.search.windows_db import WindowsDb
from engram.memory.store import record_sql
from engram.memory.store.record_db import Truth

NEVER_LONG_CHARS: Final = 64
"""A text of at most this many characters has one window, so it is not checked."""
_BATCH: Final = 64
_MOST_CHARS: Final = 2_048
"""One long text: it takes seconds, and the next signer then has a turn."""
_READERS: Final = 2
_READ: Final = Database[sqlite3.Connection](
    name="the windows of this node",
    migrations=(),
    wrap=lambda connection: connection,
    not_done=TruthUnavailable,
    unknown=WriteUnknown,
    unusable=TruthUnreadable,
    remedy=lambda path: f"remove {path}: it is built again",
    fault=lambda error: str(error) if isinstance(error, sqlite3.Error) and code_of(error) not in DAMAGED else None,
)


@final
class Windows:
    """Keep `run` running; call `hint` with the changes of each commit, and `close` at the end."""

    name = "windows of long texts"
    batch = _BATCH
    most_chars = _MOST_CHARS
    is_shared = True

    def __init__(self, path: Path, truth: Truth, embedder: Embedder, *, of_private: bool = True) -> None:
        """Take what embeds; `of_private` says whether private texts have windows."""
        self._path = path
        self._truth = truth
        self._embedder = embedder
        self._of_private = of_private
        self._db: WindowsDb | None = None
        self._writing = trio.CapacityLimiter(1)
        self._readers = Readers(_READ, path, _READERS)
        self._follower = Follower(truth, self)

    @property
    def kept_after(self) -> int:
        """The change after which deletions must still be listed."""
        return self._follower.kept_after

    def hint(self, changes: Sequence[Change]) -> None:
        """Note that these changes were committed."""
        self._follower.hint(changes)

    async def reached(self, within_s: float, record: Record | None = None) -> None:
        """Wait until a record, or all that was committed, can be found by its windows. Raises IndexUnavailable."""
        lane = None if record is None else self._follower.lane(record.namespace, record.owner)
        await self._follower.reached(within_s, lane)

    def has(self, record: Record) -> bool:
        """Return whether a record can be found by its windows, if it has any."""
        return self._follower.has(self._follower.lane(record.namespace, record.owner), record.sequence)

    def report(self, on_progress: Callable[[int], None]) -> None:
        """Have `on_progress` called with the number of changes that are not applied yet, whenever it changes."""
        self._follower.on_progress = on_progress

    async def run(self, ready: Callable[[], None]) -> None:
        """Follow the truth until cancelled."""
        await self._follower.run(ready)

    def close(self) -> None:
        """Close all connections; blocking."""
        self._readers.close()
        if self._db is not None:
            self._db.close()

    async def find(self, namespace: str, vector: bytes) -> dict[int, float]:
        """Return the cosine of the best window by record id, best first, of those that are embedded by now.

        Raises TruthUnavailable.
        """
        if self._db is None:
            return {}
        try:
            return await self._readers.read(lambda held: windows_db.find(held, namespace, vector))
        except (sqlite3.Error, ValueError):  # ValueError: bytes that are no vectors
            self._follower.found_damage()
            return {}

    async def open(self) -> int:
        def make() -> WindowsDb:
            return WindowsDb(self._path, self._truth.truth_id, self._embedder.name, self._embedder.dimension)

        self._db = await trio.to_thread.run_sync(make, limiter=self._writing)
        return self._db.sequence

    async def apply(self, changes: Sequence[Fed], sequence: int) -> None:
        """Embed what is long among the changes. A record at a time is stored, so that a stop loses the work on one."""
        assert self._db is not None
        gone = [change.id for change in changes if isinstance(change, TextGone)]
        await trio.to_thread.run_sync(self._db.remove, gone, limiter=self._writing)
        for change in changes:
            if isinstance(change, TextStored) and change.id not in gone:
                vectors = await self._vectors(change)
                if vectors:
                    await self._put(change, b"".join(vectors))
        await trio.to_thread.run_sync(self._db.note, sequence, limiter=self._writing)

    async def missed(self, truth: Truth) -> int:
        """Remove the windows of records that are not there any more; all others stay, for they took long to make."""
        assert self._db is not None
        there = set(await truth.read(feed.ids_of, budget_s=60.0))
        await trio.to_thread.run_sync(self._db.keep_only, there, limiter=self._writing)
        return self._db.sequence

    async def reset(self) -> None:
        assert self._db is not None
        self._readers.close()
        self._readers = Readers(_READ, self._path, _READERS)  # those in use are on the file that is removed
        await trio.to_thread.run_sync(self._db.reset, limiter=self._writing)

    async def clear(self) -> Cleared:
        assert self._db is not None
        if not self._db.is_unclean:
            return "done"
        return "done" if await trio.to_thread.run_sync(self._db.clear, limiter=self._writing) else "later"

    async def _is_there(self, number: int) -> bool:
        assert self._db is not None
        return await trio.to_thread.run_sync(self._db.has, number, limiter=self._writing)

    async def _put(self, change: TextStored, vectors: bytes) -> None:
        assert self._db is not None
        await trio.to_thread.run_sync(self._db.put, change.id, change.namespace, vectors, limiter=self._writing)

    async def _vectors(self, change: TextStored) -> list[bytes]:
        """Return the vectors of a record's further windows. Raises EmbedderUnavailable, TruthUnavailable."""
        text, private = change.windowed, change.namespace != PUBLIC
        if text is None or len(text) <= NEVER_LONG_CHARS or change.made_here is False:
            return []
        if (private and not self._of_private) or await self._is_there(change.id):
            return []
        vectors = await self._embedder.windows(text)
        if vectors and change.made_here is None:
            (own,) = await self._embedder.embed([text])
            stored = await self._truth.read(lambda held: record_sql.embedding_of(held, change.id))
            return vectors if own == stored else []
        return vectors
