"""`engram doctor --self`: the program itself: its form, its files, and how it is confined."""

import hashlib
import os
import platform
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

import engram
from config.model import MinerSettings
from engram import children, wire
from engram.cli.doctor.finding import Finding
from engram.cli.doctor.ledger import sqlite
from engram.provisioning import node_parts

FILES: Final = "files.sha256"
BINARY_VARIABLE: Final = "ENGRAM_BINARY"
"""Where the one-file form was started from, as it says itself."""
_TRAILER: Final = struct.Struct("<QQQ64s8s")
_MOST_BYTES: Final = 16 * 1024**2
_SHOWN: Final = 5


class Build(msgspec.Struct, frozen=True):
    """What a packed folder was built from."""

    version: str
    variant: str
    build: str
    python: str
    sqlite: str
    glibc: str


class _Hash(msgspec.Struct, frozen=True):
    alg: str
    content: str


class _Component(msgspec.Struct, frozen=True):
    hashes: list[_Hash]


class _Metadata(msgspec.Struct, frozen=True):
    component: _Component


class _Bill(msgspec.Struct, frozen=True):
    metadata: _Metadata


def own(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Look at the program; reads each of its files."""
    home = children.folder()
    if home is None:
        yield _unpacked()
    else:
        yield from _packed(home)
        yield from _one_file(home, environ)
    yield sqlite()
    yield sandbox(Path("/proc/self/status").read_text(encoding="ascii"), os.geteuid())
    yield from _what_would_break()


def sandbox(status: str, user: int) -> Finding:
    """Return how far this process is confined, from its /proc/self/status."""
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    held = {
        "an ordinary user": user != 0,
        "no capabilities": int(facts.get("CapEff", "1"), 16) == 0,
        "no new privileges": facts.get("NoNewPrivs", "0") == "1",
        "a system call filter": facts.get("Seccomp", "0") == "2",
        "a root that cannot be written": not os.access("/usr", os.W_OK),
    }
    lacking = [name for name, holds in held.items() if not holds]
    text = f"{len(held) - len(lacking)} of {len(held)}" + (f"; without {', '.join(lacking)}" if lacking else "")
    return Finding("sandbox", "note" if lacking else "good", text)


def files(home: Path) -> Finding:
    """Compare every file of a packed folder with the list that was made when it was built. Blocks for seconds."""
    lines = (home / FILES).read_text(encoding="utf-8").splitlines()
    listed = [(path, sha256) for sha256, _, path in (line.partition("  ") for line in lines)]
    wrong = [path for path, sha256 in listed if _sha256(home, path) != sha256]
    if wrong:
        shown = ", ".join(wrong[:_SHOWN]) + (f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
        return Finding("files", "bad", f"{shown} in {home} changed since the build: remove the folder, start again")
    return Finding("files", "good", f"{len(lines)} as they were built")


def _packed(home: Path) -> Iterator[Finding]:
    build = wire.decode((home / children.BUILD_FILE).read_bytes(), Build)
    text = f"packed folder {home}, {build.version} {build.variant}, build {build.build[:12]}, Python {build.python}"
    yield Finding("form", "good", text)
    yield files(home)
    listed = hashlib.sha256((home / FILES).read_bytes()).hexdigest()
    billed = _billed(home / "sbom.cdx.json")
    same = listed == build.build == billed
    what = "agrees with build.json and the SBOM" if same else f"is {listed}, not {build.build} or the SBOM's {billed}"
    yield Finding("list of files", "good" if same else "bad", what)
    yield Finding("glibc", "good", f"{build.glibc}, its own: the machine's is not used")


def _one_file(home: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    named = environ.get(BINARY_VARIABLE)
    if not named:
        return
    binary = Path(named)
    try:
        trailer, sha256 = _read(binary)
    except (OSError, struct.error) as error:
        yield Finding("binary", "note", f"{binary} cannot be read any more ({error}); a newer one may be in its place")
        return
    if trailer != home.name:
        yield Finding("binary", "note", f"{binary} is another build now; this process goes on with {home.name[:12]}")
        return
    bill = binary.with_name(f"{binary.name}.cdx.json")
    if not bill.is_file():
        yield Finding("binary", "note", f"{binary}, SHA-256 {sha256}; there is no {bill.name} beside it to compare")
    elif (billed := _billed(bill)) == sha256:
        yield Finding("binary", "good", f"{binary}, SHA-256 {sha256}, as {bill.name} says")
    else:
        yield Finding("binary", "bad", f"{binary} has SHA-256 {sha256}, {bill.name} says {billed}: get both again")


def _read(binary: Path) -> tuple[str, str]:
    """Return the name of the payload's folder and the hash of the whole file."""
    with binary.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(-_TRAILER.size, os.SEEK_END)
        return str(_TRAILER.unpack(file.read())[3].decode("ascii", "replace")), sha256


def _unpacked() -> Finding:
    root = Path(engram.__file__).resolve().parents[1]
    form = "checkout" if (root / "pyproject.toml").is_file() else "installed package"
    return Finding("form", "good", f"{form} in {root}, Python {platform.python_version()}, glibc {_glibc()}")


def _glibc() -> str:
    return platform.libc_ver()[1] or "none"


def _what_would_break() -> Iterator[Finding]:
    absent = node_parts.missing(MinerSettings())
    if absent:
        yield Finding("nodes here", "note", f"would not start: {', '.join(absent)} is missing in this form")
    scratch = Path(tempfile.gettempdir())
    if not os.access(scratch, os.W_OK):
        yield Finding("temporary folder", "bad", f"{scratch} cannot be written: set TMPDIR")


def _sha256(home: Path, path: str) -> str:
    """Return the hash of a file as it was built: since then the program names its loader in this very folder."""
    try:
        if path != children.PROGRAM_FILE:
            with (home / path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        content, blank = (home / path).read_bytes(), children.UNNAMED_LOADER
        named = str(home / children.LOADER_FILE).encode().ljust(len(blank), b"\0")
        return hashlib.sha256(content.replace(named, blank, 1)).hexdigest()
    except OSError:
        return ""


def _billed(bill: Path) -> str:
    """Return the hash that an SBOM names of what it describes; empty when it cannot be read."""
    try:
        with bill.open("rb") as file:
            hashes = wire.decode(file.read(_MOST_BYTES), _Bill).metadata.component.hashes
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return next((each.content for each in hashes if each.alg == "SHA-256"), "")
