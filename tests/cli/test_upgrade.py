"""`engram upgrade` with programs that are sound, that are none, and that never get ready."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from engram.ledger import LEDGER_FILE, open_inline
from engram.ledger.migrations import MIGRATIONS
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
REAL = """#!/bin/sh
cd {root} && exec {python} -P -m engram "$@"
"""
QUICK = """#!/bin/sh
# {word}
{instead}
case "$1 $2" in
    "--version ") echo 0.1.0;;
    "doctor --self") echo '[]';;
    "config check") echo valid;;
    "ledger check") exit 0;;
    "ledger drill") echo '{{"schema_before": 1, "report": {{"schema_version": 2, "problems": []}}}}';;
esac
"""
NOT_READY = 'case "$1" in health) exit 1;; esac'
CANNOT_READ = 'case "$1 $2" in "ledger check") exit 1;; esac'


def program(path: Path, instead: str | None = None) -> Path:
    """This program, or one that answers as it does but for what it does `instead`."""
    quick = "" if instead is None else QUICK.format(word=path.name, instead=instead)
    path.write_text(quick or REAL.format(root=shlex.quote(str(ROOT)), python=shlex.quote(sys.executable)))
    path.chmod(0o755)
    return path


@pytest.fixture
def data(here: Path) -> Path:
    folder = here / "data"
    folder.mkdir(mode=0o700)
    open_inline(folder / LEDGER_FILE).close()
    return folder


@pytest.mark.heavy
def test_a_sound_program_is_found_so_and_nothing_is_changed(run: Run, data: Path, tmp_path: Path) -> None:
    new = program(tmp_path / "new")
    before = (data / LEDGER_FILE).read_bytes()
    ran = run("upgrade", "--check", str(new), "--data-dir", str(data), "--json")
    found = {finding["what"]: finding for finding in json.loads(ran.out)}
    assert ran.code == 0, ran.out
    assert f"migrated ({len(MIGRATIONS)} to {len(MIGRATIONS)})" in found["ledger"]["text"]
    assert (found["settings"]["verdict"], found["form"]["verdict"]) == ("good", "good")
    assert (data / LEDGER_FILE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "new"]


def test_what_is_no_program_or_cannot_read_the_ledger_is_refused(run: Run, data: Path, tmp_path: Path) -> None:
    assert run("upgrade", "--check", str(tmp_path / "none")).code == 1
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(0o755)
    ran = run("upgrade", "--check", str(other), "--data-dir", str(data))
    assert (ran.code, "does not run `doctor --self`" in ran.out) == (1, True)
    cannot = """case "$1 $2" in "ledger drill") echo 'schema version 99 is newer' >&2; exit 1;; esac"""
    ran = run("upgrade", "--check", str(program(tmp_path / "new", cannot)), "--data-dir", str(data))
    assert (ran.code, "cannot open a copy of the ledger: schema version 99 is newer" in ran.out) == (1, True)


def test_a_program_is_put_beside_the_one_in_use_and_the_link_names_it(run: Run, data: Path, tmp_path: Path) -> None:
    link = tmp_path / "bin" / "engram"
    link.parent.mkdir()
    for word in ("one", "two"):
        new = program(tmp_path / word, "")
        ran = run("upgrade", str(new), "--link", str(link), "--data-dir", str(data), "--json")
        assert ran.code == 0, ran.err
        assert link.read_text() == new.read_text()
    assert len([path for path in link.parent.iterdir() if not path.is_symlink()]) == 2
    assert os.readlink(link).startswith("engram-0.1.0-")


def test_a_file_in_the_place_of_the_link_is_kept(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "engram").write_text("mine")
    ran = run(
        "upgrade", str(program(tmp_path / "new", "")), "--link", str(tmp_path / "engram"), "--data-dir", str(data)
    )
    assert (ran.code, (tmp_path / "engram").read_text()) == (1, "mine")


def upgraded(run: Run, data: Path, old: str, new: str) -> tuple[int, str, str]:
    """Exit status, the program that the link names in the end, and how often the service was restarted."""
    link, restarts = data.parent / "engram", data.parent / "restarts"
    more = ("--link", str(link), "--data-dir", str(data))
    assert run("upgrade", str(program(data.parent / "old", old)), *more).code == 0
    restart = f"sh -c 'echo x >> {restarts}'"
    ran = run("upgrade", str(program(data.parent / "new", new)), *more, "--restart", restart, "--within-s", "0.1")
    named = "new" if link.read_bytes() == (data.parent / "new").read_bytes() else "old"
    return ran.code, named, restarts.read_text().replace("\n", "")


def test_a_program_that_gets_ready_stays(run: Run, data: Path) -> None:
    assert upgraded(run, data, "", "") == (0, "new", "x")


def test_a_program_that_does_not_get_ready_is_taken_back(run: Run, data: Path) -> None:
    assert upgraded(run, data, "", NOT_READY) == (1, "old", "xx")


def test_the_ledger_goes_back_with_the_program_when_nothing_was_added(run: Run, data: Path) -> None:
    kept = data / f"{LEDGER_FILE}.schema-1"
    (data / LEDGER_FILE).rename(kept)
    open_inline(data / LEDGER_FILE).close()
    assert upgraded(run, data, CANNOT_READ, NOT_READY) == (1, "old", "xxx")
    assert list(data.glob(f"{LEDGER_FILE}.before-restore*"))


def test_the_ledger_stays_when_something_was_added(run: Run, data: Path) -> None:
    kept = data / f"{LEDGER_FILE}.schema-1"
    (data / LEDGER_FILE).rename(kept)
    ledger = open_inline(data / LEDGER_FILE)
    ledger.write_now(lambda connection: connection.exec_driver_sql("INSERT INTO meta VALUES ('more', 'x')"))
    ledger.close()
    code, _, restarts = upgraded(run, data, CANNOT_READ, NOT_READY)
    assert (code, restarts) == (1, "x")
    assert not list(data.glob(f"{LEDGER_FILE}.before-restore*"))
