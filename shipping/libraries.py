"""The shared libraries of the system that programs and extensions need, and the packages that they come from."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shipping.entries import ContentsError, Entry, file_entry

_LINE: Final = re.compile(r"^\t(?:(?P<name>\S+) => )?(?P<path>/\S+|not found)", re.MULTILINE)
_BATCH: Final = 200
_LICENSES: Final = "usr/share/doc"


class Library(msgspec.Struct, frozen=True, order=True):
    """A shared library of the system; `package` and `version` are empty where no package manager knows it."""

    name: str
    path: Path
    package: str = ""
    version: str = ""


def needed(binaries: Iterable[Path], inside: Sequence[Path]) -> list[Library]:
    """Return what the dynamic loader finds for these files, but not what lies under one of the folders `inside`.

    Raises ContentsError when a library is not found.
    """
    files = sorted({str(path) for path in binaries})
    found: dict[str, Path] = {}
    for start in range(0, len(files), _BATCH):
        listed = subprocess.run(["ldd", *files[start : start + _BATCH]], capture_output=True, text=True, check=False)
        for match in _LINE.finditer(listed.stdout):
            name, path = match["name"], match["path"]
            if path == "not found":
                raise ContentsError(f"the shared library {name} is not on this machine")
            if not any(Path(path).is_relative_to(folder) for folder in inside):
                found[path if name is None else name] = Path(path)
    return sorted(_described(Path(name).name, path) for name, path in found.items())


def entries(libraries: Iterable[Library]) -> Iterator[Entry]:
    """Yield the libraries in the folder where the loader looks first, the loader at its fixed place, and licenses."""
    for library in libraries:
        source = library.path.resolve()
        is_loader = library.name.startswith("ld-linux")
        folder = library.path.parent.as_posix().lstrip("/") if is_loader else f"lib/{_triplet()}"
        yield Entry(path=f"{folder}/{library.name}", source=source, mode=0o755)
        text = Path("/", _LICENSES, library.package, "copyright")
        if library.package and text.exists():
            yield file_entry(f"{_LICENSES}/{library.package}/copyright", text.resolve())


def _triplet() -> str:
    return f"{_machine()}-linux-gnu"


def _machine() -> str:
    return subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()


def _described(name: str, path: Path) -> Library:
    if shutil.which("dpkg-query") is None:
        return Library(name, path)
    real = path.resolve()
    for candidate in (real, Path(str(real).removeprefix("/usr")), Path("/usr", str(real).lstrip("/"))):
        owner = subprocess.run(["dpkg-query", "-S", str(candidate)], capture_output=True, text=True, check=False)
        if owner.returncode == 0:
            package = owner.stdout.split(":")[0].strip()
            shown = subprocess.run(
                ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=True
            )
            return Library(name, path, package, shown.stdout.strip())
    return Library(name, path)
