"""A SQLite ledger moved to PostgreSQL: every row, once, however often the move was interrupted."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from config.model import LedgerSettings
from engram.ledger import LEDGER_FILE, LedgerUnavailable, LedgerUnusable, identity, open_inline
from engram.ledger.moving import to_server
from engram.ledger.postgres import moving
from engram.payments import records
from engram.payments.tables import payments
from engram.sessions import SessionState, counts
from engram.sessions import records as session_records
from tests.payments.builders import payment, session_of
from tests.postgres import Cluster, needs_postgresql, rows

pytestmark = needs_postgresql
BOUNDS = ("statement_timeout", "idle_in_transaction_session_timeout")


def sold(number: int, connection: Connection) -> None:
    paid = payment(str(number), id=f"p{number}", session_id=f"s{number}")
    connection.execute(insert(payments).values(records.columns_of(paid)))
    session_records.insert_session(connection, session_of(paid))


def filled(folder: Path) -> str:
    """A ledger with a few hundred rows; returns its id."""
    ledger_id = identity.claim(folder, "local")
    ledger = open_inline(folder / LEDGER_FILE)
    for number in range(50):
        ledger.write_now(partial(sold, number))
    ledger.close()
    return ledger_id


def nothing(done: int, total: int) -> None:
    pass


def test_every_row_is_moved_and_the_file_is_not_opened_any_more(tmp_path: Path, url: str) -> None:
    ledger_id = filled(tmp_path)
    moved = to_server(tmp_path, url, nothing)
    assert (moved["payments"], moved["sessions"], moved["session_events"]) == (50, 50, 50)
    assert identity.claim(tmp_path, "local", LedgerSettings(url=url)) == ledger_id
    with pytest.raises(LedgerUnusable, match=r"was moved to postgresql://engram@127.0.0.1.*set ledger.url"):
        identity.claim(tmp_path, "local")
    assert rows(
        url, "INSERT INTO session_events (session_id, at, event, data) VALUES ('s', 1, 'x', '{}') RETURNING id"
    ) == [(51,)]


def test_a_move_that_was_interrupted_goes_on(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    number_on = moving._number_on

    def cut(target: object, table: moving._Table) -> None:
        if table.name == "payments":
            raise LedgerUnavailable("cut")
        number_on(target, table)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "_number_on", cut)
    with pytest.raises(LedgerUnavailable, match="cut"):
        to_server(tmp_path, url, nothing)
    monkeypatch.undo()
    with pytest.raises(LedgerUnusable, match="being moved"):
        identity.claim(tmp_path, "local", LedgerSettings(url=url))
    assert to_server(tmp_path, url, nothing)["sessions"] == 50


def interrupted(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move that copied everything and was stopped before it compared."""

    def cut(*_: object) -> int:
        raise LedgerUnavailable("cut")

    monkeypatch.setattr(moving, "_compare", cut)
    with pytest.raises(LedgerUnavailable, match="cut"):
        to_server(folder, url, nothing)
    monkeypatch.undo()


def test_a_move_goes_on_although_the_gateway_ran_on_the_file_meanwhile(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    interrupted(tmp_path, url, monkeypatch)
    ledger = open_inline(tmp_path / LEDGER_FILE)
    ledger.write_now(partial(sold, 1_000))
    ledger.write_now(lambda c: c.exec_driver_sql("UPDATE sessions SET used_s = 5 WHERE id = 's1'").rowcount)
    ledger.write_now(lambda c: c.exec_driver_sql("DELETE FROM payments WHERE id = 'p2'").rowcount)
    ledger.close()
    moved = to_server(tmp_path, url, nothing)
    assert (moved["sessions"], moved["payments"]) == (51, 50)
    assert rows(url, "SELECT used_s FROM sessions WHERE id = 's1'") == [(5.0,)]


def test_a_file_that_was_moved_is_moved_nowhere_else(
    tmp_path: Path, url: str, server: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    elsewhere = server.new_ledger()
    interrupted(tmp_path, elsewhere, monkeypatch)
    to_server(tmp_path, url, nothing)
    with pytest.raises(LedgerUnusable, match=rf"was moved to .*{url.rpartition('%3D')[2]}: set ledger.url to it"):
        to_server(tmp_path, elsewhere, nothing)
    with pytest.raises(LedgerUnusable, match="being moved"):
        identity.claim(tmp_path, "local", LedgerSettings(url=elsewhere))
    with pytest.raises(LedgerUnusable, match=r"was moved there already: set ledger.url"):
        to_server(tmp_path, url, nothing)


def test_text_with_nul_is_moved_without_it(tmp_path: Path, url: str) -> None:
    """PostgreSQL's text holds every character but that one."""
    filled(tmp_path)
    ledger = open_inline(tmp_path / LEDGER_FILE)
    ledger.write_now(lambda c: c.execute(update(payments).where(payments.c.id == "p1").values(reason="a\0b")).rowcount)
    ledger.close()
    assert to_server(tmp_path, url, nothing)["payments"] == 50
    assert rows(url, "SELECT reason FROM payments WHERE id = 'p1'") == [("a\ufffdb",)]


def test_a_row_that_differs_stops_the_move_before_anything_is_switched(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    number_on = moving._number_on

    def spoil(target: object, table: moving._Table) -> None:
        number_on(target, table)  # type: ignore[arg-type]
        if table.name == "sessions":
            rows(url, "UPDATE sessions SET paid_s = paid_s + 1 WHERE id = 's7' RETURNING id")

    monkeypatch.setattr(moving, "_number_on", spoil)
    with pytest.raises(LedgerUnusable, match="of sessions differs on the server"):
        to_server(tmp_path, url, nothing)
    ledger = open_inline(tmp_path / LEDGER_FILE)
    assert ledger.write_now(counts.by_state) == {SessionState.PAYMENT_PENDING: 50}
    ledger.close()


def test_a_comparison_may_take_as_long_as_it_takes(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sorts a whole table, and reads it page by page."""
    filled(tmp_path)
    found: list[object] = []
    compare = moving._compare

    def watched(source: Any, target: Any, table: moving._Table) -> int:
        found.extend(target.execute(f"SHOW {name}").fetchone()[0] for name in BOUNDS)
        return compare(source, target, table)

    monkeypatch.setattr(moving, "_compare", watched)
    to_server(tmp_path, url, nothing)
    assert set(found) == {"0"}


def test_a_database_that_holds_another_ledger_is_refused(tmp_path: Path, url: str) -> None:
    filled(tmp_path)
    identity.claim(tmp_path, "local", LedgerSettings(url=url))
    with pytest.raises(LedgerUnusable, match="holds another ledger"):
        to_server(tmp_path, url, nothing)
