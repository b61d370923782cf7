"""The packed folder: an interpreter, everything it needs and nothing of the machine it runs on.

The one-file form unpacks it, the Debian package and the gateway's image hold it. It has the files that the image of a
node has, in one place that can be anywhere:

    engram              the program; also every child it starts
    build.json          version, variant, and the hash of the list of files
    files.sha256        a line for each other file: `engram doctor --self` compares
    sbom.cdx.json       what it is made of
    app/ packages/      this project, and what it depends on
    lib/                the interpreter's library, and the shared libraries with their loader
    share/              licenses of the libraries, certificate authorities
"""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

import msgspec

from engram.children import BUILD_FILE, LOADER_FILE, PROGRAM_FILE
from engram.durable import driver
from shipping import bytecode, distributions, interpreter, libraries, loading, native_code, phone_app, root_files, sbom
from shipping.entries import ContentsError, Entry
from shipping.libraries import Library
from shipping.phone_app import Bundled
from shipping.sbom import Subject

FILES: Final = "files.sha256"
SBOM: Final = "sbom.cdx.json"
DENIED: Final = ("readline", "gdbm", "smoldot", "hf_xet")
"""Begins the names of what must not be shipped: GPL-3, or large and unused."""
_UNUSED_KINDS: Final = (".c", ".h", ".pxd", ".pyx", ".proto")
_UNUSED_PARTS: Final = (
    "/onnxruntime/transformers/",
    "/onnxruntime/quantization/",
    "/onnxruntime/tools/",
    "/onnxruntime/datasets/",
    "/onnx/reference/",
    "/substrateinterface/data/chainspecs/",
)
"""Sources in C, tools that convert models, and what a light client starts from."""
_AUTHORITIES: Final = "share/ca-certificates.crt"


class Variant(StrEnum):
    """What a folder can do."""

    FULL = "full"
    """Every role, nodes with their models, signing on the chain."""
    GATEWAY = "gateway"
    """Everything but nodes on this machine."""


_EXTRAS: Final = {Variant.FULL: ("node", "chain", "gpu"), Variant.GATEWAY: ()}


class Packed(msgspec.Struct, frozen=True):
    """A folder before it is written anywhere."""

    entries: tuple[Entry, ...]
    packages: tuple[Distribution, ...]
    libraries: tuple[Library, ...]
    app: tuple[Bundled, ...]
    build: str
    """SHA-256 of the list of files: the same content, the same build."""


def packed(variant: Variant, staging: Path) -> Packed:
    """Collect the files of a folder; what is made on the way is written into `staging`. Raises ContentsError."""
    staging.mkdir(parents=True, exist_ok=True)
    packages = tuple(distributions.chosen(_EXTRAS[variant]))
    python = [entry for entry in interpreter.entries() if not entry.path.startswith(f"{interpreter.HOME}/bin/")]
    modules = [*python, *distributions.entries(packages), *distributions.own_entries(with_command_line=True)]
    modules = [entry for entry in modules if not _is_unused(entry.path)]
    program = native_code.program(staging / PROGRAM_FILE)
    needed = _needed(_binaries(modules))
    collected = [
        *modules,
        *bytecode.entries(sorted(modules, key=lambda entry: entry.path), staging / "compiled"),
        *libraries.entries(needed),
        *(entry for entry in root_files.entries() if entry.path == root_files.AUTHORITIES),
    ]
    files = {_place(entry.path): entry for entry in _stripped(collected, staging / "stripped")}
    files[PROGRAM_FILE] = Entry(path=PROGRAM_FILE, content=program, mode=0o755)
    _refuse_denied(files)
    entries = [_self_contained(msgspec.structs.replace(entry, path=path)) for path, entry in files.items()]
    return _described(variant, entries, packages, needed)


def content(entry: Entry) -> bytes:
    """Return what a file holds."""
    if entry.content is not None:
        return entry.content
    assert entry.source is not None
    return entry.source.read_bytes()


def placed(packed: Packed, home: str) -> Iterator[Entry]:
    """Yield the files of a folder that stays at `home`, an absolute path; the paths are relative to the root."""
    for entry in packed.entries:
        path = f"{home.strip('/')}/{entry.path}"
        if entry.path == PROGRAM_FILE:
            program = loading.with_loader(content(entry), f"{home}/{LOADER_FILE}")
            yield msgspec.structs.replace(entry, path=path, content=program, source=None)
        else:
            yield msgspec.structs.replace(entry, path=path)


def _described(
    variant: Variant, entries: Iterable[Entry], packages: Sequence[Distribution], needed: Sequence[Library]
) -> Packed:
    """Add the list of files, what they are made of, and from what they were built."""
    files = sorted(entries, key=lambda entry: entry.path)
    lines = [f"{hashlib.sha256(content(entry)).hexdigest()}  {entry.path}\n" for entry in files]
    listed = "".join(lines).encode()
    build, version = hashlib.sha256(listed).hexdigest(), distributions.version()
    app = phone_app.bundled()
    subject = Subject(kind="application", reference="folder", name=f"engram-{variant}")
    facts = {
        "name": "engram",
        "version": version,
        "variant": variant,
        "build": build,
        "python": platform.python_version(),
        "sqlite": driver.VERSION,
        "glibc": platform.libc_ver()[1],
    }
    described = [
        *files,
        Entry(path=FILES, content=listed),
        Entry(path=BUILD_FILE, content=msgspec.json.encode(facts) + b"\n"),
        Entry(path=SBOM, content=sbom.encode(sbom.document(build, version, packages, needed, subject, app))),
    ]
    return Packed(tuple(sorted(described, key=lambda entry: entry.path)), tuple(packages), tuple(needed), app, build)


def _place(path: str) -> str:
    """Return where a file of the image of a node is in the folder.

    >>> _place("opt/engram/packages/trio/__init__.py"), _place("lib64/ld-linux-x86-64.so.2")
    ('packages/trio/__init__.py', 'lib/ld-linux.so')
    """
    if path == root_files.AUTHORITIES:
        return _AUTHORITIES
    if "/ld-linux" in path:
        return LOADER_FILE
    if path.startswith("usr/share/doc/"):
        return f"share/licenses/{path.removeprefix('usr/share/doc/')}"
    if path.startswith(f"{distributions.OURS}/"):
        return f"app/{path.removeprefix(f'{distributions.OURS}/')}"
    if path.startswith(f"{interpreter.HOME}/"):
        return path.removeprefix(f"{interpreter.HOME}/")
    return f"lib/{path.rpartition('/')[2]}"


def _stripped(entries: Sequence[Entry], staging: Path) -> Iterator[Entry]:
    copies = native_code.stripped((entry.source for entry in entries if _is_library(entry) and entry.source), staging)
    for entry in entries:
        copy = copies.get(entry.source) if entry.source else None
        yield msgspec.structs.replace(entry, source=copy) if copy else entry


def _needed(binaries: Sequence[Path]) -> tuple[Library, ...]:
    """Return the libraries of the system, with the one that this interpreter is in and not another of its name."""
    own = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("INSTSONAME")))
    if ".so" not in own.suffixes or not own.is_file():
        raise ContentsError(f"{own} is no shared library: build with a Python that has one (Debian: libpython3-dev)")
    found = {each.name: each for each in libraries.needed([*binaries, own], _inside())}
    return tuple(sorted({**found, own.name: Library(own.name, own)}.values()))


def _is_unused(path: str) -> bool:
    return path.endswith(_UNUSED_KINDS) or any(part in path for part in _UNUSED_PARTS)


def _self_contained(entry: Entry) -> Entry:
    if not _is_library(entry):
        return entry
    before = content(entry)
    after = loading.self_contained(before)
    return entry if after == before else msgspec.structs.replace(entry, source=None, content=after)


def _is_library(entry: Entry) -> bool:
    return ".so" in Path(entry.path).suffixes and not entry.path.endswith(".py")


def _binaries(entries: Iterable[Entry]) -> list[Path]:
    return [entry.source for entry in entries if entry.source is not None and ".so" in entry.source.suffixes]


def _inside() -> tuple[Path, ...]:
    return (Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib")))


def _refuse_denied(files: Iterable[str]) -> None:
    for path in files:
        name = path.rpartition("/")[2].lower().removeprefix("lib").removeprefix("_")
        if name.startswith(DENIED) and ".so" in name:
            raise ContentsError(f"{path} must not be shipped: see DENIED in shipping/folder.py")
