"""`engram upgrade`: looks at a newer program before it takes over, puts it in place, and goes back when it fails.

Programs are kept side by side, each under its build's name, and a link names the one in use: nodes that an older one
started still find their own files. The ledger is copied by the newer program before it migrates it (`….schema-N`).
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from engram.cli import output
from engram.cli.doctor.finding import Finding
from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column
from engram.ledger import LEDGER_FILE, LedgerError, backup, data_folder

CHECK_S: Final = 300.0
"""The longest that a question to the other program may take; the first unpacks it."""
_LOOK_EVERY_S: Final = 0.5
_COLUMNS: Final = (Column("", "verdict"), Column("what", "what"), Column("finding", "text"))


class Placed(msgspec.Struct, frozen=True):
    """The result of an upgrade."""

    program: str
    former: str
    ready: bool


def upgrade(
    program: Annotated[Path, Parameter(help="The newer program: one file, as `make binary` builds it.")],
    *,
    check: Annotated[
        bool, Parameter(help="Only look: open a copy of the ledger with it, and let it check itself.", negative="")
    ] = False,
    link: Annotated[
        Path | None, Parameter(help="The link that names the program in use; programs are kept beside it.")
    ] = None,
    restart: Annotated[
        str | None, Parameter(help="Command that restarts the service; the link goes back when it does not get ready.")
    ] = None,
    within_s: Annotated[float, Parameter(help="Seconds in which it has to be ready after the restart.")] = 120.0,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> int:
    """Check a newer program and put it in place of this one; nodes go on and are found again."""
    if not program.is_file() or not os.access(program, os.X_OK):
        raise CommandFailed(f"{program} is no program: name the new file, and make it executable (chmod +x)")
    found = list(checks(program.resolve(), sources))
    bad = any(finding.verdict == "bad" for finding in found)
    if check or bad or link is None:
        output.rows(found, _COLUMNS, json=show.json)
        if not check and not bad:
            raise CommandFailed("nothing was changed: name the link to put it in place, --link FILE", Exit.USAGE)
        return Exit.FAILED if bad else Exit.DONE
    placed = place(program.resolve(), link, _build(program.resolve()))
    if restart is None:
        output.record(placed, json=show.json)
        return Exit.DONE
    ready = _restarted(restart, link, within_s, sources)
    if not ready:
        _go_back(placed, link, restart, sources)
    output.record(msgspec.structs.replace(placed, ready=ready), json=show.json)
    return Exit.DONE if ready else Exit.FAILED


def checks(program: Path, sources: Sources) -> Iterator[Finding]:
    """Let the newer program look at itself, at these settings and at a copy of the ledger; nothing is changed."""
    own = _ask(program, "doctor", "--self", "--json")
    if own is None:
        yield Finding("program", "bad", f"{program} does not run `doctor --self`: is it a program of Engram?")
        return
    yield from (Finding(each["what"], each["verdict"], each["text"]) for each in own)
    named = _arguments(sources)
    done = _run(program, "config", "check", *named)
    yield Finding("settings", "bad" if done.returncode else "good", (done.stdout + done.stderr).strip() or "accepted")
    settings = sources.load().settings
    path = Path(settings.data_dir).resolve() / LEDGER_FILE
    if settings.ledger.url:
        yield Finding("ledger", "note", "it is on a server (ledger.url): back it up by the server's own means first")
        return
    if not path.is_file():
        yield Finding("ledger", "note", f"there is none at {path}")
        return
    with tempfile.TemporaryDirectory(prefix="engram-upgrade-") as scratch:
        copy = Path(scratch, "copy.db")
        try:
            backup.backup(path, copy)
        except LedgerError as error:
            yield Finding("ledger", "bad", str(error))
            return
        drilled = _run(program, "ledger", "drill", str(copy), "--json")
    yield _of_drill(drilled)


def place(program: Path, link: Path, build: str) -> Placed:
    """Copy the program beside `link`, under its build's name, and let the link name it: at every moment it names one.

    Raises CommandFailed when `link` is a file of its own, or the disk refuses.
    """
    if link.exists() and not link.is_symlink():
        raise CommandFailed(f"{link} is a file, not a link: move it to a name of its own and link it")
    former = os.readlink(link) if link.is_symlink() else ""
    target, staged = link.with_name(f"{link.name}-{build}"), link.with_name(f".{link.name}.new")
    try:
        if not target.exists():
            shutil.copyfile(program, staged)
            staged.chmod(0o755)
            _sync(staged)
            staged.replace(target)
        _point(link, target.name)
    except OSError as error:
        raise CommandFailed(f"{target} was not put in place: {error}") from None
    return Placed(str(target), former, ready=False)


def _point(link: Path, name: str) -> None:
    staged = link.with_name(f".{link.name}.link")
    staged.unlink(missing_ok=True)
    staged.symlink_to(name)
    staged.replace(link)
    _sync(link.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _restarted(command: str, link: Path, within_s: float, sources: Sources) -> bool:
    """Run the restart and wait until the service is ready by its own health command."""
    if subprocess.run(shlex.split(command), check=False).returncode:
        return False
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if _run(link, "health", *_arguments(sources)).returncode == 0:
            return True
        time.sleep(_LOOK_EVERY_S)
    return False


def _go_back(placed: Placed, link: Path, restart: str, sources: Sources) -> None:
    """Let the link name the former program again, with the ledger that it can read.

    The copy from before the migration is restored only when the new program added nothing to it: a row more may be an
    acknowledged purchase.
    """
    if not placed.former:
        raise CommandFailed(f"{placed.program} does not get ready, and there is no program before it to go back to")
    _point(link, placed.former)
    settings = sources.load().settings
    folder = Path(settings.data_dir).resolve()
    is_file = not settings.ledger.url and (folder / LEDGER_FILE).is_file()
    now = backup.check(folder / LEDGER_FILE) if is_file else None
    refused = _run(link, "ledger", "check", str(folder / LEDGER_FILE), "--json") if now else None
    if now is not None and refused is not None and refused.returncode:
        kept = _newest_copy(folder)
        before = None if kept is None else backup.check(kept)
        if before is None or any(now.rows.get(table, 0) > rows for table, rows in before.rows.items()):
            raise CommandFailed(
                f"{placed.program} does not get ready, and {placed.former} cannot read the ledger that it migrated and "
                f"wrote: keep {folder}, start {placed.program} by hand and read its log"
            )
        assert kept is not None
        subprocess.run(shlex.split(restart), check=False)  # ends the new one; the former refuses this ledger and ends
        with _stopped(folder):
            backup.restore(kept, folder)
    subprocess.run(shlex.split(restart), check=False)


@contextlib.contextmanager
def _stopped(folder: Path) -> Iterator[None]:
    try:
        with data_folder(folder):
            yield
    except LedgerError as error:
        raise CommandFailed(f"the ledger was not put back: {error}") from None


def _newest_copy(folder: Path) -> Path | None:
    copies = sorted(folder.glob(f"{LEDGER_FILE}.schema-*"), key=lambda path: path.stat().st_mtime_ns)
    return copies[-1] if copies else None


def _of_drill(done: "subprocess.CompletedProcess[str]") -> Finding:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        report = json.loads(done.stdout)
        problems = report["report"]["problems"]
        if problems:
            return Finding("ledger", "bad", "; ".join(problems))
        if done.returncode == 0:
            versions = f"{report['schema_before']} to {report['report']['schema_version']}"
            return Finding("ledger", "good", f"a copy was restored, migrated ({versions}) and checked by it")
    said = done.stderr.strip() or done.stdout.strip()
    return Finding("ledger", "bad", f"it cannot open a copy of the ledger: {said}")


def _build(program: Path) -> str:
    """Return what tells this program from others: its version, and the beginning of its hash."""
    with program.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{_run(program, '--version').stdout.strip()}-{digest[:12]}"


def _arguments(sources: Sources) -> Sequence[str]:
    """Return these sources of settings as they are written on a command line."""
    written: list[str] = [] if sources.profile is None else ["--profile", sources.profile]
    for path in sources.config:
        written += ["--config", str(path)]
    if sources.data_dir is not None:
        written += ["--data-dir", str(sources.data_dir)]
    for pair in sources.set:
        written += ["--set", pair]
    return written


def _ask(program: Path, *arguments: str) -> Any:  # what another version prints
    try:
        return json.loads(_run(program, *arguments).stdout)
    except ValueError:
        return None


def _run(program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, check=False, timeout=CHECK_S, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{program} does not run: {error}") from None
