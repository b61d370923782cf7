"""`engram upgrade` with programs that are sound, that are none, and that never get ready."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection

from engram.cli.operate import programs
from engram.ledger import LEDGER_FILE, facts, open_inline
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


class Ended(msgspec.Struct):
    """How an upgrade ended."""

    code: int
    named: str
    """The program that the link names."""
    restarts: str
    """An x for each restart of the service."""
    out: str
    err: str


def upgraded(run: Run, data: Path, old: str, new: str, second: str = "") -> Ended:
    """Upgrade from `old` to `new`; `second` is done by the second restart, while the newer program still runs."""
    link, restarts, restart = data.parent / "engram", data.parent / "restarts", data.parent / "restart"
    more = ("--link", str(link), "--data-dir", str(data))
    assert run("upgrade", str(program(data.parent / "old", old)), *more).code == 0
    restart.write_text(f"#!/bin/sh\necho x >> {restarts}\n[ $(wc -l < {restarts}) != 2 ] || {second or 'true'}\n")
    restart.chmod(0o755)
    ran = run("upgrade", str(program(data.parent / "new", new)), *more, "--restart", str(restart), "--within-s", "0.1")
    named = "new" if link.read_bytes() == (data.parent / "new").read_bytes() else "old"
    return Ended(ran.code, named, restarts.read_text().replace("\n", ""), ran.out, ran.err)


def outcome(ended: Ended) -> tuple[int, str, str]:
    return ended.code, ended.named, ended.restarts


def test_a_program_that_gets_ready_stays(run: Run, data: Path) -> None:
    assert outcome(upgraded(run, data, "", "")) == (0, "new", "x")


def test_a_program_that_does_not_get_ready_is_taken_back(run: Run, data: Path) -> None:
    ended = upgraded(run, data, "", NOT_READY)
    assert outcome(ended) == (1, "old", "xx")
    assert "in_use" in ended.out
    assert "ready\tTrue" in ended.out


def test_a_former_program_that_is_not_ready_either_is_told_so(run: Run, data: Path) -> None:
    ended = upgraded(run, data, NOT_READY, NOT_READY)
    assert outcome(ended) == (1, "old", "xx")
    assert "ready\tFalse" in ended.out


def test_a_service_without_a_ledger_is_not_restarted(run: Run, here: Path) -> None:
    (here / "data").mkdir(mode=0o700)
    more = ("--link", str(here / "engram"), "--data-dir", str(here / "data"), "--restart", "false")
    ran = run("upgrade", str(program(here / "new", "")), *more)
    assert (ran.code, (here / "engram").exists()) == (1, False)
    assert "there is none at" in ran.out
    assert "name the folder of the service" in ran.out


def migrated(data: Path, *statements: str) -> str:
    """Let the ledger be one that the newer program has migrated and then changed; return what the former cannot do."""
    ledger = data / LEDGER_FILE
    shutil.copy(ledger, data / f"{LEDGER_FILE}.schema-1")
    written(ledger, *statements)
    return f"""case "$1 $2 $3" in "ledger check {ledger}") exit 1;; esac"""


def written(ledger: Path, *statements: str) -> None:
    opened = open_inline(ledger)
    for statement in statements:
        opened.write_now(partial(Connection.exec_driver_sql, statement=statement))
    opened.close()


def was_restored(data: Path) -> bool:
    return bool(list(data.glob(f"{LEDGER_FILE}.before-restore*")))


REALLY_DRILLS = f"""case "$1 $2" in "ledger drill")
    cd {shlex.quote(str(ROOT))} && exec {shlex.quote(sys.executable)} -P -m engram "$@";; esac"""


@pytest.mark.heavy
def test_the_ledger_goes_back_with_the_program_when_nothing_was_written(run: Run, data: Path) -> None:
    ended = upgraded(run, data, migrated(data), f"{NOT_READY}\n{REALLY_DRILLS}")
    assert (outcome(ended), was_restored(data)) == ((1, "old", "xxx"), True), ended.err


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("INSERT INTO meta VALUES ('more', 'x')", id="a row more", marks=pytest.mark.heavy),
        pytest.param("UPDATE meta SET value = 'settled' WHERE key = 'ledger_id'", id="a row changed"),
    ],
)
def test_the_ledger_stays_when_something_was_written(run: Run, data: Path, statement: str) -> None:
    ended = upgraded(run, data, migrated(data, statement), f"{NOT_READY}\n{REALLY_DRILLS}")
    assert (outcome(ended), was_restored(data)) == ((1, "new", "xxx"), False)
    assert "in use again and is not ready" in ended.err


def test_a_purchase_acknowledged_while_the_newer_program_ends_is_kept(run: Run, data: Path) -> None:
    purchase = data.parent / "purchase.py"
    purchase.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
        f"from tests.cli.test_upgrade import written\n"
        f"written(Path({str(data / LEDGER_FILE)!r}), \"INSERT INTO meta VALUES ('purchase', 'acknowledged')\")\n"
    )
    second = f"{shlex.quote(sys.executable)} {purchase}"
    ended = upgraded(run, data, migrated(data), f"{NOT_READY}\n{REALLY_DRILLS}", second)
    assert (outcome(ended), was_restored(data)) == ((1, "new", "xxx"), False)
    assert read(data / LEDGER_FILE, "purchase") == "acknowledged"


def test_of_several_copies_the_one_goes_back_that_the_former_program_reads(run: Run, data: Path) -> None:
    cannot = migrated(data)
    shutil.copy(data / LEDGER_FILE, data / f"{LEDGER_FILE}.schema-2")  # half way through the migration, and newer
    written(data / f"{LEDGER_FILE}.schema-2", "INSERT INTO meta VALUES ('half', 'x')")
    cannot += f"""\ncase "$1 $2 $3" in "ledger check {data / LEDGER_FILE}.schema-2") exit 1;; esac"""
    ended = upgraded(run, data, cannot, f"{NOT_READY}\n{REALLY_DRILLS}")
    assert (outcome(ended), was_restored(data)) == ((1, "old", "xxx"), True), ended.err
    assert read(data / LEDGER_FILE, "half") is None


def read(ledger: Path, key: str) -> str | None:
    opened = open_inline(ledger)
    try:
        found: str | None = opened.write_now(lambda connection: facts.get(connection, key))
    finally:
        opened.close()
    return found


def test_programs_that_nothing_needs_are_removed_after_an_upgrade(run: Run, data: Path) -> None:
    link = data.parent / "engram"
    more = ("--link", str(link), "--data-dir", str(data), "--restart", "true")
    (data.parent / "engram-notes").write_text("mine")
    for word in ("one", "two", "three"):
        ran = run("upgrade", str(program(data.parent / word, "")), *more, "--json")
        assert ran.code == 0, ran.err
    placed = json.loads(ran.out)
    kept = {path.name for path in data.parent.glob("engram-*")}
    assert kept == {"engram-notes", Path(placed["program"]).name, placed["former"]}
    assert len(placed["removed"]) == 1


def unpacked(cache: Path, name: str) -> Path:
    """A folder as the one file leaves it, with a program that runs for long."""
    home = cache / name
    home.mkdir(parents=True)
    (cache / ".lock").touch()
    shutil.copy(shutil.which("sleep") or "/bin/sleep", home / "engram")
    return home


def one_file(path: Path, name: str) -> Path:
    path.write_bytes(b"\0" * 100 + name.encode() + b"ENGRAM02")
    return path


def test_unpacked_folders_stay_while_a_process_runs_from_them_or_the_link_or_the_way_back_names_them(
    tmp_path: Path,
) -> None:
    cache, link, owners = tmp_path / "cache", tmp_path / "engram", {os.geteuid()}
    running, current, former, old, broken = (unpacked(cache, name * 64) for name in "abcde")
    broken = broken.rename(cache / f".broken-{'e' * 64}-1")
    (cache / "notes").mkdir()
    node = one_file(tmp_path / f"engram-0.1.0-{'1' * 12}", "a" * 64)
    names = {one_file(tmp_path / f"engram-0.1.0-{word * 12}", word * 64).name for word in "bc"}
    with subprocess.Popen([str(running / "engram"), "600"]) as process:
        assert set(programs.prune(link, names, {os.geteuid() + 1})) == set()
        assert set(programs.prune(link, names, owners)) == {str(old), str(broken)}
        assert (node.exists(), current.exists(), former.exists()) == (True, True, True)
        process.kill()
    assert {path.name for path in cache.iterdir()} == {".lock", "notes", "a" * 64, "b" * 64, "c" * 64}
    assert set(programs.prune(link, names, owners)) == {str(node)}
