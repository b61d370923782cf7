"""Roots over records that are read one by one: of each namespace, and over all."""

from __future__ import annotations

from typing import final

import msgspec

from engram.memory.model import PUBLIC
from engram.memory.proof import commitment, keyed_tree


class AllRoots(msgspec.Struct, frozen=True):
    """Roots in hex."""

    public: str
    whole: str
    each: dict[str, str]
    records: int
    public_records: int


@final
class RecordRoots:
    """Collects records; keeps 64 bytes of each."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[int, bytearray]] = {PUBLIC: {}}
        """Entries of each namespace, by their first byte."""

    def add(self, namespace: str, cid: str, embedding: bytes) -> None:
        """Add a record."""
        entry = keyed_tree.entry_of(cid, embedding)
        self._entries.setdefault(namespace, {}).setdefault(entry[0], bytearray()).extend(entry)

    def all(self) -> AllRoots:
        """Return the roots over what was added."""
        roots = {name: keyed_tree.root_of(held) for name, held in self._entries.items()}
        whole, count = commitment.whole_root(roots)
        return AllRoots(
            public=roots[PUBLIC][0].hex(),
            whole=whole.hex(),
            each={name: root.hex() for name, (root, _) in roots.items()},
            records=count,
            public_records=roots[PUBLIC][1],
        )
