"""Roots over records that are read one by one: of each namespace, and over all."""

from __future__ import annotations

from typing import final

import msgspec

from engram.memory.model import PUBLIC
from engram.memory.proof import commitment, keyed_tree
from engram.memory.proof.keyed_tree import KeyedTree


class AllRoots(msgspec.Struct, frozen=True):
    """Roots in hex."""

    public: str
    whole: str
    each: dict[str, str]
    records: int


@final
class RecordRoots:
    """Collects records; keeps 32 bytes of each."""

    def __init__(self) -> None:
        self._entries: dict[str, list[bytes]] = {PUBLIC: []}

    def add(self, namespace: str, cid: str, embedding: bytes) -> None:
        """Add a record."""
        self._entries.setdefault(namespace, []).append(keyed_tree.entry_of(cid, embedding))

    def all(self) -> AllRoots:
        """Return the roots over what was added."""
        trees = {name: KeyedTree(held) for name, held in self._entries.items()}
        whole, count = commitment.whole_root({name: (tree.root, len(tree)) for name, tree in trees.items()})
        return AllRoots(
            public=trees[PUBLIC].root.hex(),
            whole=whole.hex(),
            each={name: tree.root.hex() for name, tree in trees.items()},
            records=count,
        )
