"""Backups of a node's memory: a folder with a copy of each database and a manifest of their sizes and digests.

    manifest.json   format, time, sizes and SHA-256 of the files, and how many records there are
    truth.db        every record
    notebook.db     key shares, attestations, conversations

The index is left out, since it can be built from the records, and so is the node's own key, which is stored elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from engram import files, wire
from engram.durable.driver import sqlite3
from engram.memory.errors import MemoryAreaError
from engram.memory.store import notebook_db as notebooks
from engram.memory.store import record_sql
from engram.memory.upkeep import data_files
from engram.memory.upkeep.data_files import NOTEBOOK, STORES, TRUTH, Progress, StoreDamaged

MANIFEST = "manifest.json"
_KEPT = "before-restore"
_SCHEMAS = {TRUTH: record_sql.SCHEMA_VERSION, NOTEBOOK: notebooks.SCHEMA_VERSION}


class BackupFailed(MemoryAreaError):
    """A backup could not be made or restored; the text says why and what is unchanged."""


class File(msgspec.Struct, frozen=True):
    """A file of a backup."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. `made_at` is unix seconds, `sequence` the number of the last change in it."""

    format: int = 1
    made_at: float
    truth_id: str
    sequence: int
    records: int
    files: dict[str, File]


def back_up(data: Path, target: Path, now: float, on_progress: Progress = lambda done, total: None) -> Manifest:
    """Copy the stores of a node, which may be running, into the new folder `target`, each from one snapshot.

    `target` appears once all of it is on disk. Raises BackupFailed, StoreDamaged.
    """
    target = target.absolute()
    if target.exists():
        raise BackupFailed(f"{target} exists already; name another folder")
    if target.is_relative_to(data.absolute()):
        raise BackupFailed(f"{target} is inside the node's own folder, where it would count and be erased with it")
    partial = target.with_name(f"{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        data_files.copy_database(data / TRUTH, partial / TRUTH, on_progress)
        if (data / NOTEBOOK).exists():
            data_files.copy_database(data / NOTEBOOK, partial / NOTEBOOK)
        else:
            notebooks.Notebook.open(partial / NOTEBOOK).close()
        manifest = _described(partial, now)
        (partial / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        for path in (*partial.iterdir(), partial):
            files.sync(path)
        partial.rename(target)
        files.sync(target.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise BackupFailed(f"no backup was made at {target}: {error}") from error
        raise
    return manifest


def check(backup: Path) -> Manifest:
    """Read all of a backup and return its manifest. Raises BackupFailed when it is damaged or not a backup."""
    try:
        manifest = wire.decode((backup / MANIFEST).read_bytes(), Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackupFailed(f"{backup} is no backup of a node: its {MANIFEST} cannot be read ({error})") from error
    if manifest.format != 1 or set(manifest.files) != set(STORES):
        raise BackupFailed(f"{backup} was made by another version of this program (format {manifest.format})")
    for name, expected in manifest.files.items():
        _require_same(backup / name, expected)
    return manifest


def refuse_over(data: Path) -> None:
    """Raise BackupFailed when the folder has a database already, whole or damaged."""
    there = [data / name for name in STORES if (data / name).exists()]
    if not there:
        return
    try:
        with data_files.reading(there[0]) as connection:
            damage = data_files.problems_of(connection)
        state = f"is damaged ({damage[0]})" if damage else "is there already"
    except StoreDamaged as error:
        state = f"is damaged ({error})"
    raise BackupFailed(f"{there[0]} {state}; --force restores all the same, and keeps it beside in {_KEPT}-N")


def restore(backup: Path, data: Path, truth_id: str) -> Path:
    """Replace a node's stores by a checked backup; return the folder that keeps the former ones.

    The caller has claimed the folder. `truth_id` must be new, so that an index or server that is ahead of the backup is
    rebuilt. When it raises BackupFailed, nothing was changed.
    """
    manifest = check(backup)
    incoming = data / data_files.INCOMING
    try:
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(mode=0o700)
        for name, expected in manifest.files.items():
            shutil.copyfile(backup / name, incoming / name)
            os.chmod(incoming / name, 0o600)
            _require_same(incoming / name, expected)
        _rename_truth(incoming / TRUTH, truth_id)
        return data_files.put_in_place(incoming, data, _KEPT)
    except OSError as error:
        raise BackupFailed(f"{backup} was not restored: {error}") from error
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _described(folder: Path, now: float) -> Manifest:
    files: dict[str, File] = {}
    facts: Mapping[str, str | int] = {}
    for name in STORES:
        with data_files.reading(folder / name) as connection:
            if damage := data_files.problems_of(connection):
                raise StoreDamaged(f"{name} is damaged, no backup was made: {damage[0]}; see `engram miner repair`")
            if name == TRUTH:
                held = record_sql.count(connection)
                truth_id = record_sql.read_meta(connection, "truth_id") or ""
                facts = {
                    "truth_id": truth_id,
                    "sequence": record_sql.last_sequence(connection),
                    "records": held.public + held.private,
                }
        files[name] = File((folder / name).stat().st_size, data_files.digest_of(folder / name))
    return wire.convert({**facts, "made_at": now, "files": files}, Manifest, attributes=True)


def _require_same(path: Path, expected: File) -> None:
    try:
        found = File(path.stat().st_size, data_files.digest_of(path))
    except OSError as error:
        raise BackupFailed(f"{path}: {error.strerror}") from error
    if found != expected:
        raise BackupFailed(f"{path} is not the file that was backed up: its size or SHA-256 is another one")
    with data_files.reading(path) as connection:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > _SCHEMAS[path.name]:
        raise BackupFailed(f"{path} has schema {version}, this program knows {_SCHEMAS[path.name]}")


def _rename_truth(path: Path, truth_id: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        record_sql.write_meta(connection, "truth_id", truth_id)
