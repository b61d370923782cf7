"""Programs side by side: how another one is asked, put in place under a link, restarted, and removed when it is old."""

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from engram import files
from engram.children import PROGRAM_FILE
from engram.cli.failures import CommandFailed

CHECK_S: Final = 300.0
"""The longest that a question to the other program may take; the first unpacks it."""
_LOOK_EVERY_S: Final = 0.5
_UNPACKED: Final = re.compile(r"[0-9a-f]{64}|\.broken-[0-9a-f]{64}-\d+")
"""Names of folders that the one file was unpacked into; a broken one was put aside (shipping/native/stub.c)."""
_TRAILER: Final = re.compile(rb"([0-9a-f]{64})ENGRAM\d\d\Z")
"""The end of the one file: the name of its folder."""


class Placed(msgspec.Struct, frozen=True):
    """The result of an upgrade."""

    program: str
    former: str
    in_use: str
    ready: bool
    """Whether the program in use answered that it is ready; false where it was not restarted."""
    removed: Sequence[str] = ()
    """Programs and unpacked folders that nothing needs any more."""


def place(program: Path, link: Path) -> Placed:
    """Copy the program beside `link`, under its build's name, and let the link name it: at every moment it names one.

    Raises CommandFailed when `link` is a file of its own, or the disk refuses.
    """
    if link.exists() and not link.is_symlink():
        raise CommandFailed(
            f"{link} is a file, not a link: `mv {link} {link}-first && ln -s {link.name}-first {link}`, then try again"
        )
    former = os.readlink(link) if link.is_symlink() else ""
    target, staged = link.with_name(f"{link.name}-{_build(program)}"), link.with_name(f".{link.name}.new")
    try:
        if not target.exists():
            shutil.copyfile(program, staged)
            staged.chmod(0o755)
            files.sync(staged)
            staged.replace(target)
        point(link, target.name)
    except OSError as error:
        raise CommandFailed(f"{target} was not put in place: {error}") from None
    return Placed(str(target), former, str(target), ready=False)


def point(link: Path, name: str) -> None:
    """Let the link name this program, at once and for good. Raises OSError."""
    staged = link.with_name(f".{link.name}.link")
    staged.unlink(missing_ok=True)
    staged.symlink_to(name)
    staged.replace(link)
    files.sync(link.parent)


def restarted(command: str, link: Path, within_s: float, settings: Sequence[str]) -> bool:
    """Restart the service and wait until it is ready by its own health command; return whether it is."""
    if subprocess.run(shlex.split(command), check=False).returncode:
        return False
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if run(link, "health", *settings).returncode == 0:
            return True
        time.sleep(_LOOK_EVERY_S)
    return False


def run(program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, and return what it printed. Raises CommandFailed when it cannot be run."""
    try:
        return subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, check=False, timeout=CHECK_S, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{program} does not run: {error}") from None


def prune(link: Path, keep: Collection[str], owners: Collection[int]) -> Iterator[str]:
    """Remove the programs beside `link`, and the folders they were unpacked into, that nothing runs from; yield each.

    `keep` are the names of those that stay: the one in use and the one before. Only caches of `owners` (user ids) are
    looked at.
    """
    ids = {found for name in keep if (found := _folder_of(link.parent / name)) is not None}
    homes = set(_homes())
    needed = ids.union(home.name for home in homes)
    named = re.compile(rf"{re.escape(link.name)}-\d[^/]*-[0-9a-f]{{12}}")
    for path in sorted(link.parent.iterdir()):
        if named.fullmatch(path.name) and path.name not in keep and _folder_of(path) not in needed:
            path.unlink()
            yield str(path)
    for cache in sorted({home.parent for home in homes}):
        if cache.stat().st_uid in owners:
            yield from _prune_cache(cache, ids)


def _prune_cache(cache: Path, ids: Collection[str]) -> Iterator[str]:
    with (cache / ".lock").open("rb") as lock:  # no start is between its look at a folder and its use of it
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = set(_homes())
        for folder in sorted(cache.iterdir()):
            if _UNPACKED.fullmatch(folder.name) and folder.name not in ids and folder not in running:
                shutil.rmtree(folder)
                yield str(folder)


def _homes() -> Iterator[Path]:
    """Yield the unpacked folders that processes of this machine run from, as far as this user may see."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                program = Path(os.readlink(process / "exe").removesuffix(" (deleted)"))
                if program.name == PROGRAM_FILE and _UNPACKED.fullmatch(program.parent.name):
                    yield program.parent


def _folder_of(program: Path) -> str | None:
    """Return the name of the folder that the one file is unpacked into; None for another file, or none."""
    with contextlib.suppress(OSError), program.open("rb") as file:
        file.seek(max(0, program.stat().st_size - 80))
        if found := _TRAILER.search(file.read()):
            return found[1].decode("ascii")
    return None


def _build(program: Path) -> str:
    """Return what tells this program from others: its version, and the beginning of its hash."""
    with program.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{run(program, '--version').stdout.strip()}-{digest[:12]}"
