"""Layers as tar files that depend on nothing but their content: no times, no names of users, one order."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final, cast, final

import msgspec

from shipping.entries import Entry, is_folder

_LEVEL: Final = 6


class Blob(msgspec.Struct, frozen=True):
    """A file of an OCI layout, named by its content."""

    digest: str
    """`sha256:` and 64 hex digits."""
    size: int
    diff_id: str = ""
    """Of a layer: the digest of its tar file before compression."""


@final
class Hashing:
    """Counts and hashes what is written through it."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        self.size += len(content)
        return self._inner.write(content)

    def flush(self) -> None:
        self._inner.flush()


def pack(entries: Iterable[Entry], blobs: Path) -> Blob:
    """Write a gzip-compressed layer into the folder of blobs and return what it is."""
    staged = blobs / ".layer"
    with staged.open("wb") as file:
        counted = Hashing(file)
        with gzip.GzipFile(
            filename="", mode="wb", fileobj=cast("BinaryIO", counted), compresslevel=_LEVEL, mtime=0
        ) as zipped:
            plain = Hashing(cast("BinaryIO", zipped))
            with tarfile.open(fileobj=cast("BinaryIO", plain), mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for entry in entries:
                    _add(tar, entry)
    os.replace(staged, blobs / counted.digest.removeprefix("sha256:"))
    return Blob(counted.digest, counted.size, plain.digest)


def put(content: bytes, blobs: Path) -> Blob:
    """Write a document into the folder of blobs and return what it is."""
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return Blob(f"sha256:{digest}", len(content))


def bundle(folder: Path, names: Iterable[str], target: Path) -> None:
    """Write the named files of `folder` into one tar file, in that order."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            _add(tar, Entry(path=name, source=folder / name))


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode, info.uid, info.gid = entry.mode, entry.owner, entry.owner
    if is_folder(entry):
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif entry.target is not None:
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
        tar.addfile(info)
    elif entry.source is not None:
        with entry.source.open("rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            tar.addfile(info, file)
    else:
        assert entry.content is not None
        info.size = len(entry.content)
        tar.addfile(info, io.BytesIO(entry.content))
