"""Prepared statements: SQLAlchemy's text and rows, its errors without their parameters, and the group's promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy.exc
from sqlalchemy import bindparam, insert, select, update

from engram.ledger import LEDGER_FILE, InlineLedger, LedgerUnavailable, Prepared, open_inline
from engram.ledger.facts import get
from engram.ledger.tables import meta
from engram.sessions import records
from engram.sessions.tables import session_events, sessions
from tests.ledger.groups import Commits, run_group
from tests.sessions.test_records import a_session

PUT = Prepared(insert(meta))
VALUE = Prepared(select(meta.c.value).where(meta.c.key == bindparam("key")))
CHANGE = Prepared(update(meta).where(meta.c.key == bindparam("which")).values(value=bindparam("value")))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[InlineLedger]:
    ledger = open_inline(tmp_path / LEDGER_FILE)
    yield ledger
    ledger.close()


def test_a_row_is_what_sqlalchemy_reads(ledger: InlineLedger) -> None:
    ledger.write_now(lambda connection: records.insert_session(connection, a_session()))
    row = Prepared(select(sessions).where(sessions.c.id == bindparam("id"))).first(ledger._connection, {"id": "s"})
    assert row == dict(ledger._connection.execute(select(sessions)).mappings().one())


def test_what_is_not_there_is_none(ledger: InlineLedger) -> None:
    assert VALUE.first(ledger._connection, {"key": "nothing"}) is None
    assert VALUE.values(ledger._connection, {"key": "nothing"}) is None


def test_a_change_says_how_many_rows_it_met(ledger: InlineLedger) -> None:
    ledger.write_now(lambda connection: PUT.change(connection, {"key": "a", "value": "1"}))
    assert ledger.write_now(lambda connection: CHANGE.change(connection, {"which": "a", "value": "2"})) == 1
    assert ledger.write_now(lambda connection: CHANGE.change(connection, {"which": "b", "value": "2"})) == 0
    assert VALUE.values(ledger._connection, {"key": "a"}) == ("2",)


def test_many_rows_are_written_and_read_by_one_statement_each(ledger: InlineLedger) -> None:
    rows = [{"key": f"k{n}", "value": str(n)} for n in range(3)]
    ledger.write_now(lambda connection: PUT.apply_each(connection, rows))
    both = Prepared(select(meta.c.value).where(meta.c.key.like(bindparam("like"))).order_by(meta.c.key))
    assert both.rows(ledger._connection, {"like": "k%"}) == [("0",), ("1",), ("2",)]
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        ledger.write_now(lambda connection: PUT.apply_each(connection, rows))


def test_an_insert_says_the_row_that_it_made(ledger: InlineLedger) -> None:
    event = Prepared(insert(session_events), ["session_id", "at", "event", "data"])
    row = {"session_id": "s", "at": 1, "event": "x", "data": "{}"}
    first = ledger.write_now(lambda connection: event.insert(connection, row))
    assert ledger.write_now(lambda connection: event.insert(connection, row)) == first + 1


def test_a_value_in_the_statement_is_refused_where_it_is_built() -> None:
    with pytest.raises(ValueError, match="key_1: values stand in a prepared statement as literals or as parameters"):
        Prepared(select(meta.c.value).where(meta.c.key == "a"))


def test_a_parameter_that_is_missing_is_an_error_and_no_null(ledger: InlineLedger) -> None:
    with pytest.raises(sqlalchemy.exc.DBAPIError, match="value"):
        ledger.write_now(lambda connection: PUT.change(connection, {"key": "a"}))
    assert get(ledger._connection, "a") is None


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "by sqlalchemy"])
def test_an_error_names_no_value_and_undoes_its_own_transaction_alone(ledger: InlineLedger, prepared: bool) -> None:
    row = {"key": "ledger_id", "value": "a secret of the buyer"}

    def twice(connection: sqlalchemy.Connection) -> None:
        PUT.change(connection, {"key": "half", "value": "1"})
        if prepared:
            PUT.change(connection, row)
        else:
            connection.execute(insert(meta), row)

    kept = {"key": "kept", "value": "1"}
    outcomes = run_group(ledger._connection, [twice, lambda connection: PUT.change(connection, kept)], Commits())
    assert isinstance(outcomes[0].error, sqlalchemy.exc.IntegrityError)
    assert "a secret" not in f"{outcomes[0].error!s}{outcomes[0].error!r}"
    assert (get(ledger._connection, "half"), get(ledger._connection, "kept")) == (None, "1")


def test_a_disk_that_refuses_is_the_ledgers_refusal(ledger: InlineLedger) -> None:
    ledger._connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnavailable, match="read-only"):
        ledger.write_now(lambda connection: PUT.change(connection, {"key": "a", "value": "1"}))
