"""`engram ledger`: backup, restore, check."""

import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.at_rest import read_at_rest
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.operate.running import ask_folder
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.control.commands import BackupLedger
from engram.control.model import BackupMade
from engram.ledger import LEDGER_FILE, LedgerError, backup, backups, data_folder, drill
from engram.ledger.migrations import MIGRATIONS
from engram.sessions import counts

app = App(
    name="ledger",
    help="Back up, restore and check the ledger.",
    help_epilogue="Example: `engram ledger backup /var/backups/engram-2026-11-20.db`",
)
BACKUP_S = 300.0
Checked = Annotated[Path | None, Parameter(help="A backup; else the ledger of the data folder.")]
Drilled = Annotated[Path | None, Parameter(help="A backup; else the newest one in backup.folder.")]
MigrateTo = Annotated[str, Parameter(help="Address of an empty database: postgresql://user@host:5432/database.")]
Source = Annotated[Path, Parameter(help="The backup.")]
Target = Annotated[Path, Parameter(help="File to write, which must not exist yet; or a folder, with --keep.")]
Kept = Annotated[
    int | None,
    Parameter(converter=whole, help="TARGET is a folder: name the backup by its time, and keep so many of them."),
]


@app.command(name="backup", help_epilogue="Example: `engram ledger backup /var/backups/engram-2026-11-20.db`")
def backup_ledger(
    target: Target,
    *,
    keep: Kept = None,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Write a consistent copy of the ledger; the process may keep selling meanwhile."""
    if keep is not None:
        output.record(_rotated(_folder(sources), target, keep), json=show.json)
        return
    folder, path = _folder(sources), target.resolve()
    try:
        made = ask_folder(folder, BackupLedger(path=str(path)), timeout_s=BACKUP_S)
    except CommandFailed as failure:
        if failure.exit_code != Exit.NOT_RUNNING or not (folder / LEDGER_FILE).is_file():
            raise
        made = _back_up_at_rest(folder, path)
    output.record(made, json=show.json)


def _rotated(folder: Path, target: Path, keep: int) -> BackupMade:
    if keep < 1:
        raise CommandFailed(f"--keep {keep}: at least one backup is kept", Exit.USAGE)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = backups.rotate(folder / LEDGER_FILE, target.resolve(), keep, time.time())
    except (LedgerError, OSError) as error:
        raise CommandFailed(str(error)) from None
    return BackupMade(str(made), made.stat().st_size)


def _back_up_at_rest(folder: Path, target: Path) -> BackupMade:
    try:
        with data_folder(folder) as locked:
            return BackupMade(str(target), backup.backup(locked / LEDGER_FILE, target))
    except LedgerError as error:
        raise CommandFailed(str(error)) from None


@app.command(name="restore", help_epilogue="Example: `engram ledger restore /var/backups/engram-2026-11-20.db`")
def restore_ledger(source: Source, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Replace the ledger by a backup; the old one is kept next to it. No process may be running."""
    _must_be_there(source)
    try:
        with data_folder(_folder(sources)) as locked:
            kept = backup.restore(source, locked)
            restored = locked / LEDGER_FILE
    except LedgerError as error:
        raise CommandFailed(str(error)) from None
    former = "" if kept == restored else str(kept)
    output.record({"restored": str(restored), "former_ledger": former}, json=show.json)


@app.command(name="check", help_epilogue="Example: `engram ledger check`, or `engram ledger check a-backup.db`")
def check_ledger(
    path: Checked = None,
    /,
    *,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> int:
    """Check the whole ledger, or a backup, and list its problems."""
    if path is not None:
        _must_be_there(path)
    try:
        report = backup.check(path or _folder(sources) / LEDGER_FILE)
    except LedgerError as error:
        raise CommandFailed(str(error)) from None
    if report.schema_version == len(MIGRATIONS):
        report.problems.extend(read_at_rest(Path(report.path), counts.problems) or [])
    if show.json:
        output.document(report)
    else:
        facts = {name: getattr(report, name) for name in ("path", "ledger_id", "schema_version", "bytes")}
        facts |= {f"rows of {table}": count for table, count in report.rows.items()}
        output.record({**facts, "problems": "; ".join(report.problems) or "none"}, json=False)
    return Exit.FAILED if report.problems else Exit.DONE


@app.command(name="drill", help_epilogue="Example: `engram ledger drill`, or `engram ledger drill a-backup.db`")
def drill_ledger(
    source: Drilled = None,
    /,
    *,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> int:
    """Restore a backup into a scratch folder, migrate it as a start would, and check all of it; nothing is changed.

    Without a name it is the newest backup in `backup.folder`. The exit status is 1 when it could not be used.
    """
    path = source or _newest_backup(sources)
    _must_be_there(path)
    try:
        found = drill.drill(path, counts.problems)
    except (LedgerError, OSError) as error:
        raise CommandFailed(f"{path} could not be restored: {error}") from None
    if show.json:
        output.document(found)
    else:
        facts: dict[str, object] = {
            "backup": found.source,
            "ledger_id": found.report.ledger_id,
            "schema": f"{found.schema_before}, migrated to {found.report.schema_version}",
            **{f"rows of {table}": count for table, count in found.report.rows.items()},
            "problems": "; ".join(found.report.problems) or "none",
        }
        output.record(facts, json=False)
    return Exit.FAILED if found.report.problems else Exit.DONE


def _newest_backup(sources: Sources) -> Path:
    folder = sources.load().settings.backup.folder
    if not folder:
        raise CommandFailed("backup.folder is not set: name a backup, or set it", Exit.USAGE)
    found = backups.newest(Path(folder).expanduser())
    if found is None:
        raise CommandFailed(f"there is no backup in {folder}; make one with `engram ledger backup {folder} --keep 14`")
    return found


@app.command(
    name="migrate", help_epilogue="Example: `engram ledger migrate --to postgresql://engram@db.example/engram`"
)
def migrate_ledger(*, to: MigrateTo, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Move the ledger of the data folder to an empty PostgreSQL database, and compare it row by row.

    No process may be running. A move that was interrupted is begun again and goes on. The file stays, and is not opened
    any more: set `ledger.url` to the new address.
    """
    from engram.cli.progress import progress
    from engram.ledger import moving

    try:
        with data_folder(Path(sources.load().settings.data_dir)) as locked, progress("rows") as on_progress:
            moved = moving.to_server(locked, to, on_progress)
    except LedgerError as error:
        raise CommandFailed(str(error)) from None
    output.record({f"rows of {table}": count for table, count in moved.items()}, json=show.json)


def _folder(sources: Sources) -> Path:
    settings = sources.load().settings
    if settings.ledger.url:
        raise CommandFailed(
            "the ledger is on a PostgreSQL server (ledger.url), whose own means back it up, restore and check it:"
            " pg_basebackup and the archived log, or pg_dump"
        )
    return Path(settings.data_dir)


def _must_be_there(backup_file: Path) -> None:
    if not backup_file.exists():
        raise CommandFailed(f"there is no file {backup_file}; name one that `engram ledger backup` has written")
