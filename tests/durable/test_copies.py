"""Copies are of one moment, and files are replaced so that a crash leaves the former or the new, never a mixture."""

import fcntl
from pathlib import Path

import pytest

from engram.durable import copies, restoring
from engram.durable.connection import open_writer
from engram.durable.driver import sqlite3
from tests.durable.stores import DATABASE, LOCK, NotKept, Spoilt, names, names_on_disk, put


def test_a_copy_of_a_file_in_use_is_of_one_moment_and_one_file(tmp_path: Path) -> None:
    raw, _ = open_writer(DATABASE, tmp_path / "a.db")
    for number in range(300):
        put(f"n{number}", "x" * 9_000)(raw)
    told: list[tuple[int, int]] = []

    def write_meanwhile(done: int, total: int) -> None:
        told.append((done, total))
        put(f"late{len(told)}")(raw)

    (tmp_path / "out").mkdir()
    copies.copy(DATABASE, tmp_path / "a.db", tmp_path / "out" / "b.db", LOCK, write_meanwhile)
    assert told[-1][0] == told[-1][1] > 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.db"]
    assert names_on_disk(tmp_path / "out" / "b.db") == {f"n{number}" for number in range(300)}
    assert (tmp_path / "out" / "b.db").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        copies.copy(DATABASE, tmp_path / "a.db", tmp_path / "out" / "b.db", LOCK)
    raw.close()


def test_a_file_that_is_missing_empty_or_damaged_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for content in (None, b"", b"junk" * 5_000):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(Spoilt, match=r"a\.db.*put a backup"), copies.snapshot(DATABASE, path, LOCK):
            pass


def test_a_file_on_a_disk_without_room_beside_it_is_read_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, _ = open_writer(DATABASE, tmp_path / "a.db")
    put("a")(raw)
    raw.close()
    opened: list[Path] = []
    really = copies._opened

    def full(path: Path) -> sqlite3.Connection:
        opened.append(path)
        if path.parent == tmp_path:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return really(path)

    monkeypatch.setattr(copies, "_opened", full)
    with copies.snapshot(DATABASE, tmp_path / "a.db", LOCK) as connection:
        assert names(connection) == {"a"}
    assert not opened[-1].exists()
    with open(tmp_path / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NotKept, match="a process has it"), copies.snapshot(DATABASE, tmp_path / "a.db", LOCK):
            pass
    assert not copies.is_claimed(tmp_path / LOCK)


class PowerCut(BaseException):
    """The machine stops here."""


@pytest.mark.parametrize("step", range(14))
def test_a_replacement_cut_anywhere_leaves_the_former_files_or_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    files = ("a.db", "b.db")
    incoming = tmp_path / ".incoming"
    incoming.mkdir()
    for name in files:
        raw, _ = open_writer(DATABASE, tmp_path / name)
        put("former")(raw)
        log = (tmp_path / f"{name}-wal").read_bytes()
        raw.close()
        (tmp_path / f"{name}-wal").write_bytes(log)  # as a process that was killed leaves it: the log is not empty
        copies_of = incoming / name
        made = sqlite3.connect(copies_of, isolation_level=None)
        DATABASE.migrations[0](made)
        put("new")(made)
        made.close()
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

    for change in ("rename", "replace", "unlink", "rmdir"):
        cut_before(change)
    done = False
    try:
        kept = restoring.put_in_place(incoming, tmp_path, "before", files)
        done = kept == tmp_path / "before-1"
    except PowerCut:
        pass
    monkeypatch.undo()
    restoring.finish(tmp_path, files)
    found = [names_on_disk(tmp_path / name) for name in files]
    assert found == ([{"new"}] * 2 if done or not incoming.exists() else [{"former"}] * 2)
    if found[0] == {"new"}:
        assert [names_on_disk(tmp_path / "before-1" / name) for name in files] == [{"former"}] * 2
        assert not (tmp_path / restoring.RESTORING).exists()
