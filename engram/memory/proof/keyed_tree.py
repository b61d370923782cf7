"""A Merkle tree over a set of keys, independent of the order of changes, that can prove inclusion and absence.

    key = sha256(cid)        entry = key || sha256(vector bytes)
    2^16 buckets by the first 16 bits of the key; a bucket is the RFC 6962 tree of its entries in byte order
    a bucket of more than 32 entries is split on the next bit: sha256(0x02 left right), and so on down
    above the buckets a perfect tree of RFC 6962 nodes, 16 levels high

An entry reveals no CID, so a whole bucket may be shown. The prefix 0x02 keeps a split from being taken for a bucket
of two entries, which would allow a false proof of absence.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping

import msgspec

from engram.memory.proof import rfc6962

LEVELS = 16
BUCKET_ENTRIES = 32
ENTRY_BYTES = 64
DEEPEST = 256
_LEAVES = 1 << LEVELS
_Known = dict[int, bytes]
"""Hashes of halves of split buckets, by heap number."""


def key_of(cid: str) -> bytes:
    """Return the key (32 bytes) of a CID."""
    return hashlib.sha256(cid.encode()).digest()


def entry_of(cid: str, embedding: bytes) -> bytes:
    """Return the entry (64 bytes) of a record; `embedding` is f32 little-endian."""
    return key_of(cid) + hashlib.sha256(embedding).digest()


class Shown(msgspec.Struct, frozen=True):
    """What a proof shows of a bucket, and the path to the root: `siblings` are bottom up, one for each of `depth` bits.

    Inclusion gives `index`, `size` and `path`; absence gives all `entries`. All is hex.
    """

    key: str
    depth: int
    siblings: list[str]
    embedding_hash: str | None = None
    index: int | None = None
    size: int | None = None
    path: list[str] = []
    entries: list[str] | None = None


class KeyedTree:
    """The tree over a set of entries. A change costs 16 hashes plus those of its bucket; the root is always current."""

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        """Build the tree, 5 µs an entry: not on the loop when there are many."""
        self._buckets: dict[int, list[bytes]] = {}
        self._nodes: dict[int, bytes] = {}  # by heap number: 1 is the root, 2^16 + b is bucket b; none: as if empty
        self._halves: dict[
            int, _Known
        ] = {}  # of split buckets: keeps changes cheap when an attacker has ground many keys into one bucket
        self._count = 0
        for entry in entries:
            bucket = self._buckets.setdefault(_prefix(entry), [])
            bucket.append(entry)
        dirty = set()
        for number, bucket in self._buckets.items():
            bucket[:] = sorted(set(bucket))
            self._count += len(bucket)
            self._nodes[_LEAVES + number] = self._hashed(number, bucket)
            dirty.add((_LEAVES + number) >> 1)
        while dirty:
            for number in dirty:
                self._nodes[number] = self._parent(number)
            dirty = {number >> 1 for number in dirty if number > 1}

    def __len__(self) -> int:
        return self._count

    @property
    def root(self) -> bytes:
        """The root (32 bytes)."""
        return self._nodes.get(1, _EMPTY_AT[0])

    def add(self, entry: bytes) -> None:
        """Add an entry; an existing one stays."""
        bucket = self._buckets.setdefault(_prefix(entry), [])
        at = bisect_left(bucket, entry)
        if at < len(bucket) and bucket[at] == entry:
            return
        insort(bucket, entry)
        self._count += 1
        self._changed(entry)

    def discard(self, entry: bytes) -> None:
        """Remove the entry with the key of this one, if present, even when the vector hash differs."""
        bucket = self._buckets.get(_prefix(entry), [])
        at = bisect_left(bucket, entry[:32])
        if at == len(bucket) or bucket[at][:32] != entry[:32]:
            return
        del bucket[at]
        self._count -= 1
        self._changed(entry)

    def show(self, cid: str) -> Shown:
        """Return the proof that the CID is in the tree (`index` is set), or that it is not (`entries` is set)."""
        key = key_of(cid)
        number = _prefix(key)
        entries = self._buckets.get(number, [])
        depth, at, below = LEVELS, _LEAVES + number, list[bytes]()
        known = self._halves.get(number, {})
        while len(entries) > BUCKET_ENTRIES and depth < DEEPEST:
            zeros, ones = _split(entries, depth, at)
            bit = _bit(key, depth)
            entries, other = (ones, zeros) if bit else (zeros, ones)
            depth, at = depth + 1, 2 * at + bit
            below.append(_half(other, depth, at ^ 1, known))
        siblings = [each.hex() for each in reversed(below)]
        at = _LEAVES + number
        for level in range(LEVELS, 0, -1):
            siblings.append(self._nodes.get(at ^ 1, _EMPTY_AT[level]).hex())
            at >>= 1
        index = bisect_left(entries, key)
        if index < len(entries) and entries[index][:32] == key:
            path = rfc6962.inclusion_path([rfc6962.leaf(entry) for entry in entries], index)
            held = entries[index][32:].hex()
            return Shown(key.hex(), depth, siblings, held, index, len(entries), [each.hex() for each in path])
        return Shown(key.hex(), depth, siblings, entries=[entry.hex() for entry in entries])

    def _changed(self, entry: bytes) -> None:
        number = _prefix(entry)
        bucket = self._buckets[number]
        at = _LEAVES + number
        if (known := self._halves.get(number)) is not None:
            way = 1 << DEEPEST | int.from_bytes(entry[:32])
            for depth in range(LEVELS + 1, DEEPEST + 1):
                known.pop(way >> (DEEPEST - depth), None)
        if bucket:
            self._nodes[at] = self._hashed(number, bucket)
        else:
            del self._buckets[number], self._nodes[at]
        level = LEVELS
        while at > 1:
            at, level = at >> 1, level - 1
            parent = self._parent(at)
            if parent == _EMPTY_AT[level]:
                self._nodes.pop(at, None)
            else:
                self._nodes[at] = parent

    def _hashed(self, number: int, bucket: list[bytes]) -> bytes:
        if len(bucket) <= BUCKET_ENTRIES:
            self._halves.pop(number, None)
            return _hash(bucket, LEVELS, _LEAVES + number, {})
        known = self._halves.setdefault(number, {})
        if len(known) > 2 * len(bucket):  # most of it belongs to deleted entries
            known.clear()
        return _hash(bucket, LEVELS, _LEAVES + number, known)

    def _parent(self, number: int) -> bytes:
        empty = _EMPTY_AT[number.bit_length()]
        return rfc6962.node(self._nodes.get(2 * number, empty), self._nodes.get(2 * number + 1, empty))


def root_of(entries: Mapping[int, bytes | bytearray]) -> tuple[bytes, int]:
    """Return the root over entries and how many they are; those with the same first byte stand one after the other.

    What `KeyedTree` gives, without keeping a tree: one 256th of the entries is taken apart at a time.
    """
    tops: dict[int, bytes] = {}
    count = 0
    for content in entries.values():
        several = sorted({bytes(content[at : at + ENTRY_BYTES]) for at in range(0, len(content), ENTRY_BYTES)})
        count += len(several)
        buckets: dict[int, list[bytes]] = {}
        for entry in several:
            buckets.setdefault(_LEAVES + _prefix(entry), []).append(entry)
        nodes = {at: _hash(bucket, LEVELS, at, {}) for at, bucket in buckets.items()}
        tops |= _above(nodes, LEVELS, LEVELS // 2)
    return _above(tops, LEVELS // 2, 0).get(1, _EMPTY_AT[0]), count


def _above(nodes: dict[int, bytes], level: int, top: int) -> dict[int, bytes]:
    for below in range(level, top, -1):
        empty, known = _EMPTY_AT[below], nodes
        nodes = {
            number: rfc6962.node(known.get(2 * number, empty), known.get(2 * number + 1, empty))
            for number in {each >> 1 for each in known}
        }
    return nodes


def verify(shown: Shown, cid: str, root: bytes) -> str | None:
    """Check a proof against a root. Return the embedding hash (hex) of the CID; None when the proof shows its absence.

    Raises ValueError when the proof shows neither.
    """
    key = key_of(cid)
    if bytes.fromhex(shown.key) != key:
        raise ValueError("the proof is about another CID")
    if not LEVELS <= shown.depth <= DEEPEST or len(shown.siblings) != shown.depth:
        raise ValueError("the proof has not one sibling for each bit")
    current = _included(shown, key) if shown.entries is None else _bucket(shown.entries, key, shown.depth)
    for depth, sibling in zip(range(shown.depth, 0, -1), shown.siblings, strict=True):
        other = bytes.fromhex(sibling)
        left, right = (other, current) if _bit(key, depth - 1) else (current, other)
        current = rfc6962.node(left, right) if depth <= LEVELS else _split_node(left, right)
    if current != root:
        raise ValueError("the proof does not lead to the root")
    return shown.embedding_hash if shown.entries is None else None


def _included(shown: Shown, key: bytes) -> bytes:
    held = bytes.fromhex(shown.embedding_hash or "")
    if len(held) != rfc6962.HASH_BYTES or shown.index is None or shown.size is None:
        raise ValueError("the proof shows no entry")
    path = [bytes.fromhex(each) for each in shown.path]
    found = rfc6962.root_from_path(rfc6962.leaf(key + held), shown.index, shown.size, path)
    if found is None:
        raise ValueError("the path does not fit the size of the bucket")
    return found


def _bucket(shown: list[str], key: bytes, depth: int) -> bytes:
    entries = [bytes.fromhex(each) for each in shown]
    if any(len(entry) != ENTRY_BYTES or _bits(entry, depth) != _bits(key, depth) for entry in entries):
        raise ValueError("the bucket is not that of the CID")
    if any(entry[:32] == key for entry in entries) or entries != sorted(set(entries)):
        raise ValueError("the bucket does not show that the CID is absent")
    return rfc6962.root([rfc6962.leaf(entry) for entry in entries])


def _hash(entries: list[bytes], depth: int, at: int, known: _Known) -> bytes:
    """Return the hash of entries (in order) that share their first `depth` bits; `at` is their heap number."""
    if len(entries) <= BUCKET_ENTRIES or depth >= DEEPEST:
        return rfc6962.root([rfc6962.leaf(entry) for entry in entries])
    zeros, ones = _split(entries, depth, at)
    return _split_node(_half(zeros, depth + 1, 2 * at, known), _half(ones, depth + 1, 2 * at + 1, known))


def _half(entries: list[bytes], depth: int, at: int, known: _Known) -> bytes:
    if (found := known.get(at)) is None:
        found = known[at] = _hash(entries, depth, at, known)
    return found


def _split_node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x02" + left + right).digest()


def _split(entries: list[bytes], depth: int, at: int) -> tuple[list[bytes], list[bytes]]:
    """Those without and those with the bit after the first `depth`, which they share."""
    first_one = ((2 * at + 1) ^ (2 << depth)) << (DEEPEST - depth - 1)
    where = bisect_left(entries, first_one.to_bytes(32))
    return entries[:where], entries[where:]


def _prefix(key: bytes) -> int:
    return int.from_bytes(key[:2])


def _bit(key: bytes, depth: int) -> int:
    return key[depth >> 3] >> (7 - (depth & 7)) & 1


def _bits(key: bytes, depth: int) -> int:
    return int.from_bytes(key[:32]) >> (256 - depth)


def _empty_levels() -> list[bytes]:
    levels = [rfc6962.EMPTY]
    for _ in range(LEVELS):
        levels.append(rfc6962.node(levels[-1], levels[-1]))
    return levels[::-1]


_EMPTY_AT = _empty_levels()
"""Hash of an empty subtree by its level: 0 is the root, LEVELS a bucket."""
