"""Merkle tree hashing of RFC 6962 (and 9162), section 2: what the keyed tree is made of.

MTH({}) = sha256()      leaf = sha256(0x00 entry)      node = sha256(0x01 left right)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32
EMPTY = hashlib.sha256(b"").digest()


def leaf(entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return the parent of two nodes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    match len(leaves):
        case 0:
            return EMPTY
        case 1:
            return leaves[0]
        case count:
            split = _split(count)
            return node(root(leaves[:split]), root(leaves[split:]))


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the siblings of a leaf, bottom up. `index` is in 0 … len(leaves) - 1."""
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_path(leaves[:split], index), root(leaves[split:])]
    return [*inclusion_path(leaves[split:], index - split), root(leaves[:split])]


def root_from_path(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a path leads to from a leaf, None when no such path can be (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or any(len(each) != HASH_BYTES for each in (leaf_hash, *path)):
        return None
    position, last, current = index, size - 1, leaf_hash
    for sibling in path:
        if last == 0:
            return None
        if position & 1 or position == last:
            current = node(sibling, current)
            while position & 1 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            current = node(current, sibling)
        position, last = position >> 1, last >> 1
    return current if last == 0 else None


def _split(count: int) -> int:
    """Return the largest power of two smaller than `count`."""
    return 1 << (count - 1).bit_length() - 1
