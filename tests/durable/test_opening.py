"""Opening a file: the same settings, check, version guard and migrations for all."""

from pathlib import Path

import pytest

from engram.durable import Database
from engram.durable import connection as connections
from engram.durable.connection import open_writer
from engram.durable.driver import sqlite3
from tests.durable.stores import DATABASE, NotKept, Spoilt, names, put

OLDER = Database(
    **{name: getattr(DATABASE, name) for name in DATABASE.__struct_fields__} | {"migrations": DATABASE.migrations[:1]}
)


def test_what_is_acknowledged_is_durable_and_what_is_deleted_is_overwritten(tmp_path: Path) -> None:
    raw, _ = open_writer(DATABASE, tmp_path / "a.db")
    found = {
        name: raw.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "user_version")
    }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "user_version": 2}
    raw.close()


def test_an_older_file_is_migrated_and_a_newer_one_refused_as_it_is(tmp_path: Path) -> None:
    raw, _ = open_writer(OLDER, tmp_path / "a.db")
    put("a")(raw)
    raw.close()
    raw, _ = open_writer(DATABASE, tmp_path / "a.db")
    assert raw.execute("SELECT name, note FROM kept").fetchall() == [("a", None)]
    raw.close()
    with pytest.raises(Spoilt, match="the box has schema version 2, this program knows up to 1"):
        open_writer(OLDER, tmp_path / "a.db")


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    def half(raw: sqlite3.Connection) -> None:
        raw.execute("DROP TABLE kept")
        raise RuntimeError("a fault of ours")

    open_writer(OLDER, tmp_path / "a.db")[0].close()
    fields = {name: getattr(DATABASE, name) for name in DATABASE.__struct_fields__}
    broken = Database(**fields | {"migrations": (*OLDER.migrations, half)})
    with pytest.raises(RuntimeError):
        open_writer(broken, tmp_path / "a.db")
    raw, _ = open_writer(DATABASE, tmp_path / "a.db")
    assert names(raw) == set()
    raw.close()


def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    raw, _ = open_writer(DATABASE, path)
    for number in range(200):
        put(f"n{number}", "x" * 500)(raw)
    raw.close()
    damaged = bytearray(path.read_bytes())
    damaged[20_000:40_000] = b"\xff" * 20_000
    path.write_bytes(damaged)
    with pytest.raises(Spoilt, match="put a backup"):
        open_writer(DATABASE, path)
    path.write_bytes(b"this is no database, it is a letter to my aunt" * 100)
    with pytest.raises(Spoilt, match=r"not a usable box.*put a backup"):
        open_writer(DATABASE, path)


def test_a_large_file_is_not_checked_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    raw, _ = open_writer(DATABASE, path)
    raw.execute("CREATE INDEX by_value ON kept (value)")
    for number in range(300):
        put(f"n{number}", f"{number}" + "x" * 500)(raw)
    root = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'by_value'").fetchone()[0]
    raw.close()
    damaged = bytearray(path.read_bytes())
    damaged[(root - 1) * 4_096 + 100 : root * 4_096] = b"\xff" * 3_996
    path.write_bytes(damaged)
    with pytest.raises(Spoilt):
        open_writer(DATABASE, path)
    monkeypatch.setattr(connections, "LARGEST_CHECKED", path.stat().st_size - 1)
    raw, _ = open_writer(DATABASE, path)
    assert len(names(raw)) == 300
    raw.close()


def test_a_folder_that_is_not_there_is_not_done(tmp_path: Path) -> None:
    with pytest.raises(NotKept, match="cannot be opened"):
        open_writer(DATABASE, tmp_path / "nowhere" / "a.db")


@pytest.mark.parametrize("name", ["what?", "no#1", "50%41", "a b", "é", "x?mode=memory&", "file:x"])
def test_a_file_of_any_name_is_the_one_that_is_opened(tmp_path: Path, name: str) -> None:
    raw, _ = open_writer(DATABASE, tmp_path / name)
    put("a")(raw)
    reader = connections.open_reader(tmp_path / name)
    assert names(reader) == {"a"}
    reader.close()
    raw.close()
    assert [each.name for each in tmp_path.iterdir()] == [name]
