"""The one store of a node: records in, nearest records out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engram.memory.filters import Filter
from engram.memory.model import Counts, Entry, Hit, Record
from engram.memory.store.deletions import May, Outcome


class Store(Protocol):
    """Records by namespace and CID. Nothing of one namespace is ever seen through another."""

    async def put(self, entry: Entry) -> Record:
        """Store an entry; once this returns it is durable and searchable. Storing it again is harmless.

        Raises TruthUnavailable (nothing stored), WriteUnknown, IndexUnavailable (durable, found later).
        """
        ...

    async def put_all(self, entries: Sequence[Entry]) -> list[Record]:
        """Store entries (at least one) as `put` does, all of them or none. Raises as `put` does, for all of them."""
        ...

    async def delete(self, namespace: str, cid: str) -> bool:
        """Delete a record; return False when there was none. Raises as `put` does."""
        ...

    async def delete_all(self, namespace: str, cids: Sequence[str], may: May) -> list[Outcome]:
        """Delete records in one transaction; return the result for each, in order. No search finds them any more.

        Raises TruthUnavailable (nothing deleted), WriteUnknown.
        """
        ...

    async def get(self, namespace: str, cid: str) -> Record | None:
        """Return the record, or None. Raises TruthUnavailable."""
        ...

    async def query(self, namespace: str, vector: bytes, limit: int, conditions: Filter) -> list[Hit]:
        """Return the nearest records of the namespace whose metadata meet `conditions`, best first.

        `vector` is f32 little-endian. Raises IndexUnavailable, TruthUnavailable.
        """
        ...

    async def page(
        self, namespace: str, conditions: Filter, limit: int, offset: int = 0, key: str | None = None
    ) -> list[Record]:
        """Return a page of a namespace, or of the versions of one key, in the order of storing.

        Raises TruthUnavailable.
        """
        ...

    def count(self) -> Counts:
        """Return how many records there are."""
        ...
