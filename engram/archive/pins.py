"""Pins the archive that a node's folder was first archived to: what lies at its place later must be the same one.

A place could show another archive of the same owner, whose key more people have.
"""

import hashlib
from pathlib import Path

import msgspec

from engram import files, wire
from engram.archive.errors import Damaged, Foreign
from engram.archive.model import Header

_decode = wire.msgpack_decoder(Header).decode


def require_pinned(folder: Path, address: str, header: Header) -> None:
    """Refuse another archive than the one pinned for a place, if one is. Raises Foreign, Damaged, OSError."""
    path = _path(folder, address)
    if not path.exists():
        return
    try:
        pinned = _decode(path.read_bytes())
    except msgspec.MsgspecError as error:
        raise Damaged(f"{path} cannot be read ({error}): remove it, once you know that {address} is yours") from None
    if pinned != header:
        raise Foreign(
            f"another archive lies at {address}: {header.archive_id.hex()}; this folder was archived to "
            f"{pinned.archive_id.hex()} before (--take-over goes on with the new one)"
        )


def pin(folder: Path, address: str, header: Header) -> None:
    """Pin the archive at a place, durably. Blocks. Raises OSError."""
    path = _path(folder, address)
    encoded = msgspec.msgpack.encode(header)
    if not path.exists() or path.read_bytes() != encoded:
        files.put(path, encoded)


def _path(folder: Path, address: str) -> Path:
    return folder / f"{hashlib.sha256(address.encode()).hexdigest()[:32]}.pin"
