"""The public ground-truth file of the original: one JSON object a line, `{text, embedding, cid, top_k_cids}`.

Its records are seeded to every miner, signed by the validator's own key, and count among the right answers of a miner
from when that miner has taken them. Anyone can serve the file, so it never makes up more than half of a truth.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from engram import wire
from engram.memory import cid
from engram.validator.errors import GroundTruthInvalid

MOST_ENTRIES: Final = 500
"""Each costs a request to every miner."""


class Entry(msgspec.Struct, frozen=True):
    """A line of the file. `top_k_cids` is not read: what is nearest is found anew beside the planted records."""

    text: str
    embedding: list[float]
    cid: str = ""
    """That of the record as it is seeded; what the file says of it is not read."""

    @property
    def vector_bytes(self) -> bytes:
        """The vector as f32 little-endian bytes."""
        return struct.pack(f"<{len(self.embedding)}f", *self.embedding)


def read_file(path: Path) -> list[Entry]:
    """Read the file; blocks. Raises GroundTruthInvalid, naming the line."""
    try:
        with path.open("rb") as file:
            return list(_entries(path, file))
    except OSError as error:
        raise GroundTruthInvalid(f"{path}: {error.strerror}") from error


def _entries(path: Path, lines: Iterator[bytes]) -> Iterator[Entry]:
    decoder = wire.decoder(Entry)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if number > MOST_ENTRIES:
            raise GroundTruthInvalid(f"{path} has more than {MOST_ENTRIES} lines")
        try:
            entry = decoder.decode(line)
            own = cid.compute(entry.vector_bytes, {"text": entry.text})
        except (msgspec.MsgspecError, struct.error, OverflowError) as error:
            raise GroundTruthInvalid(f"{path}, line {number}: {error}") from None
        yield msgspec.structs.replace(entry, cid=own)
