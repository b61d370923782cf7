"""Digests of rows with a small number each, in about 44 bytes a row: a dict of Python objects takes 120."""

from collections.abc import Collection, Iterator
from typing import Final, final

from engram.archive.segments import DIGEST

_NUMBER: Final = 4
_WIDTH: Final = DIGEST + _NUMBER
_PREFIX: Final = 2
_SHIFT: Final = 2
"""16,384 buckets by the first 14 bits: they are in the order of their digests."""


@final
class RowTable:
    """A map of digests to numbers below 2^32."""

    def __init__(self) -> None:
        self._buckets: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, digest: bytes) -> int | None:
        """Return the number of a digest."""
        bucket = self._buckets.get(_bucket(digest))
        at = -1 if bucket is None else _find(bucket, digest)
        return None if bucket is None or at < 0 else int.from_bytes(bucket[at + DIGEST : at + _WIDTH])

    def put(self, digest: bytes, number: int) -> int | None:
        """Set the number of a digest; return the one that it had."""
        bucket = self._buckets.setdefault(_bucket(digest), bytearray())
        at = _find(bucket, digest)
        if at < 0:
            bucket += digest + number.to_bytes(_NUMBER)
            self._count += 1
            return None
        before = int.from_bytes(bucket[at + DIGEST : at + _WIDTH])
        bucket[at + DIGEST : at + _WIDTH] = number.to_bytes(_NUMBER)
        return before

    def discard(self, digest: bytes) -> None:
        """Forget a digest."""
        bucket = self._buckets.get(_bucket(digest))
        at = -1 if bucket is None else _find(bucket, digest)
        if bucket is not None and at >= 0:
            del bucket[at : at + _WIDTH]
            self._count -= 1

    def discard_numbers(self, numbers: Collection[int]) -> None:
        """Forget every digest that has one of the numbers."""
        for digest in [digest for digest, number in self.items() if number in numbers]:
            self.discard(digest)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Yield digests, in their order, with their numbers; nothing may change meanwhile."""
        for name in sorted(self._buckets):
            bucket = bytes(self._buckets[name])
            for row in sorted([bucket[at : at + _WIDTH] for at in range(0, len(bucket), _WIDTH)]):
                yield row[:DIGEST], int.from_bytes(row[DIGEST:])


def _bucket(digest: bytes) -> int:
    return int.from_bytes(digest[:_PREFIX]) >> _SHIFT


def _find(bucket: bytearray, digest: bytes) -> int:
    at = bucket.find(digest)
    while at > 0 and at % _WIDTH:
        at = bucket.find(digest, at + 1)
    return at
