"""`engram upgrade`: looks at a newer program before it takes over, puts it in place, and goes back when it fails.

Programs are kept side by side, each under its build's name, and a link names the one in use: nodes that an older one
started still find their own files. The ledger is copied by the newer program before it migrates it (`….schema-N`).
"""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from config import Settings
from engram.cli import output
from engram.cli.doctor.finding import Finding
from engram.cli.failures import CommandFailed, Exit
from engram.cli.operate import programs
from engram.cli.operate.programs import Placed, run
from engram.cli.operate.way_back import go_back
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column
from engram.ledger import LEDGER_FILE, LedgerError, backup

_COLUMNS: Final = (Column("", "verdict"), Column("what", "what"), Column("finding", "text"))


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
    settings = sources.load().settings
    found = list(checks(program.resolve(), sources, must_have_ledger=restart is not None))
    bad = any(finding.verdict == "bad" for finding in found)
    if check or bad or link is None:
        output.rows(found, _COLUMNS, json=show.json)
        if not check and not bad:
            raise CommandFailed("nothing was changed: name the link to put it in place, --link FILE", Exit.USAGE)
        return Exit.FAILED if bad else Exit.DONE
    placed = programs.place(program.resolve(), link)
    if restart is not None:
        placed = _restarted(placed, link, restart, within_s, settings, sources)
    output.record(placed, {"removed": "; ".join}, json=show.json)
    return Exit.DONE if placed.in_use == placed.program and (placed.ready or restart is None) else Exit.FAILED


def _restarted(
    placed: Placed, link: Path, restart: str, within_s: float, settings: Settings, sources: Sources
) -> Placed:
    """Restart the service with the newer program, and go back when that one does not get ready."""
    words = sources.words()
    if not programs.restarted(restart, link, within_s, words):
        return go_back(placed, link, restart, within_s, settings, words)
    folder = Path(settings.data_dir)
    owners = {os.geteuid(), folder.stat().st_uid} if folder.exists() else {os.geteuid()}
    removed: list[str] = []
    with contextlib.suppress(OSError):  # they take room, and harm nobody
        removed.extend(programs.prune(link, {Path(placed.program).name, placed.former}, owners))
    return msgspec.structs.replace(placed, ready=True, removed=removed)


def checks(program: Path, sources: Sources, *, must_have_ledger: bool = False) -> Iterator[Finding]:
    """Let the newer program look at itself, at these settings and at a copy of the ledger; nothing is changed.

    A service that is restarted has a ledger: where there is none, another folder is meant (`must_have_ledger`).
    """
    own = _ask(program, "doctor", "--self", "--json")
    if own is None:
        yield Finding("program", "bad", f"{program} does not run `doctor --self`: is it a program of Engram?")
        return
    yield from (Finding(each["what"], each["verdict"], each["text"]) for each in own)
    done = run(program, "config", "check", *sources.words())
    yield Finding("settings", "bad" if done.returncode else "good", (done.stdout + done.stderr).strip() or "accepted")
    settings = sources.load().settings
    path = Path(settings.data_dir).resolve() / LEDGER_FILE
    if settings.ledger.url:
        yield Finding("ledger", "note", "it is on a server (ledger.url): back it up by the server's own means first")
        return
    if not path.is_file():
        hint = "; name the folder of the service: data_dir in its settings, or --data-dir" if must_have_ledger else ""
        yield Finding("ledger", "bad" if must_have_ledger else "note", f"there is none at {path}{hint}")
        return
    with tempfile.TemporaryDirectory(prefix="engram-upgrade-") as scratch:
        copy = Path(scratch, "copy.db")
        try:
            backup.backup(path, copy)
        except LedgerError as error:
            yield Finding("ledger", "bad", str(error))
            return
        drilled = run(program, "ledger", "drill", str(copy), "--json")
    yield _of_drill(drilled)


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


def _ask(program: Path, *arguments: str) -> Any:  # what another version prints
    try:
        return json.loads(run(program, *arguments).stdout)
    except ValueError:
        return None
