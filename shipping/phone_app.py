"""What the app of phones is made of: the packages that its build names, as the lock of npm pins them."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Final

import msgspec

from shipping.distributions import ROOT
from shipping.entries import ContentsError

LICENSES: Final = ROOT / "engram" / "gateway" / "phone_built" / "licenses.txt"
"""Written by phone/build/licenses.ts; a line for each package, followed by its licence."""
LOCK: Final = ROOT / "phone" / "package-lock.json"
_PACKAGE: Final = re.compile(r"^== (\S+) (\S+) \((.+)\)$", re.MULTILINE)


class Bundled(msgspec.Struct, frozen=True):
    """A package of npm that is part of the app."""

    name: str
    version: str
    license: str
    sha512: str
    """Hex, of the archive that was installed."""


class _Locked(msgspec.Struct):
    version: str = ""
    integrity: str = ""


class _Lock(msgspec.Struct):
    packages: dict[str, _Locked]


def bundled(licenses: Path = LICENSES, lock: Path = LOCK) -> tuple[Bundled, ...]:
    """Return the packages that are part of the app, by name.

    Raises ContentsError where the app is not built, or of other packages than the lock names.
    """
    if not licenses.is_file():
        raise ContentsError(f"there is no {licenses}: run `make phone`, which needs Node 20")
    locked = msgspec.json.decode(lock.read_bytes(), type=_Lock).packages
    found = []
    for name, version, license_ in _PACKAGE.findall(licenses.read_text(encoding="utf-8")):
        pinned = locked.get(f"node_modules/{name}", _Locked())
        kind, _, digest = pinned.integrity.partition("-")
        if pinned.version != version or kind != "sha512":
            raise ContentsError(f"the app has {name} {version}, the lock names {pinned.version}: run `make phone`")
        found.append(Bundled(name, version, license_, base64.b64decode(digest).hex()))
    return tuple(sorted(found, key=lambda each: each.name))
