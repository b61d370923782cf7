"""The few files of an image that come from no package: users, name lookup, authorities, folders to write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import certifi

from shipping.entries import Entry, file_entry

USER: Final = 65532
"""The user and group that the image runs as; the number that images without a shell use for it."""
DATA: Final = "data"
AUTHORITIES: Final = "etc/ssl/certs/ca-certificates.crt"


def entries() -> Iterator[Entry]:
    """Yield them."""
    yield Entry(path="etc/passwd", content=_lines("root:x:0:0::/:/none", f"engram:x:{USER}:{USER}::/{DATA}:/none"))
    yield Entry(path="etc/group", content=_lines("root:x:0:", f"engram:x:{USER}:"))
    yield Entry(path="etc/nsswitch.conf", content=_lines("hosts: files dns", "passwd: files", "group: files"))
    yield file_entry(AUTHORITIES, Path(certifi.where()))
    yield Entry(path="tmp", mode=0o1777)
    yield Entry(path=DATA, mode=0o700, owner=USER)
    for folder in ("dev", "proc", "sys"):
        yield Entry(path=folder, mode=0o755)


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
