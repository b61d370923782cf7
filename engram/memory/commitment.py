"""The commitment of a node to all its public records, never stale."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import final

import trio

from engram.memory import merkle, proofs, records
from engram.memory.model import PUBLIC, Change, Deleted
from engram.memory.truth import Truth

_BUILT_ON_THE_LOOP = 256
_LOAD_WITHIN_S = 120.0


@final
class Commitment:
    """Follows the truth change by change; builds a tree when one is asked for after a change.

    Private records are no part of it: their number and identifiers are their owner's business.
    """

    def __init__(self) -> None:
        self._leaves: set[bytes] = set()
        self._tree: merkle.Tree | None = None
        self._changes = 0
        self._building = trio.Lock()

    def __len__(self) -> int:
        return len(self._leaves)

    async def load(self, truth: Truth) -> None:
        """Reads all public records; once, before the first change."""
        self._leaves = await truth.read(_leaves, budget_s=_LOAD_WITHIN_S)

    def follow(self, changes: Sequence[Change]) -> None:
        """Takes committed changes in; for the trio thread."""
        for change in changes:
            if change.namespace != PUBLIC:
                continue
            leaf = merkle.leaf(change.cid, proofs.embedding_hash(change.embedding))
            if isinstance(change, Deleted):
                self._leaves.discard(leaf)
            else:
                self._leaves.add(leaf)
            self._tree = None
            self._changes += 1

    async def tree(self) -> merkle.Tree:
        """Returns the tree of the records as they were at some time during this call."""
        async with self._building:
            if self._tree is not None:
                return self._tree
            if len(self._leaves) <= _BUILT_ON_THE_LOOP:
                self._tree = merkle.Tree(self._leaves)
                return self._tree
            before = self._changes
            tree = await trio.to_thread.run_sync(merkle.Tree, self._leaves.copy())
            if before == self._changes:
                self._tree = tree
            return tree


def _leaves(connection: sqlite3.Connection) -> set[bytes]:
    return {merkle.leaf(cid, proofs.embedding_hash(embedding)) for cid, embedding in records.public_leaves(connection)}
