"""The data folder's lock, and backups that restore."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engram.ledger import (
    LEDGER_FILE,
    FolderInUse,
    LedgerUnavailable,
    LedgerUnusable,
    data_folder,
    open_inline,
)
from engram.ledger.backup import LOCK_FILE, backup, check, restore
from engram.ledger.connection import reading_engine
from engram.ledger.facts import get, put


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with data_folder(tmp_path / "data") as folder:
        script = (
            "import sys, pathlib; from engram.ledger import data_folder\n"
            "with data_folder(pathlib.Path(sys.argv[1])): pass"
        )
        done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "is in use by process" in done.stderr
        with pytest.raises(FolderInUse), data_folder(folder):
            pass
    with data_folder(folder) as again:
        assert again == folder


def test_the_folder_is_private(tmp_path: Path) -> None:
    with data_folder(tmp_path / "data") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match="data_dir"), data_folder(tmp_path / "file" / "data"):
        pass


def test_a_backup_of_a_ledger_in_use_restores_what_was_committed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    ledger = open_inline(folder / LEDGER_FILE)
    ledger.write_now(lambda c: put(c, "a", "then"))
    backup(folder / LEDGER_FILE, tmp_path / "copy.sqlite3")
    ledger.write_now(lambda c: put(c, "a", "now"))
    ledger.close()

    kept = restore(tmp_path / "copy.sqlite3", folder)

    ledger = open_inline(folder / LEDGER_FILE)
    assert ledger.write_now(lambda c: get(c, "a")) == "then"
    ledger.close()
    former = open_inline(kept)
    assert former.write_now(lambda c: get(c, "a")) == "now"
    former.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as whom an operator restores")
def test_a_ledger_that_root_restores_belongs_to_the_user_of_the_folder(tmp_path: Path) -> None:
    folder, nobody = tmp_path / "data", 65_534
    folder.mkdir()
    open_inline(folder / LEDGER_FILE).close()
    for path in (folder, folder / LEDGER_FILE):
        os.chown(path, nobody, nobody)
    backup(folder / LEDGER_FILE, tmp_path / "copy.sqlite3")
    with data_folder(folder):
        kept = restore(tmp_path / "copy.sqlite3", folder)
    owners = {path.stat().st_uid for path in (folder / LEDGER_FILE, kept.parent, kept, folder / LOCK_FILE)}
    assert owners == {nobody}


def test_a_root_that_may_give_nothing_away_uses_a_folder_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    with data_folder(tmp_path / "data") as folder:
        open_inline(folder / LEDGER_FILE).close()
        backup(folder / LEDGER_FILE, tmp_path / "copy.sqlite3")
        restore(tmp_path / "copy.sqlite3", folder)


class PowerCut(BaseException):
    """The machine stops here."""


@pytest.mark.parametrize("step", range(12))
def test_a_restore_cut_anywhere_leaves_the_former_ledger_or_the_restored_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    ledger = open_inline(folder / LEDGER_FILE)
    ledger.write_now(lambda c: put(c, "a", "then"))
    backup(folder / LEDGER_FILE, tmp_path / "copy.sqlite3")
    ledger.write_now(lambda c: put(c, "a", "now"))
    for name in (LEDGER_FILE, LEDGER_FILE + "-wal"):  # as a gateway that was killed leaves it: the log is not empty
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    ledger.close()
    for name in (LEDGER_FILE, LEDGER_FILE + "-wal"):
        (tmp_path / name).replace(folder / name)

    left = step

    def cut_before(change: str) -> None:
        original = getattr(Path, change)

        def until(self: Path, *rest: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerCut
            return original(self, *rest, **options)

        monkeypatch.setattr(Path, change, until)

    for change in ("rename", "replace", "unlink"):
        cut_before(change)
    done = False
    try:
        restore(tmp_path / "copy.sqlite3", folder)
        done = True
    except PowerCut:
        pass
    monkeypatch.undo()
    with data_folder(folder):
        ledger = open_inline(folder / LEDGER_FILE)
        found = ledger.write_now(lambda c: get(c, "a"))
        ledger.close()
    assert found == "then" if done else found in ("then", "now")
    assert check(folder / LEDGER_FILE).problems == []


def test_a_restore_that_the_version_before_had_decided_on_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    ledger = open_inline(folder / LEDGER_FILE)
    ledger.write_now(lambda c: put(c, "a", "restored"))
    backup(folder / LEDGER_FILE, folder / f"{LEDGER_FILE}.restoring")
    ledger.write_now(lambda c: put(c, "a", "former"))
    log = (folder / f"{LEDGER_FILE}-wal").read_bytes()
    ledger.close()
    (folder / f"{LEDGER_FILE}-wal").write_bytes(log)
    with data_folder(folder):
        ledger = open_inline(folder / LEDGER_FILE)
        assert ledger.write_now(lambda c: get(c, "a")) == "restored"
        ledger.close()


def test_a_damaged_ledger_is_kept_as_it_is_when_a_backup_takes_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    ledger = open_inline(folder / LEDGER_FILE)
    ledger.write_now(lambda c: put(c, "a", "then"))
    backup(folder / LEDGER_FILE, tmp_path / "copy.sqlite3")
    ledger.close()
    (folder / LEDGER_FILE).write_bytes(b"junk" * 5_000)
    kept = restore(tmp_path / "copy.sqlite3", folder)
    assert kept.read_bytes() == b"junk" * 5_000
    ledger = open_inline(folder / LEDGER_FILE)
    assert ledger.write_now(lambda c: get(c, "a")) == "then"
    ledger.close()
    (folder / LEDGER_FILE).unlink()
    assert restore(tmp_path / "copy.sqlite3", folder) == folder / LEDGER_FILE


def test_what_a_killed_restore_of_the_version_before_left_hinders_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    open_inline(tmp_path / "copy.sqlite3").close()
    (folder / (LEDGER_FILE + ".incoming")).write_bytes(b"half of a ledger")
    assert restore(tmp_path / "copy.sqlite3", folder) == folder / LEDGER_FILE
    assert check(folder / LEDGER_FILE).problems == []


def test_a_damaged_backup_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    open_inline(folder / LEDGER_FILE).close()
    (tmp_path / "bad.sqlite3").write_bytes(b"junk" * 5000)
    before = (folder / LEDGER_FILE).read_bytes()
    with pytest.raises(LedgerUnusable):
        restore(tmp_path / "bad.sqlite3", folder)
    assert (folder / LEDGER_FILE).read_bytes() == before


def test_a_backup_never_overwrites(tmp_path: Path) -> None:
    open_inline(tmp_path / LEDGER_FILE).close()
    (tmp_path / "copy.sqlite3").write_text("mine")
    with pytest.raises(LedgerUnavailable, match="exists already"):
        backup(tmp_path / LEDGER_FILE, tmp_path / "copy.sqlite3")


def test_a_check_counts_rows_and_names_the_ledger(tmp_path: Path) -> None:
    open_inline(tmp_path / LEDGER_FILE).close()
    report = check(tmp_path / LEDGER_FILE)
    assert report.problems == []
    assert report.rows["meta"] == 1
    assert len(report.ledger_id) == 8
    with pytest.raises(LedgerUnusable, match="does not exist"):
        check(tmp_path / "nothing.sqlite3")


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_a_file_where_the_data_folder_should_be_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "data"
    file.write_text("mine")
    wanted = file / below if below else file
    with (
        pytest.raises(LedgerUnavailable, match=f"data_dir is {wanted}: {file} is a file, not a folder"),
        data_folder(wanted),
    ):
        pass
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["what?", "no#1", "50%41", "a b", "é", "x?mode=memory&", "file:x"])
def test_a_folder_of_any_name_is_the_one_that_is_opened_checked_and_backed_up(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    ledger = open_inline(folder / LEDGER_FILE)
    ledger.write_now(lambda c: put(c, "a", "here"))
    backup(folder / LEDGER_FILE, folder / "copy.sqlite3")
    ledger.close()
    assert check(folder / LEDGER_FILE).rows == check(folder / "copy.sqlite3").rows
    assert [each.name for each in tmp_path.iterdir()] == [name]
    with reading_engine(folder / LEDGER_FILE).connect() as connection:
        assert get(connection, "a") == "here"
