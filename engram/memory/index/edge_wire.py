"""The protocol between a node and its index worker: msgpack frames over two pipes.

A frame is its length (4 bytes, little-endian) and a msgpack body. Vectors travel as f32 little-endian bytes.
Requests are answered by `number`, not in order: searches overtake changes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from collections.abc import Mapping
from typing import Final

import msgspec

from engram.memory.filters import Filter
from engram.memory.index.protocol import Match
from engram.memory.model import PUBLIC, Change, Deleted
from engram.wire import msgpack_decoder

HEADER: Final = struct.Struct("<I")
LARGEST_FRAME: Final = 64 * 1024**2


class Place(msgspec.Struct, frozen=True, array_like=True, tag="place"):
    """Put this vector in the index. `private_to` is the namespace, or None for public; `marks` are searchable."""

    id: int
    private_to: str | None
    vector: bytes
    marks: list[str]


class Remove(msgspec.Struct, frozen=True, array_like=True, tag="remove"):
    """Take this vector out of the index."""

    id: int
    private_to: str | None


class Apply(msgspec.Struct, frozen=True, array_like=True, tag="apply"):
    """Apply these changes; afterwards the index is at `sequence`. Answered by Done."""

    number: int
    sequence: int
    changes: list[Place | Remove]


class Search(msgspec.Struct, frozen=True, array_like=True, tag="search"):
    """Find the nearest vectors of the public (`private_to` None) or one private namespace. Answered by Found."""

    number: int
    private_to: str | None
    vector: bytes
    limit: int
    marks: list[list[str]]
    """One group of marks for each condition: a vector must have one mark of every group."""
    current: bool = False
    """Whether records that are superseded or expired are skipped."""


class Flush(msgspec.Struct, frozen=True, array_like=True, tag="flush"):
    """Bring everything to disk now. Answered by Done."""

    number: int


class Reset(msgspec.Struct, frozen=True, array_like=True, tag="reset"):
    """Delete all vectors; afterwards the index is at 0. Answered by Done."""

    number: int


class Count(msgspec.Struct, frozen=True, array_like=True, tag="count"):
    """Count the vectors. Answered by Counted."""

    number: int


class Counted(msgspec.Struct, frozen=True, array_like=True, tag="counted"):
    """How many vectors there are in both shards."""

    number: int
    points: int


class WorkDone(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The request was carried out; `flushed` is the last sequence that is safely on disk."""

    number: int
    flushed: int


class Found(msgspec.Struct, frozen=True, array_like=True, tag="found"):
    """The nearest vectors, best first; when the worker reads the records, only those that still exist.

    `is_cut`: so many of the nearest were not to be shown that the worker gave up looking for more.
    """

    number: int
    matches: list[Match]
    is_cut: bool = False


class WorkFailed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The request could not be carried out."""

    number: int
    reason: str


class WorkerReady(msgspec.Struct, frozen=True, array_like=True, tag="standing"):
    """First frame of a worker: everything up to `flushed` is safely on disk."""

    flushed: int


class Flushed(msgspec.Struct, frozen=True, array_like=True, tag="flushed"):
    """Sent after a flush, not as a reply: everything up to `sequence` is safely on disk."""

    sequence: int


Request = Apply | Search | Flush | Reset | Count
Answer = WorkDone | Found | Counted | WorkFailed
Reply = Answer | WorkerReady | Flushed

encode = msgspec.msgpack.Encoder().encode
decode_request = msgpack_decoder(Request).decode
decode_reply = msgpack_decoder(Reply).decode


def mark(key: str, value: str) -> str:
    """Return the mark (short, of fixed length) by which a search finds this pair of key and value."""
    return _digest(f"{len(key)}:{key}{value}")


def presence(key: str) -> str:
    """Return the mark by which a search finds metadata that have this key."""
    return _digest(f"?{key}")


def marks_of(metadata: Mapping[str, str]) -> list[str]:
    """Return all marks of a record with these metadata."""
    return [each for key, value in metadata.items() for each in (mark(key, value), presence(key))]


def wanted(conditions: Filter) -> list[list[str]]:
    """Return the marks of each condition, of which a record must have one."""
    return [
        [presence(each.key)] if each.values is None else [mark(each.key, value) for value in each.values]
        for each in conditions.conditions
    ]


def direction(packed: bytes) -> list[float]:
    """Return the vector in a form that the engine can normalize.

    The engine normalizes in 32-bit floating point, so a vector whose squares leave that range is normalized here first.
    """
    packed_numbers = array("f")
    packed_numbers.frombytes(packed)
    numbers = packed_numbers.tolist()
    norm = math.hypot(*numbers)
    return numbers if 1e-9 < norm < 1e9 else [number / norm for number in numbers]


def wire(change: Change) -> Place | Remove:
    """Return a change of the truth as it is sent to the index."""
    private_to = None if change.namespace == PUBLIC else change.namespace
    if isinstance(change, Deleted):
        return Remove(change.id, private_to)
    return Place(change.id, private_to, change.embedding, marks_of(change.metadata))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def frame(message: Request | Reply) -> bytes:
    """Return the message as one frame."""
    body = encode(message)
    return HEADER.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into frame bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> list[bytes]:
        """Return the bodies that are complete now. Raises ValueError when a frame is longer than it may be."""
        self._buffer += received
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer, start)
            if length > LARGEST_FRAME:
                raise ValueError(f"a frame of {length} bytes is over the limit of {LARGEST_FRAME}")
            end = start + HEADER.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + HEADER.size : end]))
            start = end
        del self._buffer[:start]
        return bodies
