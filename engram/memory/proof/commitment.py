"""The commitment of a node to the records it holds, updated with each change and never stale.

Public records have one tree, each private namespace its own: a private root, count or proof is for its owner
only, and no public figure changes with a private record. `whole` covers all namespaces, for the controller. Trees of
private namespaces are built on demand; the most recently used ones are kept and updated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import final

import trio

from engram.durable.driver import sqlite3
from engram.memory.model import PUBLIC, Change, Deleted
from engram.memory.proof import keyed_tree, merkle, proofs, rfc6962
from engram.memory.proof.keyed_tree import KeyedTree
from engram.memory.store import record_sql
from engram.memory.store.record_db import Truth

_BUILT_ON_THE_LOOP = 256
_LOAD_WITHIN_S = 120.0
_FOLLOWED_WITHIN_S = 1.0
_PRIVATE_ENTRIES_KEPT = 100_000
"""Entries of private trees kept in memory together, about 400 bytes each."""
_OF_A_TREE = 8
"""Added to the entries of each kept tree, because a client may name many namespaces that are empty."""


@final
class Commitment:
    """Call `load` once before the first change, `follow` with every change, and all methods from the trio thread."""

    def __init__(self) -> None:
        self._truth: Truth | None = None
        self._public = KeyedTree()
        self._private: OrderedDict[str, KeyedTree] = OrderedDict()
        self._missed: dict[str, list[Change]] = {}
        self._legacy: set[bytes] | None = None
        self._legacy_tree: merkle.Tree | None = None
        self._changes = 0
        self._sequence = 0
        self._changed_at = {PUBLIC: 0}
        """No change to the trees in memory has a higher number."""
        self._followed = trio.Event()
        self._building = trio.Lock()

    def __len__(self) -> int:
        return len(self._public)

    async def load(self, truth: Truth) -> None:
        """Read all public records. Call it once, before the first change."""
        self._truth = truth
        self._public, self._sequence = await truth.read(
            lambda connection: _tree(connection, PUBLIC), budget_s=_LOAD_WITHIN_S
        )
        self._changed_at[PUBLIC] = self._sequence

    def follow(self, changes: Sequence[Change]) -> None:
        """Apply committed changes to the trees in memory."""
        for change in changes:
            if change.namespace == PUBLIC:
                self._changes += 1
                _apply(self._public, change)
                self._follow_legacy(change)
            elif change.namespace in self._private:
                _apply(self._private[change.namespace], change)
            if change.namespace in self._changed_at:
                self._changed_at[change.namespace] = max(change.sequence, self._changed_at[change.namespace])
            if change.namespace in self._missed:
                self._missed[change.namespace].append(change)
            self._sequence = max(self._sequence, change.sequence)
        self._followed.set()
        self._followed = trio.Event()

    def public(self) -> KeyedTree:
        """Return the tree of the public records as they are now."""
        return self._public

    async def of(self, namespace: str) -> KeyedTree:
        """Return the tree of a namespace as it is now. Raises TruthUnavailable."""
        if namespace == PUBLIC:
            return self._public
        async with self._building:
            if namespace not in self._private:
                await self._build(namespace)
            self._private.move_to_end(namespace)
            return self._private[namespace]

    async def as_of(self, namespace: str, sequence: int) -> KeyedTree | None:
        """Return the tree of a namespace as it was after change `sequence`; None when it has changed since, or when
        that change does not arrive here within a second. Raises TruthUnavailable.
        """
        with trio.move_on_after(_FOLLOWED_WITHIN_S):
            while self._sequence < sequence:
                await self._followed.wait()
        tree = await self.of(namespace)
        return tree if self._changed_at[namespace] <= sequence <= self._sequence else None

    async def whole(self) -> tuple[bytes, int]:
        """Return root and count over all namespaces: RFC 6962 over their names' hashes, roots and counts, in order.

        Raises TruthUnavailable. Reads every private record whose tree is not kept in memory.
        """
        assert self._truth is not None
        names = await self._truth.read(_namespaces)
        parts: dict[str, tuple[bytes, int]] = {}
        for name in {PUBLIC, *names}:
            tree = await self.of(name)
            parts[name] = tree.root, len(tree)
        return whole_root(parts)

    async def tree(self) -> merkle.Tree:
        """Return the public records' tree in the form of the original; it is rebuilt after a change."""
        async with self._building:
            if self._legacy is None:
                self._legacy = await self._read_legacy()
            if self._legacy_tree is not None:
                return self._legacy_tree
            if len(self._legacy) <= _BUILT_ON_THE_LOOP:
                self._legacy_tree = merkle.Tree(self._legacy)
                return self._legacy_tree
            before = self._changes
            tree = await trio.to_thread.run_sync(merkle.Tree, self._legacy.copy())
            if before == self._changes:
                self._legacy_tree = tree
            return tree

    def _follow_legacy(self, change: Change) -> None:
        self._legacy_tree = None
        if self._legacy is None:
            return
        before = len(self._legacy)
        _apply_legacy(self._legacy, change)
        if isinstance(change, Deleted) and len(self._legacy) == before:  # it was damaged, so its leaf is unknown
            self._legacy = None

    async def _read_legacy(self) -> set[bytes]:
        assert self._truth is not None
        self._missed[PUBLIC] = []
        try:
            leaves = await self._truth.read(_legacy_leaves, budget_s=_LOAD_WITHIN_S)
            for change in self._missed[PUBLIC]:
                _apply_legacy(leaves, change)
        finally:
            del self._missed[PUBLIC]
        return leaves

    async def _build(self, namespace: str) -> None:
        assert self._truth is not None
        self._missed[namespace] = []
        try:
            tree, sequence = await self._truth.read(
                lambda connection: _tree(connection, namespace), budget_s=_LOAD_WITHIN_S
            )
            for change in self._missed[namespace]:  # changes that the snapshot already has make no difference
                _apply(tree, change)
                sequence = max(sequence, change.sequence)
        finally:
            del self._missed[namespace]
        self._private[namespace], self._changed_at[namespace] = tree, sequence
        while len(self._private) > 1 and self._kept() > _PRIVATE_ENTRIES_KEPT:
            forgotten, _ = self._private.popitem(last=False)
            del self._changed_at[forgotten]

    def _kept(self) -> int:
        return sum(map(len, self._private.values())) + _OF_A_TREE * len(self._private)


def whole_root(parts: Mapping[str, tuple[bytes, int]]) -> tuple[bytes, int]:
    """Return root and count over namespaces, each with its own root and count."""
    entries = [keyed_tree.key_of(name) + root + count.to_bytes(8) for name, (root, count) in parts.items()]
    return rfc6962.root([rfc6962.leaf(entry) for entry in sorted(entries)]), sum(count for _, count in parts.values())


def _apply(tree: KeyedTree, change: Change) -> None:
    entry = keyed_tree.entry_of(change.cid, change.embedding)
    if isinstance(change, Deleted):
        tree.discard(entry)
    else:
        tree.add(entry)


def _apply_legacy(leaves: set[bytes], change: Change) -> None:
    leaf = merkle.leaf(change.cid, proofs.embedding_hash(change.embedding))
    if isinstance(change, Deleted):
        leaves.discard(leaf)
    else:
        leaves.add(leaf)


def _tree(connection: sqlite3.Connection, namespace: str) -> tuple[KeyedTree, int]:
    """Return the tree of a namespace and the number of the last change in it."""
    rows = connection.execute("SELECT cid, embedding FROM records WHERE namespace = ?", (namespace,))
    tree = KeyedTree(keyed_tree.entry_of(cid, embedding) for cid, embedding in rows)
    return tree, record_sql.last_sequence(connection)


def _namespaces(connection: sqlite3.Connection) -> list[str]:
    return [str(row[0]) for row in connection.execute("SELECT DISTINCT namespace FROM records")]


def _legacy_leaves(connection: sqlite3.Connection) -> set[bytes]:
    return {
        merkle.leaf(cid, proofs.embedding_hash(embedding)) for cid, embedding in record_sql.public_leaves(connection)
    }
