"""What an operator does with a node's folder while the node is down: check, copy, put back, save, take along, erase."""

import base64
import contextlib
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio

from engram.durable.driver import sqlite3
from engram.memory.errors import TruthUnavailable
from engram.memory.search import derived_file, words_db
from engram.memory.store.notebook_db import Notebook
from engram.memory.upkeep import backups, data_files
from engram.memory.upkeep.data_files import NOTEBOOK, TRUTH, StoreDamaged
from engram.miner import folder
from engram.miner.errors import RecordsMissing
from tests.cli.conftest import Run
from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.endpoints import attested, deposit
from tests.miner.nodes import CONTROLLER, encoded, serving, signed
from tests.shared import NO_MOUNT

PUBLIC, PRIVATE = 40, 20
ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(here: Path) -> Path:
    """The folder of a node that was used and is down."""
    path = here / "node"
    path.mkdir(mode=0o700)
    trio.run(_use, path)
    return path


async def _use(path: Path) -> None:
    async with serving(path) as service:
        for number in range(PUBLIC):
            await endpoints.ingest(service, encoded({"text": f"otter {number}", "metadata": {"n": number}}))
        for number in range(PRIVATE):
            body = {"text": f"secret {number}", "namespace": "notes"}
            assert (await endpoints.ingest(service, signed(CONTROLLER, "IngestSynapse", body))).body["error"] is None
        assert (await deposit(service, CONTROLLER, "vault")).status == 200
        said = {"user_id": "u", "messages": [{"role": "user", "content": "hello otter", "ts": 1}]}
        assert (await endpoints.save_chat(service, signed(CONTROLLER, "SaveChat", said))).status == 200
        assert (await endpoints.attest(service, attested(CONTROLLER, "notes"))).status == 200


def verified(run: Run, data: Path) -> tuple[int, dict[str, Any]]:
    ran = run("miner", "verify", str(data), "--json")
    return ran.code, json.loads(ran.out)


def roots(run: Run, data: Path) -> tuple[Any, ...]:
    code, told = verified(run, data)
    assert (code, told["sound"]) == (0, True)
    return tuple(told[name] for name in ("records", "public_root", "whole_root", "key_shares", "conversations"))


def test_a_sound_folder_is_told_with_its_roots(data: Path, run: Run) -> None:
    code, told = verified(run, data)
    assert (code, told["sound"], told["node"]) == (0, True, "not running")
    assert (told["records"], told["public_records"]) == (PUBLIC + PRIVATE, PUBLIC)
    assert (told["key_shares"], told["conversations"], told["attestations"]) == (1, 1, 1)
    assert ["records", str(PUBLIC + PRIVATE)] in run("miner", "verify", str(data)).lines


def change(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def cids(data: Path) -> list[str]:
    with data_files.reading(data / TRUTH) as connection:
        return [row[0] for row in connection.execute("SELECT cid FROM records ORDER BY id")]


@pytest.mark.parametrize(
    ("statement", "value", "reason"),
    [
        ("UPDATE records SET embedding = ? WHERE id = 7", b"\0" * 4 * DIMENSION, "vector and metadata give v1::"),
        ("UPDATE records SET metadata = ? WHERE id = 7", '{"n":"8"}', "vector and metadata give v1::"),
        ("UPDATE records SET metadata = ? WHERE id = 7", "nonsense", "no JSON object"),
        ("UPDATE records SET model_version = ? WHERE id = 7", "v9", "vector and metadata give v1::"),
    ],
)
def test_a_record_that_is_not_what_its_cid_says_is_named(
    data: Path, run: Run, statement: str, value: object, reason: str
) -> None:
    bad = cids(data)[6]
    change(data / TRUTH, statement, value)
    code, told = verified(run, data)
    assert (code, told["sound"], told["bad_records"]) == (1, False, 1)
    assert told["bad"][0]["cid"] == bad
    assert reason in told["bad"][0]["reason"]
    assert bad in run("miner", "verify", str(data)).err


@pytest.mark.parametrize(
    ("statement", "value", "told"),
    [
        ("UPDATE key_shares SET share_hex = ?", "zz", "vault"),
        ("UPDATE conversations SET messages = ?", "[5]", "default"),
        ("UPDATE attestations SET owner = ?", b"short", "notes"),
    ],
)
def test_a_row_of_the_notebook_that_makes_no_sense_is_named(
    data: Path, run: Run, statement: str, value: object, told: str
) -> None:
    change(data / NOTEBOOK, statement, value)
    code, found = verified(run, data)
    assert code == 1
    assert told in found["problems"][0]


def test_a_backup_has_everything_and_is_restored_elsewhere(data: Path, here: Path, run: Run) -> None:
    made = json.loads(run("miner", "backup", str(data), "copy", "--json").out)
    assert made["records"] == PUBLIC + PRIVATE
    assert {path.stat().st_mode & 0o077 for path in (here / "copy").iterdir()} <= {0, 0o044}
    assert run("miner", "restore", "copy", "other").code == 0
    assert roots(run, here / "other") == roots(run, data)
    assert not list((here / "other").glob("before-restore*"))


def test_a_backup_is_refused_where_it_would_be_lost_or_overwrite(data: Path, here: Path, run: Run) -> None:
    (here / "mine").mkdir()
    assert "exists already" in run("miner", "backup", str(data), "mine").err
    assert "inside the node's own folder" in run("miner", "backup", str(data), str(data / "copy")).err
    assert run("miner", "backup", "nowhere", "copy").code == 1
    assert not (here / "copy").exists()


def test_nothing_is_restored_over_records_unless_forced_and_then_they_are_kept(
    data: Path, here: Path, run: Run
) -> None:
    before = roots(run, data)
    assert run("miner", "backup", str(data), "copy").code == 0
    (data / "index").mkdir()
    (data / "index" / "mark.json").write_text("{}")
    change(data / TRUTH, "DELETE FROM records WHERE id > 5")
    assert "--force" in run("miner", "restore", "copy", str(data)).err
    assert verified(run, data)[1]["records"] == 5
    told = json.loads(run("miner", "restore", "copy", str(data), "--force", "--json").out)
    assert roots(run, data) == before
    assert verified(run, Path(told["former_files"]))[1]["records"] == 5
    assert not (data / "index").exists()  # of other records


def test_an_index_that_knew_more_is_not_believed_after_a_restore(data: Path, run: Run) -> None:
    def truth_id() -> str:
        with data_files.reading(data / TRUTH) as connection:
            return str(connection.execute("SELECT value FROM meta WHERE key = 'truth_id'").fetchone()[0])

    former = truth_id()
    run("miner", "backup", str(data), "copy")
    assert run("miner", "restore", "copy", str(data), "--force").code == 0
    assert truth_id() != former


def test_a_damaged_backup_is_refused_with_everything_as_it_was(data: Path, here: Path, run: Run) -> None:
    run("miner", "backup", str(data), "copy")
    before = roots(run, data)
    content = bytearray((here / "copy" / TRUTH).read_bytes())
    content[len(content) // 2] ^= 1
    (here / "copy" / TRUTH).write_bytes(content)
    ran = run("miner", "restore", "copy", str(data), "--force")
    assert ran.code == 1
    assert "not the file that was backed up" in ran.err
    assert roots(run, data) == before
    assert run("miner", "restore", str(here), "other").code == 1


class Crash(BaseException):
    """Nothing handles it."""


@pytest.mark.parametrize("crash_at", range(8))
def test_a_restore_that_is_cut_off_is_whole_or_never_was(
    data: Path, here: Path, run: Run, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("miner", "backup", str(data), "copy")
    change(data / TRUTH, "DELETE FROM records WHERE id > 5")
    derived_file.remove(data / words_db.FILE)  # how far they had followed was chance
    calls = iter(range(100))
    rename = Path.rename

    def dying(self: Path, target: Path) -> Path:
        if next(calls) == crash_at:
            raise Crash
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dying)
        with contextlib.suppress(Crash):
            run("miner", "restore", "copy", str(data), "--force")
    with folder.claim(data):  # what the node does first
        pass
    code, told = verified(run, data)
    assert (code, told["records"]) == (0, 5 if crash_at == 0 else PUBLIC + PRIVATE), told["problems"]
    assert not (data / data_files.RESTORING).exists()


def test_what_changes_a_folder_refuses_over_a_node_that_has_it(data: Path, run: Run) -> None:
    run("miner", "backup", str(data), "copy")
    with folder.claim(data):
        for command in (
            ("restore", "copy", str(data), "--force"),
            ("repair", str(data)),
            ("erase", str(data), "--yes"),
            ("reindex", str(data)),
        ):
            ran = run("miner", *command)
            assert (ran.code, "in use" in ran.err) == (1, True), command
    assert verified(run, data)[0] == 0


def damage(path: Path, share: float) -> None:
    """Overwrites one page somewhere in the file, not its first."""
    size = path.stat().st_size
    page = max(4_096, int(size * share) // 4_096 * 4_096)
    with open(path, "r+b") as file:
        file.seek(page)
        file.write(os.urandom(4_096))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_what_is_whole_of_a_damaged_database_is_saved(data: Path, run: Run, share: float) -> None:
    there = set(cids(data))
    damage(data / TRUTH, share)
    assert verified(run, data)[0] == 1
    told = json.loads(run("miner", "repair", str(data), "--json").out)
    code, found = verified(run, data)
    assert (code, found["sound"]) == (0, True)
    assert set(cids(data)) <= there
    assert told["records"] == found["records"] == len(cids(data))
    assert found["records"] > 0
    assert (told["key_shares"], told["conversations"], told["attestations"]) == (1, 1, 1)
    assert (Path(told["kept_in"]) / TRUTH).is_file()


def test_a_record_that_is_wrong_is_dropped_by_a_repair(data: Path, run: Run) -> None:
    change(data / TRUTH, "UPDATE records SET embedding = ? WHERE id = 7", b"\0" * 4 * DIMENSION)
    told = json.loads(run("miner", "repair", str(data), "--json").out)
    assert (told["records"], told["dropped"]) == (PUBLIC + PRIVATE - 1, 1)
    assert verified(run, data)[0] == 0


def test_a_repair_of_what_is_whole_changes_nothing_that_counts(data: Path, run: Run) -> None:
    before = roots(run, data)
    assert run("miner", "repair", str(data)).code == 0
    assert roots(run, data) == before


def test_what_cannot_be_read_at_all_is_refused_with_the_command_that_helps(data: Path, run: Run) -> None:
    content = b"this is no database" * 1_000
    (data / TRUTH).write_bytes(content)
    assert "engram miner restore" in verified(run, data)[1]["problems"][0]
    ran = run("miner", "repair", str(data))
    assert ran.code == 1
    assert "engram miner restore" in ran.err
    assert (data / TRUTH).read_bytes() == content


def test_a_torn_notebook_is_told_with_the_command_that_helps(data: Path) -> None:
    damage(data / NOTEBOOK, 0.5)
    with pytest.raises(Exception, match="engram miner repair"):
        Notebook.open(data / NOTEBOOK)


def test_records_that_are_gone_are_not_replaced_by_none(data: Path, run: Run) -> None:
    folder.refuse_lost(data)
    (data / "index").mkdir()
    (data / "index" / "mark.json").write_text("{}")
    (data / TRUTH).write_bytes(b"")
    with pytest.raises(RecordsMissing, match="engram miner restore"):
        folder.refuse_lost(data)
    assert "truth.db is empty" in run("miner", "verify", str(data)).err


def exported(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_export_has_every_store(data: Path, here: Path, run: Run) -> None:
    ran = run("miner", "export", str(data), "all.jsonl")
    assert (ran.code, f"{PUBLIC + PRIVATE + 3} documents" in ran.err) == (0, True)
    assert (here / "all.jsonl").stat().st_mode & 0o777 == 0o600
    documents = exported(here / "all.jsonl")
    records = [each for each in documents if each["kind"] == "record"]
    assert [each["cid"] for each in records] == cids(data)
    assert (records[0]["text"], records[0]["metadata"], records[0]["is_public"]) == ("otter 0", {"n": "0"}, True)
    assert len(base64.b64decode(records[0]["embedding_b64"])) == 4 * DIMENSION
    assert {each["namespace"] for each in records[PUBLIC:]} == {"notes"}
    (chat,) = [each for each in documents if each["kind"] == "conversation"]
    assert (chat["messages"][0]["content"], chat["owner"]) == ("hello otter", CONTROLLER.public_key.hex())
    assert [each["share_hex"] for each in documents if each["kind"] == "key_share"] == ["c0ffee"]
    assert [each["namespace"] for each in documents if each["kind"] == "attestation"] == ["notes"]
    assert run("miner", "export", str(data), "-").out == (here / "all.jsonl").read_text()
    assert run("miner", "export", str(data), "all.jsonl").code == 1


def test_parquet_without_its_library_says_what_to_install(
    data: Path, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = run("miner", "export", str(data), "all.parquet")
    assert (ran.code, "pip install 'engram[parquet]'" in ran.err) == (1, True)
    assert not (here / "all.parquet").exists()


def test_parquet_has_the_same(data: Path, here: Path, run: Run) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    assert run("miner", "export", str(data), "all.parquet").code == 0
    rows = pq.read_table(here / "all.parquet").to_pylist()
    assert [row["cid"] for row in rows if row["kind"] == "record"] == cids(data)
    with data_files.reading(data / TRUTH) as connection:
        (stored,) = connection.execute("SELECT embedding FROM records WHERE id = 1").fetchone()
    assert struct.pack(f"<{DIMENSION}f", *rows[0]["embedding"]) == stored
    assert json.loads(rows[-3]["document"])["messages"][0]["content"] == "hello otter"


def test_nothing_is_left_after_erasing(data: Path, here: Path, run: Run) -> None:
    outside = here / "outside"
    outside.mkdir()
    (outside / "other").write_text("not the node's")
    (data / "link").symlink_to(outside)
    (data / "shared").hardlink_to(outside / "other")
    kept_open = [open(path, "rb") for path in (data / TRUTH, data / NOTEBOOK)]  # noqa: SIM115 -- read after unlinking
    told = json.loads(run("miner", "erase", str(data), "--yes", "--json").out)
    assert not data.exists()
    assert told["shared"] == [str(data / "shared")]
    assert (outside / "other").read_text() == "not the node's"
    for file in kept_open:
        assert file.read() == b""
        file.close()


def test_erasing_is_agreed_to_and_only_for_a_node(data: Path, here: Path, run: Run) -> None:
    ran = run("miner", "erase", str(data))
    assert (ran.code, "nothing was erased" in ran.err) == (1, True)
    (here / "photos").mkdir()
    assert "no data folder" in run("miner", "erase", "photos", "--yes").err
    assert (here / "photos").exists()
    assert verified(run, data)[0] == 0


def test_a_database_that_is_busy_is_not_called_damaged(data: Path) -> None:
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    with pytest.raises(TruthUnavailable), data_files.reading(data / TRUTH):
        raise busy
    with pytest.raises(StoreDamaged), data_files.reading(data / TRUTH) as connection:
        connection.execute("SELECT * FROM nowhere")


def test_a_backup_is_made_of_one_moment(data: Path, here: Path) -> None:
    """Writes that come between two pages of the copy are not in it."""
    writer = sqlite3.connect(data / TRUTH)
    told: list[int] = []

    def write(done: int, total: int) -> None:
        told.append(done)
        with writer:
            writer.execute("DELETE FROM records WHERE id = (SELECT min(id) FROM records)")

    made = backups.back_up(data, here / "copy", 1.0, write)
    writer.close()
    assert told
    assert made.records == PUBLIC + PRIVATE
    assert backups.check(here / "copy") == made


def test_a_terminal_shows_how_far_it_is_and_a_pipe_does_not(data: Path) -> None:
    command = [sys.executable, "-c", "import sys; from engram.cli import main; sys.exit(main(sys.argv[1:]))"]
    command += ["miner", "verify", str(data), "--json"]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=True, cwd=ROOT)
        os.close(theirs)
        shown = terminal.read(65_536)
    assert b"records" in shown
    assert f"{PUBLIC + PRIVATE}/{PUBLIC + PRIVATE}".encode() in shown
    piped = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    assert piped.stderr == b""
    assert json.loads(piped.stdout)["records"] == PUBLIC + PRIVATE


@pytest.mark.serial
@pytest.mark.parametrize("disk", ["read-only", "full"])
def test_memory_is_saved_from_a_disk_that_cannot_be_written(
    data: Path, here: Path, run: Run, disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = here / "disk"
    for path in (place, here / "temporary"):
        path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here / "temporary"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True).returncode:
        pytest.skip(NO_MOUNT)
    try:
        ended = place / "node"
        shutil.copytree(data, ended)
        with contextlib.closing(sqlite3.connect(data / TRUTH)) as truth:
            truth.execute("DELETE FROM records WHERE id = 1")
            truth.commit()  # on the disk that is to end, in the log alone
            shutil.copyfile(data / f"{TRUTH}-wal", ended / f"{TRUTH}-wal")
        before = roots(run, data)
        assert before[0] == PUBLIC + PRIVATE - 1
        if disk == "full":
            with open(place / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4_096)
        else:
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        assert roots(run, ended) == before
        assert run("miner", "backup", str(ended), "saved").code == 0
        assert run("miner", "export", str(ended), "saved.jsonl").code == 0
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert json.loads(run("miner", "restore", "saved", "other", "--json").out)["records"] == before[0]
    assert not list((here / "temporary").iterdir())
