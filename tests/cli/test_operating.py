"""Operators' commands reach the running process, show its answers, and tell its refusals."""

import csv
import io
import json
import re
import sys
from pathlib import Path

import msgspec
import pytest

from engram.chain.model import ChainStatus
from engram.control.commands import (
    AddNodeKey,
    AnyCommand,
    BackupLedger,
    DiscardDeadLetter,
    ListDeadLetters,
    ListNodeKeys,
    ListPayments,
    ListSessions,
    NoteRefund,
    ParkEntry,
    RetireNodeKey,
    RetryDeadLetter,
    SetSelling,
    ShowDeadLetter,
    ShowPayment,
    ShowSession,
    StopSession,
)
from engram.control.errors import CommandRefused
from engram.control.model import (
    AttemptRow,
    BackupMade,
    DeadLetterDetail,
    DeadLetterRow,
    Done,
    EventRow,
    NodeKeyRow,
    PaymentDetail,
    PaymentPage,
    PaymentRow,
    RefundRow,
    SessionDetail,
    SessionPage,
    SessionRow,
    SystemStatus,
    TreeNode,
)
from engram.relay.model import RelayStatus
from tests.cli.conftest import Run
from tests.fakes.control import HangUp, control_server


def session(session_id: str, **changes: object) -> SessionRow:
    values: dict[str, object] = {
        "session_id": session_id,
        "controller_hotkey": "5Phone",
        "status": "active",
        "tier": "lite",
        "created_at": 1_716_000_000.0,
        "expires_at": 1_716_003_600.0,
        "remaining_s": 3_600.0,
        "amount_usd": 0.1,
        "node_endpoint": "http://127.0.0.1:18100",
        "node_hotkey": "5Node",
        "end_reason": None,
        "error": None,
        "crashes": 0,
        "quarantined_at": None,
    }
    return SessionRow(**values | changes)  # type: ignore[arg-type]  # a test's shorthand


def payment(payment_id: str, **changes: object) -> PaymentRow:
    values: dict[str, object] = {
        "payment_id": payment_id,
        "state": "settled",
        "kind": "session",
        "session_id": "s1",
        "controller_hotkey": "5Phone",
        "network": "engram-play",
        "payer": "0xpayer",
        "pay_to": "0xus",
        "amount_usd": 0.1,
        "amount_atomic": 100_000,
        "hours": 1.0,
        "transaction": "0xabc",
        "reason": None,
        "created_at": 1_716_000_000.0,
        "settled_at": 1_716_000_001.0,
        "crashes": 0,
        "quarantined_at": None,
    }
    return PaymentRow(**values | changes)  # type: ignore[arg-type]  # a test's shorthand


LETTER = DeadLetterRow(
    id=7,
    kind="memory",
    output_hash="ab",
    block=9,
    state="abandoned",
    attempts=10,
    next_attempt_at=0.0,
    last_reason="http_500",
    created_at=1_716_000_000.0,
    updated_at=1_716_000_000.0,
)


@pytest.fixture
def data(here: Path) -> Path:
    folder = here / "data"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "argv",
    [
        ["sessions", "list"],
        ["payments", "export", "--csv"],
        ["selling", "off"],
        ["hotkeys", "pool", "list"],
        ["relay", "dlq", "list"],
        ["status"],
        ["ledger", "backup", "x.db"],
    ],
    ids=" ".join,
)
def test_without_a_process_nothing_is_done_and_the_code_says_so(argv: list[str], run: Run) -> None:
    ran = run(*argv)
    assert ran.code == 3
    assert "start it first" in ran.err


def test_all_pages_of_sessions_are_listed(data: Path, run: Run) -> None:
    def answer(command: AnyCommand) -> object:
        assert isinstance(command, ListSessions)
        first = SessionPage([session("s1")], after="s1")
        return SessionPage([session("s2", status="stopped", quarantined_at=0.0)], after="") if command.after else first

    with control_server(data, answer) as came:
        ran = run("sessions", "list", "--state", "active")
        document = json.loads(run("sessions", "list", "--json").out)
    assert [line[0] for line in ran.lines] == ["session", "s1", "s2"]
    assert ran.lines[1][1:5] == ["active", "lite", "1h00m", "0.10"]
    assert ran.lines[2][-1] == "1970-01-01T00:00:00Z"
    assert [row["session_id"] for row in document] == ["s1", "s2"]
    assert came[:2] == [ListSessions(state="active"), ListSessions(state="active", after="s1")]


def test_what_a_node_or_client_wrote_cannot_move_the_cursor_or_forge_a_line(data: Path, run: Run) -> None:
    evil = "\x1b[2J\ts3\nforged\u202e"
    detail = SessionDetail(
        session("s1", error=evil), [EventRow(1, 1_716_000_000.0, "state", {"error": evil})], [payment("p1")]
    )
    with control_server(data, lambda _: detail):
        ran = run("sessions", "show", "s1")
        listed = json.loads(run("sessions", "show", "s1", "--json").out)
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out
    assert "\nforged" not in ran.out
    assert listed["session"]["error"] == evil


def test_a_session_is_shown_with_history_and_payments(data: Path, run: Run) -> None:
    detail = SessionDetail(session("s1"), [EventRow(1, 1_716_000_000.0, "state", {"to": "active"})], [payment("p1")])
    with control_server(data, lambda _: detail) as came:
        ran = run("sessions", "show", "s1")
    assert came == [ShowSession(session_id="s1")]
    assert ["2024-05-18T02:40:00Z", "state", "to=active"] in ran.lines
    assert ["p1", "settled", "0.10"] in ran.lines


@pytest.mark.parametrize(
    ("argv", "command", "told"),
    [
        (["sessions", "stop", "s1"], StopSession(session_id="s1"), "s1 is stopping"),
        (["selling", "on"], SetSelling(on=True), "selling is on"),
        (["selling", "off"], SetSelling(on=False), "selling is off"),
        (["relay", "dlq", "retry", "7"], RetryDeadLetter(id=7), "will be sent again"),
        (["relay", "dlq", "retry", "--all"], RetryDeadLetter(id=None), "will be sent again"),
        (["relay", "dlq", "discard", "7"], DiscardDeadLetter(id=7), "7 is discarded"),
        (["relay", "dlq", "park", "7"], ParkEntry(id=7), "7 is parked"),
        (["hotkeys", "pool", "retire", "5Node"], RetireNodeKey(hotkey="5Node"), "5Node is retired"),
    ],
)
def test_a_command_is_carried_out_and_told(
    argv: list[str], command: AnyCommand, told: str, data: Path, run: Run
) -> None:
    with control_server(data, lambda _: Done(changed=True)) as came:
        ran = run(*argv)
        document = json.loads(run(*argv, "--json").out)
    assert (ran.code, ran.out) == (0, f"{told}\n")
    assert document == {"changed": True, "message": ""}
    assert came == [command, command]


def test_when_nothing_had_to_be_changed_that_is_told(data: Path, run: Run) -> None:
    with control_server(data, lambda _: Done(changed=False)):
        assert run("selling", "on").out == "nothing to change\n"
    (data / "control.sock").unlink()
    with control_server(data, lambda _: Done(changed=False, message="it was on")):
        assert run("selling", "on").out == "it was on\n"


def test_a_refusal_is_told_in_its_words(data: Path, run: Run) -> None:
    def refuse(_: AnyCommand) -> object:
        raise CommandRefused("not_found", "there is no session s9")

    with control_server(data, refuse):
        ran = run("sessions", "stop", "s9")
    assert (ran.code, ran.out, ran.err) == (1, "", "engram: there is no session s9\n")


def test_a_process_that_goes_away_leaves_the_outcome_unknown(data: Path, run: Run) -> None:
    def vanish(_: AnyCommand) -> object:
        raise HangUp

    with control_server(data, vanish):
        ran = run("sessions", "stop", "s1")
    assert ran.code == 4
    assert "see what it did" in ran.err


def test_payments_are_exported_for_the_books(data: Path, run: Run) -> None:
    pages = {
        None: PaymentPage([payment("p2", reason='=HYPERLINK("x")')], before=5.0),
        5.0: PaymentPage([payment("p1")], None),
    }

    def answer(command: AnyCommand) -> object:
        assert isinstance(command, ListPayments)
        return pages[command.before]

    with control_server(data, answer):
        ran = run("payments", "export", "--csv")
        document = json.loads(run("payments", "export").out)
        listed = run("payments", "list").lines
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["payment_id"] for row in rows] == ["p2", "p1"]
    assert rows[0]["reason"] == '\'=HYPERLINK("x")'
    assert rows[0]["created_at"] == "2024-05-18T02:40:00Z"
    assert [row["payment_id"] for row in document] == ["p2", "p1"]
    assert [line[0] for line in listed] == ["payment", "p2", "p1"]


def test_a_payment_is_shown_with_its_refunds(data: Path, run: Run) -> None:
    refund = RefundRow(number=1, state="due", address="0xpayer", amount_usd=0.05, reason="no node", transaction=None)
    with control_server(data, lambda _: PaymentDetail(payment("p1"), [refund])) as came:
        ran = run("payments", "show", "p1")
        document = json.loads(run("payments", "show", "p1", "--json").out)
    assert came[0] == ShowPayment(payment_id="p1")
    assert ["settled_at", "2024-05-18T02:40:01Z"] in ran.lines
    assert ["reason", "no node"] in ran.lines
    assert document["refunds"][0]["amount_usd"] == 0.05


def test_a_refund_that_was_sent_by_hand_is_noted(data: Path, run: Run) -> None:
    with control_server(data, lambda _: Done(True, "")) as came:
        ran = run("payments", "refunded", "p1", "--part", "1", "--transaction", "0x" + "ab" * 32)
    assert came == [NoteRefund(payment_id="p1", number=1, transaction="0x" + "ab" * 32)]
    assert ran.code == 0


def test_dead_letters_are_listed_and_shown(data: Path, run: Run) -> None:
    def answer(command: AnyCommand) -> object:
        match command:
            case ListDeadLetters():
                return [LETTER] if command.after == 0 else []
            case ShowDeadLetter():
                return DeadLetterDetail(LETTER, "{}", [AttemptRow(1_716_000_000.0, "http_500", 500)])
            case _:
                raise AssertionError(command)

    with control_server(data, answer):
        listed = run("relay", "dlq", "list")
        detail = run("relay", "dlq", "show", "7")
        document = json.loads(run("relay", "dlq", "show", "7", "--json").out)
    assert listed.lines[1][:5] == ["7", "memory", "9", "abandoned", "10"]
    assert ["2024-05-18T02:40:00Z", "http_500", "500"] in detail.lines
    assert document["entry"]["id"] == 7


def test_keys_are_added_by_their_absolute_paths(data: Path, here: Path, run: Run) -> None:
    with control_server(data, lambda _: Done(changed=True)) as came:
        ran = run("hotkeys", "pool", "add", "keys/a", "keys/b")
    assert came == [AddNodeKey(path=str(here / "keys/a")), AddNodeKey(path=str(here / "keys/b"))]
    assert ran.out == "keys/a is in the pool\nkeys/b is in the pool\n"


def test_the_pool_is_listed(data: Path, run: Run) -> None:
    key = NodeKeyRow(
        hotkey="5Node", path="/keys/a", source="added", added_at=1_716_000_000.0, retired_at=None, session_id="s1"
    )
    with control_server(data, lambda _: [key]) as came:
        ran = run("hotkeys", "pool", "list")
    assert came == [ListNodeKeys()]
    assert ran.lines[1] == ["5Node", "added", "2024-05-18T02:40:00Z", "", "s1", "/keys/a"]


def test_the_running_process_makes_the_backup(data: Path, here: Path, run: Run) -> None:
    target = str(here / "copy.db")
    with control_server(data, lambda _: BackupMade(target, 4096)) as came:
        ran = run("ledger", "backup", "copy.db")
    assert came == [BackupLedger(path=target)]
    assert ran.lines == [["path", target], ["bytes", "4096"]]


def test_another_data_folder_is_asked_when_it_is_named(here: Path, run: Run) -> None:
    other = here / "elsewhere"
    other.mkdir()
    with control_server(other, lambda _: []):
        assert run("hotkeys", "pool", "list").code == 3
        assert run("hotkeys", "pool", "list", "--data-dir", "elsewhere").code == 0


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")


class TestOnATerminal:
    def test_lists_are_tables(self, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        on_a_terminal(monkeypatch)
        page = SessionPage([session("s1", node_endpoint="[bold]http://x[/]")], after="")
        with control_server(data, lambda _: page):
            ran = run("sessions", "list")
        heading, line = re.sub(r"\x1b\[[0-9;]*m", "", ran.out).splitlines()
        assert heading.split()[:3] == ["session", "status", "tier"]
        assert "[bold]http://x[/]" in line
        assert "\t" not in ran.out

    def test_an_empty_list_says_so(self, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        on_a_terminal(monkeypatch)
        with control_server(data, lambda _: []):
            assert run("hotkeys", "pool", "list").out.strip() == "None."

    def test_one_thing_is_a_field_a_line(self, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        on_a_terminal(monkeypatch)
        with control_server(data, lambda _: PaymentDetail(payment("p1"), [])):
            ran = run("payments", "show", "p1")
            document = run("payments", "show", "p1", "--json").out
        assert ran.out.splitlines()[0].split() == ["payment_id", "p1"]
        assert len(document.splitlines()) > 10


def system_status(**extra: dict[str, object]) -> SystemStatus:
    return SystemStatus(
        version="0.1.0",
        environment="local",
        python="3.11",
        libraries={},
        sqlite="3.40.1",
        ledger_id="abc",
        started_at=0.0,
        uptime_s=61.0,
        selling=True,
        sessions={"active": 2, "failed": 0},
        payments={},
        quarantined=[],
        event_streams=0,
        ages_s={"chain head": 12.0},
        chain=ChainStatus("recorded", "", None, None, None, None, False, 0, 0, "", {}, ()),
        tree=[TreeNode(path="root/ledger", kind="actor", state="running", restarts=1, mailbox_depth=0)],
        extra=extra,
    )


def test_the_state_of_the_process_is_shown(data: Path, run: Run) -> None:
    with control_server(data, lambda _: system_status()):
        ran = run("status")
        document = json.loads(run("status", "--json").out)
    assert ["sessions", "2 active"] in ran.lines
    assert ["age of chain head", "12s"] in ran.lines
    assert ["root/ledger", "actor", "running", "1", "0", ""] in ran.lines
    assert document["uptime_s"] == 61.0
    assert "relay" not in [line[0] for line in ran.lines]


def test_what_the_relay_has_waiting_gave_up_and_could_not_queue_is_shown(data: Path, run: Run) -> None:
    relay = RelayStatus(
        enabled=True,
        outbox_pending=5,
        dlq_pending=1,
        dlq_abandoned=3,
        total_ok=7,
        total_failed=2,
        last_ok_hash=None,
        last_ok_at=None,
        oldest_pending_at=None,
        failures_in_a_row=0,
        not_queued=4,
    )
    with control_server(data, lambda _: system_status(relay=msgspec.structs.asdict(relay))):
        ran = run("status")
    assert ["relay", "5 waiting, 3 abandoned, 4 never queued since the start"] in ran.lines
