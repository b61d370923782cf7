"""What the archiver knows of its archive without reading it: a file beside the node's databases, only ever appended to.

    sealed, on disk --> Sealed --> put --> Arrived    the same of lists of the dead (Buried), of manifests (Listing)

The archiver has the current epoch's key here and nothing of older epochs. Facts come before effects: a new epoch's key
is here before it is sealed to the owner, a part is here before it is sent, and counts once it arrived. A torn last
entry is dropped. One process at a time holds a journal (`held`). Without this file an archive is not written again
until someone says that it may be taken over.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import msgspec

from engram import files, wire
from engram.archive.errors import Damaged, InUse
from engram.archive.model import SegmentRef, manifest_name, segment_name
from engram.archive.row_table import RowTable
from engram.archive.segments import DIGEST

_LENGTH: Final = 4


class Epoch(msgspec.Struct, frozen=True, tag=True):
    """A new epoch began: everything before is left behind."""

    epoch: int
    key: bytes
    wrapped: bytes
    """The key as it is sealed to the owner, so that it is stored once, whatever happens in between."""
    shreds: bool = False
    """Whether the keys of all former epochs are to be destroyed."""


class Keyed(msgspec.Struct, frozen=True, tag=True):
    """The epoch's key is at its place: if it is gone later, it was destroyed."""


class Shredded(msgspec.Struct, frozen=True, tag=True):
    """The keys of all former epochs are destroyed."""


class Sealed(msgspec.Struct, frozen=True, tag=True):
    """A segment is about to be sent; `digests` are those of its rows, one after the other."""

    ref: SegmentRef
    digests: bytes
    is_full: bool = False
    """Whether the next row did not fit: nothing is won by merging it with others."""


class Buried(msgspec.Struct, frozen=True, tag=True):
    """A list of deletions is about to be sent; `dead` is its content."""

    ref: SegmentRef
    dead: dict[str, bytes]
    is_merged: bool = False
    """Whether all of it was in lists before."""


class Listing(msgspec.Struct, frozen=True, tag=True):
    """A manifest is about to be sent that names every segment sealed before."""

    sequence: int
    link: bytes
    epoch: int
    rows: int
    """Living rows."""


class Arrived(msgspec.Struct, frozen=True, tag=True):
    """A part is at its place."""

    name: str


class Unsent(msgspec.Struct, frozen=True, tag=True):
    """A part never arrived, and will not be sent."""

    name: str


class Dropped(msgspec.Struct, frozen=True, tag=True):
    """Segments that no manifest from here on names."""

    names: list[str]


class Swept(msgspec.Struct, frozen=True, tag=True):
    """Dropped segments that were removed from their place."""

    names: list[str]


Part = Sealed | Buried | Listing
Entry = Part | Epoch | Keyed | Shredded | Arrived | Unsent | Dropped | Swept
_decode = wire.msgpack_decoder(Entry).decode
_HINTS: Final = (Arrived, Swept)
"""What is found out again when it is lost: the next entry that must not be brings it to disk."""


class Journal:
    """Change it inside `held` alone, where each `note` is on disk when it returns. Blocking."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.listed: Listing | None = None
        self._forget()

    def _forget(self) -> None:
        self.epoch: Epoch | None = None
        self.is_keyed = False
        self.shreds = False
        """Whether keys of former epochs may be left that are to be destroyed."""
        self.segments: dict[str, SegmentRef] = {}
        self.full: set[str] = set()
        self.dead: dict[str, int] = {}
        """How many rows of a segment are dead."""
        self.buried: dict[str, set[str]] = {}
        """The segments that each list of deletions is about."""
        self.doubled: set[str] = set()
        """Segments with a row that another one has, too."""
        self.dropped: set[str] = set()
        self.pending: dict[str, Part] = {}
        """What may have been sent, by the part's name."""
        self.has_buried = False
        """Whether anything that was sealed in this epoch was deleted since."""
        self.unlisted = False
        """Whether something arrived or was dropped since the newest manifest."""
        self._rows = RowTable()
        """Digest of each living row -> twice the number of its segment, plus the pass that saw it last, 0 or 1."""
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._pass = 0
        self._not_seen_yet = 0
        """At least as many as the rows that this pass has not seen."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a journal as it is; a missing one is empty. Raises Damaged, OSError."""
        journal = cls(path)
        journal._read()
        return journal

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the journal against other processes, read anew. Raises InUse, Damaged, OSError."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse("this node is being archived there already: wait until that has ended") from None
            whole = self._read()
            if self._path.exists():
                os.truncate(self._path, whole)
            yield
        finally:
            os.close(descriptor)

    @property
    def listed_epoch(self) -> int:
        """Return the epoch of the newest manifest; 0 when there is none."""
        return 0 if self.listed is None else self.listed.epoch

    @property
    def staged(self) -> Path:
        """Return the folder of parts that were sealed and have not arrived."""
        return self._path.with_suffix(".staged")

    def __len__(self) -> int:
        return len(self._rows)

    def digests(self) -> Iterator[bytes]:
        """Yield the digests of the living rows, in their order."""
        return (digest for digest, _ in self._rows.items())

    def begin_pass(self) -> None:
        """Forget which rows were seen."""
        self._pass ^= 1
        self._not_seen_yet = len(self._rows)

    def see(self, digest: bytes) -> bool:
        """Return whether a living row has this digest; it was seen in this pass then."""
        mark = self._rows.get(digest)
        if mark is None:
            return False
        if mark & 1 != self._pass:
            self._not_seen_yet -= 1
            self._rows.put(digest, mark ^ 1)
        return True

    def unseen(self) -> list[bytes]:
        """Return the living rows that were not seen in this pass."""
        if not self._not_seen_yet:
            return []
        return [digest for digest, mark in self._rows.items() if mark & 1 != self._pass]

    def segment_of(self, digest: bytes) -> str | None:
        """Return the segment that holds a living row."""
        mark = self._rows.get(digest)
        return None if mark is None else self._names[mark >> 1]

    def note(self, entry: Entry) -> None:
        """Append an entry; a new epoch replaces the file, and leaves the newest manifest known. Raises OSError."""
        if isinstance(entry, Epoch):
            listed = self.listed
            kept: list[Entry] = [] if listed is None else [listed, Arrived(_name_of(listed))]
            files.put(self._path, b"".join([_framed(entry), *map(_framed, kept)]))
            self._apply(entry)
            return
        framed = _framed(entry)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            written = os.write(descriptor, framed)
            if not isinstance(entry, _HINTS):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if written != len(framed):
            raise OSError(f"{self._path}: only {written} of {len(framed)} bytes were written: the disk is full")
        self._apply(entry)

    def take_up(self, name: str) -> None:
        """Let a part count that arrived, or is about to be sent again."""
        if (part := self.pending.pop(name, None)) is not None:
            self._apply_part(part)

    def adopt(self, listed: Listing) -> None:
        """Begin a file that knows the newest manifest alone, of what was just restored; one that knows it stays.

        So does one that knows a newer one.
        """
        if self.listed is None or (self.listed.sequence <= listed.sequence and self.listed.link != listed.link):
            files.put(self._path, _framed(listed) + _framed(Arrived(manifest_name(listed.sequence))))

    def bury(self, gone: Iterable[bytes]) -> dict[str, list[bytes]]:
        """Return the dead rows by the segment that holds them."""
        dead: dict[str, list[bytes]] = {}
        for digest in gone:
            name = self.segment_of(digest)
            assert name is not None, "what is buried was living"
            dead.setdefault(name, []).append(digest)
        return dead

    def dead_in(self, lists: set[str]) -> dict[str, list[bytes]]:
        """Return what lists of deletions hold about segments that are still there."""
        dead: dict[str, list[bytes]] = {}
        for entry, _ in self._entries():
            if isinstance(entry, Buried) and entry.ref.name in lists:
                for name in entry.dead.keys() & self.segments.keys():
                    dead.setdefault(name, []).extend(_split(entry.dead[name]))
        return dead

    def needless(self, dropped: set[str]) -> set[str]:
        """Return the lists of deletions that are about no segment but those dropped or gone before."""
        left = self.segments.keys() - dropped
        return {name for name, about in self.buried.items() if not about & left}

    def _entries(self) -> Iterator[tuple[Entry, int]]:
        """Yield the whole entries with the offset behind each."""
        if not self._path.exists():
            return
        at = 0
        with self._path.open("rb") as file:
            while len(head := file.read(_LENGTH)) == _LENGTH:
                length = int.from_bytes(head)
                if len(encoded := file.read(length)) < length:
                    return
                try:
                    entry = _decode(encoded)
                except msgspec.MsgspecError as error:
                    raise Damaged(
                        f"{self._path} cannot be read ({error}): remove it, and --take-over archives everything again"
                    ) from None
                at += _LENGTH + length
                yield entry, at

    def _read(self) -> int:
        self.listed = None
        self._forget()
        whole = 0
        for entry, end in self._entries():
            if isinstance(entry, Part):
                self.pending[_name_of(entry)] = entry
            elif isinstance(entry, Arrived):
                self.take_up(entry.name)
            else:
                self._apply(entry)
            whole = end
        return whole

    def _apply(self, entry: Entry) -> None:
        """Apply what was just noted. A part counts at once: until it has arrived no manifest names it."""
        match entry:
            case Sealed() | Buried():
                self._apply_part(entry)
            case Listing():
                self.pending[_name_of(entry)] = entry
            case Epoch():
                self._forget()
                self.epoch, self.shreds = entry, entry.shreds
            case Keyed():
                self.is_keyed = True
            case Shredded():
                self.shreds = False
            case Arrived(name):
                self.take_up(name)
            case Unsent(name):
                self.pending.pop(name, None)
            case Dropped(names):
                self._drop(names)
            case Swept(names):
                self.dropped.difference_update(names)

    def _apply_part(self, part: Part) -> None:
        match part:
            case Listing():
                self.listed = part
                self.unlisted = False
                return
            case Sealed(ref, digests, is_full):
                self._names.append(ref.name)
                number = self._numbers[ref.name] = len(self._names) - 1
                for digest in _split(digests):
                    if (before := self._rows.put(digest, number << 1 | self._pass)) is not None:
                        self.doubled.add(self._names[before >> 1])
                if is_full:
                    self.full.add(ref.name)
            case Buried(ref, dead, is_merged):
                self.buried[ref.name] = set(dead)
                if not is_merged:
                    self._kill(dead)
        self.segments[ref.name] = ref
        self.unlisted = True

    def _kill(self, dead: dict[str, bytes]) -> None:
        self.has_buried = True
        for name, digests in dead.items():
            self.dead[name] = self.dead.get(name, 0) + len(digests) // DIGEST
            for digest in _split(digests):
                if self.segment_of(digest) == name:
                    self._rows.discard(digest)

    def _drop(self, names: list[str]) -> None:
        for name in names:
            self.segments.pop(name, None)
            self.dead.pop(name, None)
            self.buried.pop(name, None)
        gone = {self._numbers.pop(name) for name in names if name in self._numbers}
        self._rows.discard_numbers({number << 1 | seen for number in gone for seen in (0, 1)})
        self.full.difference_update(names)
        self.doubled.difference_update(names)
        self.dropped.update(names)
        self.unlisted = True


def _name_of(part: Part) -> str:
    return manifest_name(part.sequence) if isinstance(part, Listing) else segment_name(part.ref.name)


def _framed(entry: Entry) -> bytes:
    encoded = msgspec.msgpack.encode(entry)
    return len(encoded).to_bytes(_LENGTH, "big") + encoded


def _split(digests: bytes) -> Iterator[bytes]:
    return (digests[at : at + DIGEST] for at in range(0, len(digests), DIGEST))
