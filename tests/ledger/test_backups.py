"""Backups on the timer, and the drill that restores one without changing anything."""

import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from config.model import BackupSettings
from engram.clock import TrioClock
from engram.durable.driver import sqlite3
from engram.ledger import LEDGER_FILE, LedgerUnusable, backups, drill, open_inline
from engram.ledger.facts import get, put
from engram.ledger.migrations import MIGRATIONS
from tests.ledger.test_migrations import former

TIMES = st.integers(0, 4_000_000_000)


def ledger(folder: Path, value: str = "a") -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    opened = open_inline(folder / LEDGER_FILE)
    opened.write_now(lambda connection: put(connection, "key", value))
    opened.close()
    return folder / LEDGER_FILE


@given(TIMES)
def test_the_name_of_a_backup_says_when_it_was_made(at: int) -> None:
    assert backups.made_at(backups.name_at(at)) == at


@given(st.lists(TIMES, unique=True), st.integers(1, 20))
def test_the_newest_are_kept(times: list[int], keep: int) -> None:
    names = [*map(backups.name_at, times), "notes.txt", "engram-20261130T000000Z.db.partial"]
    removed = backups.surplus(names, keep)
    assert sorted(removed) == [backups.name_at(at) for at in sorted(times)[: max(0, len(times) - keep)]]


@pytest.mark.parametrize(
    ("made", "now", "wait_s"),
    [([], 1_000, 0), ([1_000], 1_000, 100), ([900, 950], 1_000, 50), ([100], 1_000, 0), ([9_000], 1_000, 100)],
)
def test_the_next_backup_is_due_an_interval_after_the_last(made: list[float], now: float, wait_s: float) -> None:
    assert backups.seconds_until_due(map(backups.name_at, made), now, 100.0) == wait_s


class Noting:
    """A log that wakes its test at each line."""

    def __init__(self) -> None:
        self.send, self.lines = trio.open_memory_channel[str](10)

    def info(self, event: str, **_: object) -> None:
        self.send.send_nowait(event)

    error = info


async def test_backups_are_made_in_time_kept_in_number_and_go_on_after_one_that_failed(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Noting()
    monkeypatch.setattr(backups, "_log", log)
    path, folder, made = ledger(tmp_path / "data"), tmp_path / "copies" / "here", list[float]()
    all_seen, looks = trio.Event(), list[tuple[float | None, float]]()

    def on_look(newest: float | None, due: float) -> None:
        looks.append((newest, due))
        if newest is not None and newest not in made:
            made.append(newest)
        if len(made) == 5:
            all_seen.set()

    settings = BackupSettings(folder=str(folder), interval_s=3_600.0, keep=2)
    clock = TrioClock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backups.keep_backing_up, settings, tmp_path / "data", clock, on_look)
        for _ in range(3):
            assert await log.lines.receive() == "backup_made"
            mock_clock.jump(3_600.0)
        assert await log.lines.receive() == "backup_made"
        path.rename(tmp_path / "away")
        mock_clock.jump(3_600.0)
        assert await log.lines.receive() == "backup_failed"
        (tmp_path / "away").rename(path)
        mock_clock.jump(backups.RETRY_S)
        assert await log.lines.receive() == "backup_made"
        await all_seen.wait()
        nursery.cancel_scope.cancel()
    assert looks[0][0] is None
    assert looks[0][1] <= made[0] + 1.0
    assert looks[-1] == (made[-1], made[-1] + 3_600.0)
    assert [round(at - made[0]) for at in made] == [0, 3_600, 7_200, 10_800, 14_400 + backups.RETRY_S]
    kept = sorted(entry.name for entry in folder.iterdir())
    assert kept == [backups.name_at(at) for at in made[-2:]]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_copy_of_a_damaged_ledger_is_no_backup_and_removes_no_older_one(tmp_path: Path) -> None:
    path, folder = ledger(tmp_path / "data"), tmp_path / "copies"
    folder.mkdir()
    sound = backups.rotate(path, folder, 1, 1_000.0)
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE other (name TEXT UNIQUE)")
        raw.execute("INSERT INTO other VALUES ('found in both')")
    raw.close()
    path.write_bytes(path.read_bytes().replace(b"found in both", b"found in none", 1))
    for now in (2_000.0, 3_000.0):
        with pytest.raises(LedgerUnusable, match="older backups are kept"):
            backups.rotate(path, folder, 1, now)
    assert backups.newest(folder) == sound
    assert sorted(entry.name for entry in folder.iterdir()) == [sound.name, f"{backups.name_at(3_000.0)}.damaged"]


def test_what_a_process_that_was_killed_left_is_removed_and_what_is_being_made_is_not(tmp_path: Path) -> None:
    path, folder = ledger(tmp_path / "data"), tmp_path / "copies"
    folder.mkdir()
    left, making = (folder / f"{backups.name_at(at)}.partial" for at in (10.0, 20.0))
    for partial in (left, making):
        partial.write_text("")
    os.utime(left, (10.0, 10.0))
    backups.rotate(path, folder, 1, 1_000.0)
    assert (left.exists(), making.exists()) == (False, True)


def test_a_drill_restores_migrates_and_checks_and_changes_nothing(tmp_path: Path) -> None:
    source = former(tmp_path / "old.db")
    before = source.read_bytes()
    found = drill.drill(source, lambda connection: [f"key is {get(connection, 'key')}"])
    assert (found.schema_before, found.report.schema_version) == (2, len(MIGRATIONS))
    assert found.report.problems == ["key is None"]
    assert source.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.db"]


def test_a_backup_that_does_not_restore_fails_the_drill(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(ledger(tmp_path / "data").read_bytes()[:8_192])
    with pytest.raises(LedgerUnusable):
        drill.drill(broken)


def test_a_ledger_is_copied_before_it_is_migrated_and_the_version_before_goes_on_from_the_copy(tmp_path: Path) -> None:
    path = former(tmp_path / LEDGER_FILE, "INSERT INTO meta VALUES ('key', 'kept');")
    open_inline(path).close()
    copy = tmp_path / f"{LEDGER_FILE}.schema-2"
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (2,)
        assert raw.execute("SELECT value FROM meta WHERE key = 'key'").fetchone() == ("kept",)
    raw.close()
    modified = copy.stat().st_mtime_ns
    open_inline(path).close()
    assert copy.stat().st_mtime_ns == modified


def test_a_new_ledger_has_nothing_to_copy(tmp_path: Path) -> None:
    open_inline(tmp_path / LEDGER_FILE).close()
    assert not list(tmp_path.glob("*.schema-*"))
