"""What the archiver knows of its archive without reading it: a file beside the node's databases, only ever appended to.

The archiver has the current epoch's key here and nothing of older epochs. Facts come before effects: a new epoch's key
is here before it is sealed to the owner, a segment is here once its place has it and before a manifest names it. What a
crash leaves behind a segment's arrival is an object that no manifest names. A torn last entry is dropped. A lost file
costs a new epoch, in which everything is archived again.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import msgspec

from engram import files, wire
from engram.archive.errors import Damaged
from engram.archive.model import SegmentRef
from engram.archive.segments import DIGEST

_LENGTH: Final = 4


class Epoch(msgspec.Struct, frozen=True, tag=True):
    """A new epoch began: everything before is left behind."""

    epoch: int
    key: bytes
    wrapped: bytes
    """The key as it is sealed to the owner, so that it is stored once, whatever happens in between."""


class Stored(msgspec.Struct, frozen=True, tag=True):
    """A segment is at its place; `digests` are those of its rows, one after the other."""

    ref: SegmentRef
    digests: bytes


class Buried(msgspec.Struct, frozen=True, tag=True):
    """A list of deletions is at its place; `dead` is its content."""

    ref: SegmentRef
    dead: dict[str, bytes]


class Dropped(msgspec.Struct, frozen=True, tag=True):
    """Segments that no manifest from here on names."""

    names: list[str]


class Listed(msgspec.Struct, frozen=True, tag=True):
    """A manifest is at its place, naming every segment stored before."""

    sequence: int
    link: bytes
    epoch: int


Entry = Epoch | Stored | Buried | Dropped | Listed
_decode = wire.msgpack_decoder(Entry).decode


class Journal:
    """Open it with `open`; each `note` is on disk when it returns. Blocking."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.listed: Listed | None = None
        self._forget()

    @property
    def listed_epoch(self) -> int:
        """Return the epoch of the newest manifest; 0 when there is none."""
        return 0 if self.listed is None else self.listed.epoch

    def _forget(self) -> None:
        self.epoch: Epoch | None = None
        self.segments: dict[str, SegmentRef] = {}
        self.rows: dict[bytes, str] = {}
        """Digest of each living row -> the segment that holds it."""
        self.dead: dict[str, int] = {}
        """How many rows of a segment are dead."""
        self.buried: dict[str, set[str]] = {}
        """The segments that each list of deletions is about."""
        self.unlisted = False
        """Whether something was stored or dropped since the newest manifest."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the file; a missing one is empty. Raises Damaged for one that is not an archive's journal, OSError."""
        journal = cls(path)
        content = path.read_bytes() if path.exists() else b""
        at = 0
        while at + _LENGTH <= len(content):
            end = at + _LENGTH + int.from_bytes(content[at : at + _LENGTH], "big")
            if end > len(content):
                break
            try:
                journal._apply(_decode(content[at + _LENGTH : end]))
            except msgspec.MsgspecError as error:
                raise Damaged(f"{path} cannot be read ({error}): remove it, and everything is archived anew") from None
            at = end
        if at < len(content):
            os.truncate(path, at)
        return journal

    def note(self, entry: Entry) -> None:
        """Append an entry; a new epoch replaces the file. Raises OSError."""
        encoded = msgspec.msgpack.encode(entry)
        framed = len(encoded).to_bytes(_LENGTH, "big") + encoded
        if isinstance(entry, Epoch):
            files.put(self._path, framed)
        else:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                written = os.write(descriptor, framed)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if written != len(framed):
                raise OSError(f"{self._path}: only {written} of {len(framed)} bytes were written: the disk is full")
        self._apply(entry)

    def bury(self, gone: Iterable[bytes]) -> dict[str, list[bytes]]:
        """Return the dead rows by the segment that holds them."""
        dead: dict[str, list[bytes]] = {}
        for digest in gone:
            dead.setdefault(self.rows[digest], []).append(digest)
        return dead

    def _apply(self, entry: Entry) -> None:
        match entry:
            case Epoch():
                self._forget()
                self.epoch = entry
            case Stored(ref, digests):
                self.segments[ref.name] = ref
                for at in range(0, len(digests), DIGEST):
                    self.rows[digests[at : at + DIGEST]] = ref.name
            case Buried(ref, dead):
                self.segments[ref.name] = ref
                self.buried[ref.name] = set(dead)
                for name, digests in dead.items():
                    self.dead[name] = self.dead.get(name, 0) + len(digests) // DIGEST
                    for at in range(0, len(digests), DIGEST):
                        if self.rows.get(digests[at : at + DIGEST]) == name:
                            del self.rows[digests[at : at + DIGEST]]
            case Dropped(names):
                for name in names:
                    self.segments.pop(name, None)
                    self.dead.pop(name, None)
                    self.buried.pop(name, None)
                self.rows = {digest: name for digest, name in self.rows.items() if name in self.segments}
            case Listed():
                self.listed = entry
        self.unlisted = not isinstance(entry, Listed)

    def needless(self, dropped: set[str]) -> set[str]:
        """Return the lists of deletions that are about no segment but those dropped or gone before."""
        left = self.segments.keys() - dropped
        return {name for name, about in self.buried.items() if not about & left}
