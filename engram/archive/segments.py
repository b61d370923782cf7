"""Segments: rows packed so that few bytes are sealed, and lists of the rows that died in other segments.

A row is known by its digest, so that what lies in an archive can be compared with what a node holds without reading
the archive. Vectors do not shrink (0.93 of their size, measured) and are kept apart from texts (0.33), which do.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from engram import wire
from engram.archive.errors import Damaged, RowTooLarge
from engram.archive.model import DELETIONS, Segment
from engram.archive.sealing import MOST_CONTENT, ROWS_BYTES

DIGEST: Final = 32
BLOB_COLUMN: Final = "embedding"
_OVERHEAD: Final = 64
"""Bytes that a row takes beside its digested values, at most: its trailing NULLs."""
_MOST_UNPACKED: Final = 1 << 26
_decode_segment = wire.msgpack_decoder(Segment).decode
_decode_values = wire.msgpack_decoder(list[list[object]]).decode

Row = tuple[object, ...]


class Packer:
    """Collects rows of one kind into contents of segments, in the order given."""

    def __init__(self, kind: str, columns: Sequence[str]) -> None:
        self.kind = kind
        self._columns = tuple(columns)
        self._blob = self._columns.index(BLOB_COLUMN) if BLOB_COLUMN in self._columns else -1
        self._start()

    def __len__(self) -> int:
        return len(self._rows)

    def fits(self, size: int) -> bool:
        """Return whether a row of `size` bytes still fits behind those collected; the first one always does."""
        return not self._rows or self._size + size <= ROWS_BYTES

    def add(self, row: Row, digest: bytes, size: int) -> None:
        """Collect a row."""
        self._size += size
        blob = row[self._blob] if self._blob >= 0 else None
        if isinstance(blob, bytes):
            self._blobs.append(blob)
            row = (*row[: self._blob], len(blob), *row[self._blob + 1 :])
        self._rows.append(row)
        self._digests.append(digest)

    def take(self) -> tuple[bytes, list[bytes]]:
        """Return the content of a segment with the digests of its rows, and begin the next.

        Raises RowTooLarge for a single row that no segment can hold.
        """
        rows = msgspec.msgpack.encode(list(zip(*self._rows, strict=True)))
        packed = zlib.compress(rows, 1)
        segment = Segment(self.kind, self._columns, self._blob, packed, b"".join(self._blobs))
        content, digests = msgspec.msgpack.encode(segment), self._digests
        if len(content) > MOST_CONTENT or len(rows) > _MOST_UNPACKED:
            raise RowTooLarge(
                f"a {self.kind} row has {len(rows)} bytes, packed {len(content)}; the most that can be archived is "
                f"{_MOST_UNPACKED}, packed {MOST_CONTENT}"
            )
        self._start()
        return content, digests

    def _start(self) -> None:
        self._rows: list[Row] = []
        self._digests: list[bytes] = []
        self._blobs: list[bytes] = []
        self._size = 0


class Rows(msgspec.Struct, frozen=True):
    """The rows of an opened segment."""

    kind: str
    columns: tuple[str, ...]
    rows: list[Row]


def unpack(content: bytes) -> Rows:
    """Return the rows of a segment's content. Raises Damaged."""
    try:
        segment = _decode_segment(content)
        inflating = zlib.decompressobj()
        values = _decode_values(inflating.decompress(segment.packed, _MOST_UNPACKED))
    except (msgspec.MsgspecError, zlib.error) as error:
        raise Damaged(f"its rows cannot be read: {error}") from None
    is_even = len({len(column) for column in values}) <= 1
    if inflating.unconsumed_tail or not is_even or not segment.blob < len(values) == len(segment.columns):
        raise Damaged("its rows have other columns than it says")
    if segment.blob >= 0:
        values[segment.blob] = list(_with_blobs(values[segment.blob], segment.blobs))
    return Rows(segment.kind, segment.columns, list(zip(*values, strict=True)))


def _with_blobs(column: list[object], blobs: bytes) -> Iterator[object]:
    """Yield the values of a column with bytes in place of their lengths."""
    at = 0
    for value in column:
        if type(value) is not int:
            yield value
            continue
        if not 0 <= value <= len(blobs) - at:
            raise Damaged("its vectors are cut off")
        yield blobs[at : at + value]
        at += value


def digester(kind: str, columns: Sequence[str]) -> Callable[[Row], tuple[bytes, int]]:
    """Return what digests rows of one kind: SHA-256 over kind, columns and values, to the last that is not NULL. The
    bytes that the row takes come with it.

    A column that a later version adds, and that is empty in older rows, leaves their digests as they were.
    """
    before = [
        hashlib.sha256(msgspec.msgpack.encode((kind, tuple(columns[:count])))) for count in range(len(columns) + 1)
    ]

    def digest_of(row: Row) -> tuple[bytes, int]:
        count = len(row)
        while count and row[count - 1] is None:
            count -= 1
        digest = before[count].copy()
        encoded = msgspec.msgpack.encode(row[:count])
        digest.update(encoded)
        return digest.digest(), len(encoded) + _OVERHEAD

    return digest_of


def pack_deletions(dead: Mapping[str, Sequence[bytes]]) -> bytes:
    """Return the content of a list of dead rows: for each segment its name, how many, and their digests."""
    parts = [DELETIONS.encode()]
    for name, digests in sorted(dead.items()):
        parts += [bytes.fromhex(name), len(digests).to_bytes(4, "big"), *sorted(digests)]
    return b"".join(parts)


def unpack_deletions(content: bytes) -> dict[str, set[bytes]]:
    """Return the dead rows of each segment. Raises Damaged."""
    at = len(DELETIONS)
    if content[:at] != DELETIONS.encode():
        raise Damaged("it is no list of deleted rows")
    dead: dict[str, set[bytes]] = {}
    while at < len(content):
        name, count = content[at : at + DIGEST].hex(), int.from_bytes(content[at + DIGEST : at + DIGEST + 4], "big")
        at += DIGEST + 4
        end = at + DIGEST * count
        if end > len(content):
            raise Damaged("its list of deleted rows is cut off")
        dead.setdefault(name, set()).update(content[each : each + DIGEST] for each in range(at, end, DIGEST))
        at = end
    return dead


def rows_sha256(digests: Iterable[bytes]) -> str:
    """Return the hash over living rows, whose digests come in their order."""
    found = hashlib.sha256()
    for digest in digests:
        found.update(digest)
    return found.hexdigest()
