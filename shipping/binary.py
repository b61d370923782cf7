"""The one-file form: `python -m shipping.binary FILE [--gateway]` writes it, with its SBOM beside it.

The file is the stub, the packed folder as a gzip stream, and a trailer; native/stub.c describes it. The same checkout,
.venv and system give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from shipping import distributions, native_code, sbom
from shipping.archive import Hashing
from shipping.entries import ContentsError, Entry
from shipping.folder import Variant, content, packed
from shipping.sbom import Subject

MAGIC: Final = b"ENGRAM02"
_RECORD: Final = struct.Struct("<IIQ")
_TRAILER: Final = struct.Struct("<QQQ64s8s")
_LEVEL: Final = 6


class Built(msgspec.Struct, frozen=True):
    """A file that was written."""

    path: Path
    sha256: str
    payload: str
    """SHA-256 of the stream: the name of the folder that it is unpacked into."""
    size: int


def build(target: Path, variant: Variant) -> Built:
    """Write the file `target` and `target`.cdx.json, replacing what is there. Raises ContentsError."""
    staging = target.parent / f".{target.name}.staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        folder = packed(variant, staging)
        built = write_file(target, native_code.stub(staging / "stub"), folder.entries)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    subject = Subject(kind="application", reference="binary", name=target.name)
    document = sbom.document(
        built.sha256, distributions.version(), folder.packages, folder.libraries, subject, folder.app
    )
    target.with_name(f"{target.name}.cdx.json").write_bytes(sbom.encode(document))
    return built


def write_file(target: Path, stub: bytes, entries: Iterable[Entry]) -> Built:
    """Write stub, stream and trailer; the file appears under its name when it is whole."""
    partial = target.with_name(f".{target.name}.partial")
    with partial.open("wb") as file:
        file.write(stub)
        hashing, unpacked = Hashing(file), 0
        with gzip.GzipFile(
            filename="", mode="wb", fileobj=cast("BinaryIO", hashing), compresslevel=_LEVEL, mtime=0
        ) as zipped:
            for part in records(entries):
                zipped.write(part)
                unpacked += len(part)
        payload = hashing.digest.removeprefix("sha256:")
        file.write(_TRAILER.pack(len(stub), hashing.size, unpacked, payload.encode(), MAGIC))
    partial.chmod(0o755)
    with partial.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(partial, target)
    return Built(target, sha256, payload, target.stat().st_size)


def records(entries: Iterable[Entry]) -> Iterable[bytes]:
    """Yield the stream before it is compressed."""
    for entry in sorted(entries, key=lambda each: each.path):
        path, held = entry.path.encode(), content(entry)
        yield _RECORD.pack(0o755 if entry.mode & 0o100 else 0o644, len(path), len(held)) + path
        yield held
    yield _RECORD.pack(0, 0, 0)


def main(arguments: Sequence[str]) -> int:
    """Build the file that is named; 2 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m shipping.binary", description=__doc__)
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--gateway", action="store_true", help="without the libraries and models of nodes")
    given = parser.parse_args(arguments)
    try:
        built = build(given.target, Variant.GATEWAY if given.gateway else Variant.FULL)
    except ContentsError as error:
        print(f"the binary cannot be built: {error}", file=sys.stderr)
        return 2
    print(f"{built.path}: {built.size / 1e6:.1f} MB, unpacks into {built.payload[:12]}…", file=sys.stderr)
    print(built.sha256)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
