"""The commitment to all public records: a Merkle root in the form that existing validators check.

    leaf = sha256("leaf:" cid ":" embedding_hash)        node = sha256("node:" left right)

Leaves are in byte order without duplicates; the last of an odd layer is its own sibling; no leaves: 32 zero
bytes. Changing the set costs nothing; the layers are rebuilt, once, when a root or a proof is asked for after
a change, so that neither is ever stale.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import Literal

import msgspec

EMPTY_ROOT = bytes(32)


class Step(msgspec.Struct, frozen=True):
    """One step of a proof, bottom up: the sibling (hex) and the side on which it stands."""

    sibling: str
    side: Literal["left", "right"]


class Proof(msgspec.Struct, frozen=True):
    """Shows that a leaf is under a root."""

    leaf_hex: str
    steps: list[Step]


def leaf(cid: str, embedding_hash: str) -> bytes:
    """Returns the leaf (32 bytes) of a record; `embedding_hash` is hex."""
    return hashlib.sha256(f"leaf:{cid}:{embedding_hash}".encode()).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Returns the parent of two nodes."""
    return hashlib.sha256(b"node:" + left + right).digest()


def verify(proof: Proof, root: bytes) -> bool:
    """Says whether the proof leads from its leaf to the root."""
    current = bytes.fromhex(proof.leaf_hex)
    for step in proof.steps:
        sibling = bytes.fromhex(step.sibling)
        current = node(current, sibling) if step.side == "right" else node(sibling, current)
    return current == root


class Commitment:
    """The set of leaves and, once asked for, its tree. Not safe for use by two threads at once."""

    def __init__(self) -> None:
        self._leaves: set[bytes] = set()
        self._layers: list[list[bytes]] | None = None

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def fresh(self) -> bool:
        """Whether the tree is built, so that a root or a proof costs next to nothing."""
        return self._layers is not None

    def add(self, added: bytes) -> None:
        """Adds a leaf; one that is there already changes nothing."""
        if added not in self._leaves:
            self._leaves.add(added)
            self._layers = None

    def discard(self, gone: bytes) -> None:
        """Takes a leaf out; one that is not there changes nothing."""
        if gone in self._leaves:
            self._leaves.discard(gone)
            self._layers = None

    def root(self) -> bytes:
        """Returns the root (32 bytes) of the leaves as they are now. O(n) after a change, else O(1)."""
        if not self._leaves:
            return EMPTY_ROOT
        return self._built()[-1][0]

    def prove(self, wanted: bytes) -> Proof | None:
        """Returns the proof of a leaf, or None when it is not in the set."""
        if wanted not in self._leaves:
            return None
        layers = self._built()
        index = bisect_left(layers[0], wanted)
        steps: list[Step] = []
        for layer in layers[:-1]:
            sibling = index ^ 1
            other = layer[sibling] if sibling < len(layer) else layer[index]
            steps.append(Step(sibling=other.hex(), side="left" if index & 1 else "right"))
            index >>= 1
        return Proof(leaf_hex=wanted.hex(), steps=steps)

    def _built(self) -> list[list[bytes]]:
        if self._layers is None:
            layers = [sorted(self._leaves)]
            while len(layers[-1]) > 1:
                layers.append(_parents(layers[-1]))
            self._layers = layers
        return self._layers


def _parents(layer: list[bytes]) -> list[bytes]:
    sha256 = hashlib.sha256
    padded = layer if len(layer) % 2 == 0 else [*layer, layer[-1]]
    return [sha256(b"node:" + padded[i] + padded[i + 1]).digest() for i in range(0, len(padded), 2)]
