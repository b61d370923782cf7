"""Byte code of every module of an image: a root that cannot be written would compile them at each start.

It is unchecked (PEP 552): the files of an image do not change, and their times say nothing. Constants that are sets
are written in the order of their hashes, so the compiler runs with a fixed hash seed, in processes of its own.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from shipping.entries import ContentsError, Entry

_WORKERS: Final = 2
"""Fixed, since what a compiler has seen before shows in what it writes."""
_COMPILER: Final = Path(__file__).with_name("compiler.py")


def entries(modules: Iterable[Entry], staging: Path) -> Iterator[Entry]:
    """Yield the byte code beside each module; it is written into `staging`. Raises ContentsError."""
    tasks = [(entry, staging / _staged(entry)) for entry in modules if entry.path.endswith(".py")]
    staging.mkdir(parents=True, exist_ok=True)
    running = [_start(tasks[first::_WORKERS]) for first in range(_WORKERS)]
    for process, asked in running:
        _, complaints = process.communicate(asked)
        if process.returncode:
            raise ContentsError(f"a module could not be compiled: {complaints.decode(errors='replace')[-2_000:]}")
    for entry, compiled in tasks:
        place = PurePosixPath(entry.path)
        name = f"{place.stem}.{sys.implementation.cache_tag}.pyc"
        yield Entry(path=str(place.parent / "__pycache__" / name), source=compiled)


def _start(tasks: Sequence[tuple[Entry, Path]]) -> tuple[subprocess.Popen[bytes], bytes]:
    lines = [(str(entry.source), "/" + entry.path, str(compiled)) for entry, compiled in tasks]
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-s", str(_COMPILER)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONHASHSEED": "0"},
    )
    return process, msgspec.json.encode(lines)


def _staged(entry: Entry) -> str:
    return hashlib.sha256(entry.path.encode()).hexdigest() + ".pyc"
