"""A file, folder or link of an image, as a value."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What an image holds at `path`, which is relative to its root.

    A file has a `source` or a `content`, a link has a `target`, a folder none of them.
    """

    path: str
    source: Path | None = None
    content: bytes | None = None
    target: str | None = None
    mode: int = 0o644
    owner: int = 0
    """User and group id."""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of an image: what changes together is packed together."""

    name: str
    entries: tuple[Entry, ...]


class ContentsError(Exception):
    """Something that belongs into the image is missing on this machine, or two things claim one place."""


def file_entry(path: str, source: Path) -> Entry:
    """Return the entry of a file of this machine; of its mode only the execute bit is kept."""
    return Entry(path=path, source=source, mode=0o755 if source.stat().st_mode & 0o100 else 0o644)


def ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries by path, each folder before what is in it, missing folders added.

    Raises ContentsError when two differ at one path.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        known = found.setdefault(entry.path, entry)
        if known != entry:
            raise ContentsError(f"{entry.path} is put into the image twice: from {known.source} and {entry.source}")
    for path in list(found):
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                found.setdefault(str(parent), Entry(path=str(parent), mode=0o755))
    return tuple(found[path] for path in sorted(found, key=lambda path: PurePosixPath(path).parts))


def is_folder(entry: Entry) -> bool:
    """Return whether the entry is a folder."""
    return entry.source is None and entry.content is None and entry.target is None
