"""The two programs in C: the stub of the one-file form, and the interpreter of the packed folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from engram.children import UNNAMED_LOADER
from shipping import loading
from shipping.entries import ContentsError
from shipping.interpreter import VERSION

_SOURCES: Final = Path(__file__).with_name("native")
_OPTIONS: Final = ("-Os", "-s", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none")


def stub(target: Path) -> bytes:
    """Return the static program that unpacks and starts; `target` is where it may be written. Raises ContentsError."""
    return _compiled("stub.c", target, ("-static",), ("-lz",))


def program(target: Path) -> bytes:
    """Return the program that embeds this interpreter. Raises ContentsError."""
    include, library = sysconfig.get_path("include"), str(sysconfig.get_config_var("LIBDIR"))
    if not Path(include, "Python.h").is_file():
        raise ContentsError(f"there is no {include}/Python.h: install the development files of Python")
    return _compiled(
        "program.c",
        target,
        (f"-I{include}", f'-DPYTHON_NAME="{VERSION}"'),
        (
            f"-L{library}",
            f"-l{VERSION}",
            "-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib",
            f"-Wl,--dynamic-linker={UNNAMED_LOADER.rstrip(bytes(1)).decode()}",
        ),
    )


def stripped(libraries: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Return where in `folder` each shared library is without its symbols for debuggers. Raises ContentsError.

    A library that would not load without them is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copies = {library: folder / f"{number}.so" for number, library in enumerate(sorted(set(libraries)))}
    for library, copy in copies.items():
        shutil.copyfile(library, copy)
    if copies:
        _run(["strip", "--strip-unneeded", *map(str, copies.values())], "strip", "binutils")
    return {library: copy for library, copy in copies.items() if loading.is_loadable(copy.read_bytes())}


def _compiled(source: str, target: Path, before: tuple[str, ...], after: tuple[str, ...]) -> bytes:
    command = ["cc", *_OPTIONS, *before, "-o", str(target), str(_SOURCES / source), *after]
    _run(command, "cc", "gcc, libc6-dev and zlib1g-dev")
    return target.read_bytes()


def _run(command: list[str], tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        raise ContentsError(f"there is no {tool} on this machine; install it (Debian: {package})")
    environ = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContentsError(f"{' '.join(command[:1])} failed (Debian: {package}): {done.stderr.strip()[-2_000:]}")
