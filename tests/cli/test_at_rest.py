"""Commands that need no running process: key files, the ledger at rest, versions, the doctor."""

import json
import socket
from pathlib import Path

import pytest

import run as composition
from config import Loaded
from engram.cli import roles
from engram.cli.output import duration, printable, usd
from engram.durable.driver import sqlite3
from engram.hotkeys import wallet
from engram.ledger import LEDGER_FILE, data_folder, open_inline
from tests.cli.conftest import Run


@pytest.fixture
def ledger(here: Path) -> Path:
    (here / "data").mkdir(mode=0o700)
    path = here / "data" / LEDGER_FILE
    open_inline(path).close()
    return path


def test_a_new_hotkey_is_a_private_wallet_file(here: Path, run: Run) -> None:
    made = json.loads(run("hotkeys", "new", "keys/a", "--json").out)
    assert (here / "keys/a").stat().st_mode & 0o777 == 0o600
    keypair = wallet.read_hotkey_file(here / "keys/a")
    assert made == {"ss58": keypair.ss58, "public_key": keypair.public_key.hex(), "path": "keys/a"}
    assert run("hotkeys", "show", "keys/a").lines[0] == ["ss58", keypair.ss58]
    assert keypair.private_key().hex() not in run("hotkeys", "show", "keys/a").out


def test_a_hotkey_is_never_written_over_another(here: Path, run: Run) -> None:
    run("hotkeys", "new", "a")
    before = (here / "a").read_bytes()
    ran = run("hotkeys", "new", "a")
    assert ran.code == 1
    assert "exists already" in ran.err
    assert (here / "a").read_bytes() == before


def test_a_file_that_is_no_hotkey_is_told(here: Path, run: Run) -> None:
    (here / "a").write_text("nonsense")
    assert run("hotkeys", "show", "a").code == 1
    assert run("hotkeys", "show", "missing").code == 1
    (here / "file").write_text("")
    assert run("hotkeys", "new", "file/a").code == 1


def test_a_ledger_at_rest_is_checked_backed_up_and_restored(ledger: Path, here: Path, run: Run) -> None:
    assert run("ledger", "check").code == 0
    assert run("ledger", "backup", "copy.db").code == 0
    checked = json.loads(run("ledger", "check", "copy.db", "--json").out)
    assert checked["problems"] == []
    ran = run("ledger", "restore", "copy.db", "--json")
    assert ran.code == 0
    assert Path(json.loads(ran.out)["former_ledger"]).is_file()
    assert run("ledger", "check").code == 0


def test_sessions_that_are_miscounted_are_a_fault_of_the_ledger(ledger: Path, here: Path, run: Run) -> None:
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE session_counts SET sessions = 7 WHERE state = 'active'")
    connection.close()
    problem = "the count of active sessions is 7, and there are 0: the gateway corrects it when it starts"
    checked = run("ledger", "check", "--json")
    assert (checked.code, json.loads(checked.out)["problems"]) == (1, [problem])
    assert problem in " ".join(run("doctor").out.split())


def test_a_backup_never_replaces_a_file(ledger: Path, here: Path, run: Run) -> None:
    (here / "copy.db").write_text("mine")
    ran = run("ledger", "backup", "copy.db")
    assert ran.code == 1
    assert (here / "copy.db").read_text() == "mine"


def test_a_damaged_ledger_is_told_by_the_exit_code(ledger: Path, here: Path, run: Run) -> None:
    with sqlite3.connect(here / "other.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    ran = run("ledger", "check", "other.db")
    assert ran.code == 1
    assert "not an Engram ledger" in ran.out
    (here / "noise.db").write_bytes(b"noise" * 1000)
    assert run("ledger", "check", "noise.db").code == 1
    assert run("ledger", "restore", "noise.db").code == 1


def test_nothing_is_restored_under_a_running_process(ledger: Path, here: Path, run: Run) -> None:
    run("ledger", "backup", "copy.db")
    with data_folder(here / "data"):
        ran = run("ledger", "restore", "copy.db")
    assert ran.code == 1
    assert "in use by process" in ran.err


def test_versions_are_shown(run: Run) -> None:
    assert json.loads(run("version", "--json").out)["sqlite"] == sqlite3.sqlite_version


def test_the_doctor_names_what_is_bad(here: Path, run: Run) -> None:
    assert run("doctor", "--set", "gateway.port=0", "--set", "ops.port=0").code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = run("doctor", "--set", f"gateway.port={taken.getsockname()[1]}")
    assert ran.code == 0
    assert "cannot be taken" in ran.out
    assert sqlite3.sqlite_version in ran.out
    (here / "data").mkdir(mode=0o755)
    assert "chmod 700" in run("doctor").out
    assert "whoever reaches it reads /status" in run("doctor", "--set", "ops.host=0.0.0.0", "--set", "ops.port=0").out
    bad = run("doctor", "--profile", "mainnet")
    assert bad.code == 1
    assert "X402_RECIPIENT_ADDRESS" in bad.out
    assert "akash.key_file\tis missing: engram akash wallet new" in bad.out


def test_flags_of_a_role_reach_its_surface() -> None:
    listening = roles.Listening(host="127.0.0.2", port=1, ops_port=2, log_level="debug")
    shared = {"ops.port": 2, "log.level": "debug"}
    assert listening.flags("gateway") == {"gateway.host": "127.0.0.2", "gateway.port": 1, **shared}
    assert listening.flags("facilitator") == {"facilitator.host": "127.0.0.2", "facilitator.port": 1, **shared}
    assert listening.flags("miner") == shared


def test_a_role_is_started_with_checked_settings(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[object, ...]] = []

    def start(names: object, loaded: Loaded, *, ready_fd: int | None, launch: Path | None, **_: object) -> int:
        started.append((names, loaded.settings.gateway.port, ready_fd, launch))
        return 7

    monkeypatch.setattr(composition, "main", start)
    assert run("gateway", "--port", "0", "--ready-fd", "2").code == 7
    assert run("run", "gateway", "facilitator").code == 7
    assert run("miner", "--config", "launch.json").code == 7
    assert run("facilitator").code == 7
    assert started == [
        (("gateway",), 0, 2, None),
        (("gateway", "facilitator"), 9000, None, None),
        (("miner",), 9000, None, Path("launch.json")),
        (("facilitator",), 9000, None, None),
    ]


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (-3, "0s"), (61, "1m01s"), (719_940, "199h59m")])
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_money_and_text_have_plain_forms() -> None:
    assert usd(None) == ""
    assert printable("naïve 漢字") == "naïve 漢字"
    assert printable("a\r\nb\x07") == "a  b\\x07"


@pytest.mark.parametrize("command", ["restore", "check"])
def test_a_backup_that_is_not_there_is_not_answered_by_the_advice_to_restore_one(run: Run, command: str) -> None:
    refused = run("ledger", command, "nowhere.db")
    assert refused.code == 1
    assert "there is no file nowhere.db; name one that `engram ledger backup` has written" in refused.err
