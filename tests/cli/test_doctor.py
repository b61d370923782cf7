"""`engram doctor` on a ledger and a SQLite that are right, and that are wrong in one thing each."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection

from engram.cli.doctor import ledger
from engram.cli.doctor.finding import Finding
from engram.durable import driver
from engram.durable.driver import sqlite3
from engram.ledger import LEDGER_FILE, facts, open_inline
from engram.payments import records, reservations
from engram.payments.rules import PaymentEvent
from engram.sessions import Instant
from tests.cli.conftest import Run
from tests.payments import builders

FREE_PORTS = ("--set", "gateway.port=0", "--set", "ops.port=0")


def write(folder: Path, change: Callable[[Connection], object], environment: str = "local") -> Path:
    """A ledger of `environment` in `folder`, changed by `change`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / LEDGER_FILE
    ledger = open_inline(path)
    ledger.write_now(lambda connection: facts.claim_environment(connection, environment))
    ledger.write_now(change)
    ledger.close()
    return path


def found(run: Run, *more: str) -> tuple[int, list[Finding]]:
    ran = run("doctor", "--json", *FREE_PORTS, *more)
    return ran.code, msgspec.json.decode(ran.out, type=list[Finding])


def about(findings: list[Finding], what: str) -> list[Finding]:
    return [finding for finding in findings if finding.what == what]


def reserve(connection: Connection, *events: PaymentEvent, at: float = builders.NOW) -> None:
    reservations.reserve(connection, builders.reservation(created_at=at))
    for event in events:
        records.advance(connection, "payment of a nonce", event, Instant(at, 100.0, "boot-1"))


def test_a_sound_ledger_of_this_environment_is_told_so(here: Path, run: Run) -> None:
    write(here / "data", lambda connection: None)
    code, findings = found(run)
    assert code == 0
    assert [finding.verdict for what in ("ledger", "payments") for finding in about(findings, what)] == ["good"] * 2


def test_a_ledger_of_another_environment_is_a_fault(here: Path, run: Run) -> None:
    write(here / "data", lambda connection: None, environment="testnet")
    code, findings = found(run)
    assert code == 1
    assert "of environment testnet, not local" in about(findings, "ledger")[1].text


def test_a_file_that_is_no_ledger_is_a_fault(here: Path, run: Run) -> None:
    folder = here / "data"
    folder.mkdir(mode=0o700)
    connection = sqlite3.connect(folder / LEDGER_FILE)
    connection.execute("create table notes (text)")
    connection.close()
    code, findings = found(run)
    assert code == 1
    assert "not an Engram ledger" in about(findings, "ledger")[0].text


def test_a_ledger_of_a_newer_program_is_a_fault(here: Path, run: Run) -> None:
    path = write(here / "data", lambda connection: None)
    connection = sqlite3.connect(path)
    connection.execute("pragma user_version = 9999")
    connection.close()
    code, findings = found(run)
    assert code == 1
    assert "newer than this program's" in about(findings, "ledger")[0].text


def test_a_ledger_of_an_older_program_is_brought_up_by_the_next_start(here: Path, run: Run) -> None:
    path = write(here / "data", lambda connection: None)
    connection = sqlite3.connect(path)
    connection.execute("pragma user_version = 1")
    connection.close()
    code, findings = found(run)
    assert code == 0
    assert "next start" in about(findings, "ledger")[0].text
    assert about(findings, "payments") == []


def test_a_ledger_whose_work_cannot_be_read_is_told_so(tmp_path: Path) -> None:
    path = write(tmp_path / "data", lambda connection: None)
    connection = sqlite3.connect(path)
    connection.execute("drop table refunds")
    connection.close()
    assert [one.verdict for one in ledger.ledger(path, "local")] == ["good", "note"]


def test_what_waits_for_the_operator_is_named(tmp_path: Path) -> None:
    now = builders.NOW + 7_200

    def quarantined(connection: Connection) -> None:
        reserve(connection)
        for _ in range(5):
            records.count_crash(connection, "payment of a nonce", builders.NOW)

    def unknown(connection: Connection) -> None:
        reserve(connection, PaymentEvent.VERIFIED, PaymentEvent.UNCLEAR)

    def owed(connection: Connection) -> None:
        reserve(connection, PaymentEvent.VERIFIED, PaymentEvent.SETTLED, PaymentEvent.OWED)

    for name, change, said in (
        ("quarantined", quarantined, "1 payments in quarantine"),
        ("unknown", unknown, "1 payments of unknown outcome"),
        ("owed", owed, "1 refunds of $0.10 in all"),
    ):
        path = write(tmp_path / name, change)
        (waiting,) = [one for one in ledger.ledger(path, "local", lambda: now) if one.what == "payments"]
        assert waiting.verdict == "note"
        assert said in waiting.text


def test_a_payment_that_is_unknown_for_minutes_only_is_no_news(tmp_path: Path) -> None:
    path = write(tmp_path / "data", lambda connection: reserve(connection, PaymentEvent.VERIFIED, PaymentEvent.UNCLEAR))
    found_then = list(ledger.ledger(path, "local", lambda: builders.NOW + 600))
    assert [finding.verdict for finding in found_then] == ["good", "good"]


def test_the_doctor_leaves_a_ledger_in_use_alone(here: Path, run: Run) -> None:
    path = write(here / "data", lambda connection: None)
    using = open_inline(path)
    before = using.write_now(facts.ledger_id)
    code, _ = found(run)
    assert code == 0
    assert using.write_now(facts.ledger_id) == before
    using.close()


@pytest.mark.parametrize(
    ("version", "verdict", "said"),
    [((3, 34, 1), "bad", "too old"), ((3, 40, 1), "note", "WAL-reset"), ((3, 51, 3), "good", "3.51.3")],
)
def test_sqlite_is_judged_by_its_version(version: tuple[int, ...], verdict: str, said: str) -> None:
    finding = ledger.sqlite(".".join(map(str, version)))
    assert finding.verdict == verdict
    assert said in finding.text


def test_the_sqlite_in_use_is_named_and_good() -> None:
    finding = ledger.sqlite()
    assert (finding.verdict, finding.text) == ("good", driver.VERSION)


def test_the_doctors_table_has_a_line_for_each_finding(here: Path, run: Run) -> None:
    write(here / "data", lambda connection: None)
    shown = run("doctor", *FREE_PORTS).out
    _, findings = found(run)
    assert all(finding.what in shown for finding in findings)
    assert len(json.loads(run("doctor", "--json", *FREE_PORTS).out)) == len(findings) >= 10


def test_a_file_where_the_data_folder_should_be_is_a_fault(here: Path, run: Run) -> None:
    (here / "data").write_text("mine")
    code, findings = found(run)
    assert code == 1
    assert "is a file, not a folder" in about(findings, "data folder")[0].text
