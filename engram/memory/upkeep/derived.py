"""Checks and removes what is derived from the texts of a node: its words, and the windows of long texts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from engram.durable.connection import open_reader
from engram.durable.driver import sqlite3
from engram.memory.errors import TruthUnavailable
from engram.memory.search import derived_file, feed, windows_db, words_db
from engram.memory.search.feed import TextStored
from engram.memory.store import record_sql
from engram.memory.upkeep import data_files
from engram.memory.upkeep.data_files import TRUTH, Progress, StoreDamaged

FILES: Final = (words_db.FILE, windows_db.FILE)
_PAGE: Final = 512
_REMEDY: Final = "with the node stopped, `engram miner reindex` makes it anew"


def problems_of(data: Path) -> list[str]:
    """Return what is wrong with the derived files of a node, which may run.

    A file that lags behind the records, or belongs to other ones, is no problem: the node sees to that when it starts.
    Blocking.
    """
    problems: list[str] = []
    for name in FILES:
        path = data / name
        if not path.exists():
            continue
        try:
            # a snapshot from before that of the records has none that they lack
            with data_files.reading(path) as connection:
                verdicts = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
                problems += [f"{path}: {verdict}; {_REMEDY}" for verdict in verdicts if verdict != "ok"]
                if verdicts == ["ok"]:
                    check = _missing_words if name == words_db.FILE else _wrong_windows
                    problems += [f"{path}: {problem}; {_REMEDY}" for problem in check(data, connection)]
        except (StoreDamaged, TruthUnavailable) as error:
            problems.append(f"{path}: {error.__cause__ or 'it cannot be read'}; {_REMEDY}")
    return problems


def rebuild_words(data: Path, on_progress: Progress = lambda done, total: None) -> int:
    """Make the words of a node anew from its records; return how many records have any. Blocking.

    The caller has claimed the folder. `on_progress` is called with the records done and in all. Raises sqlite3.Error,
    OSError.
    """
    with contextlib.closing(open_reader(data / TRUTH)) as truth:
        counts = record_sql.count(truth)
        total, done = counts.public + counts.private, 0
        words = words_db.WordsDb(data / words_db.FILE, record_sql.read_meta(truth, "truth_id") or "")
        words.reset()
        found = 0
        try:
            while changes := feed.since(truth, words.sequence, _PAGE):
                words.apply(changes, changes[-1].sequence)
                stored = [change for change in changes if isinstance(change, TextStored)]
                found += sum(1 for change in stored if change.words)
                done += len(stored)
                on_progress(done, total)
        finally:
            words.close()
    return found


def forget_windows(data: Path) -> None:
    """Remove the windows of a node: it makes them anew in the background when it runs. Raises OSError."""
    derived_file.remove(data / windows_db.FILE)


def _missing_words(data: Path, words: sqlite3.Connection) -> list[str]:
    """Return a line for records that must have words there and have none, or have some and must not."""
    try:
        with data_files.reading(data / TRUTH) as truth:
            if derived_file.fact(words, "truth_id") != record_sql.read_meta(truth, "truth_id"):
                return []
            upto = derived_file.sequence_of(words)
            wanted: dict[str, set[int]] = {}
            after = 0
            while changes := feed.since(truth, after, _PAGE):
                after = changes[-1].sequence
                for change in changes:
                    if isinstance(change, TextStored) and change.words and change.sequence <= upto:
                        wanted.setdefault(change.namespace, set()).add(change.id)
            level = record_sql.last_sequence(truth) == upto
    except (StoreDamaged, TruthUnavailable):
        return []  # told by the check of the records
    there = {
        name: {row[0] for row in words.execute(f"SELECT id FROM words_{number}_docsize")}
        for number, name in words.execute("SELECT number, name FROM namespaces").fetchall()
    }
    lacking = sum(len(ids - there.get(name, set())) for name, ids in wanted.items())
    left = sum(len(ids - wanted.get(name, set())) for name, ids in there.items()) if level else 0
    return [
        *([f"{lacking} records are not found by their words"] if lacking else []),
        *([f"{left} deleted records have words"] if left else []),
    ]


def _wrong_windows(data: Path, windows: sqlite3.Connection) -> list[str]:
    """Return a line for windows that are missing, that are not what was stored, and of records that are gone."""
    if not windows_db.is_of_this_format(windows):
        return []
    lost, damaged = windows_db.lost(windows), len(windows_db.damaged(windows))
    left = 0
    with contextlib.suppress(StoreDamaged, TruthUnavailable), data_files.reading(data / TRUTH) as truth:
        level = record_sql.last_sequence(truth) == derived_file.sequence_of(windows)
        if level and derived_file.fact(windows, "truth_id") == record_sql.read_meta(truth, "truth_id"):
            there = set(feed.ids_of(truth))
            left = sum(1 for (number,) in windows.execute("SELECT id FROM windows") if number not in there)
    return [
        *([f"the windows of {abs(lost)} records are missing or too many"] if lost else []),
        *([f"the windows of {damaged} records are damaged"] if damaged else []),
        *([f"{left} deleted records have windows"] if left else []),
    ]
