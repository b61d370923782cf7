"""A plugin (`-p tests.ledger.postgres.same_tests`): every ledger that a test opens is one on PostgreSQL.

ENGRAM_TEST_POSTGRESQL names the server. A ledger without a path is a schema of its own; one with a path is the same
schema each time. What is about SQLite itself is not collected: tests and files named in `OF_SQLITE`.
"""

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings

from engram.ledger import InlineLedger, inline
from engram.ledger.postgres.server import PostgresServer
from engram.ledger.postgres.store import PostgresStore

BASE = os.environ.get("ENGRAM_TEST_POSTGRESQL", "")
OF_SQLITE = {
    "::TestSessionLife::": "a state machine: a ledger for each of many examples",
    "test_a_session_is_read_as_it_was_written": "sets the clock, which is the server's there",
    "test_a_delete_during_provisioning_stays_stopped": "the same",
    "test_paid_time_is_settled_when_the_session_stops": "the same",
    "test_checkpoints_carry_paid_time_over_a_reboot": "the same",
    "test_what_has_run_out_is_found_and_an_extension_adds_its_seconds_once": "the same",
    "test_many_rows_are_written_and_read_by_one_statement_each": "reads beside the ledger",
    "test_an_error_names_no_value_and_undoes_its_own_transaction_alone": "SQLite's group",
    "test_an_anchor_costs_the_ledger_s_writer_the_same": "counts SQLite's instructions",
    "test_a_disk_that_refuses_is_the_ledgers_refusal": "a pragma",
}
"""Parts of the names of tests, with the reason."""
_opened: dict[Path, str] = {}
_numbers = iter(range(1_000_000))


def _new() -> str:
    schema = f"same_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(BASE, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{BASE}?options=-csearch_path%3D{schema}"


def open_inline(path: Path | None = None) -> InlineLedger:
    url = _new() if path is None else _opened.setdefault(path, "") or _new()
    if path is not None:
        _opened[path] = url
    return InlineLedger(PostgresStore(PostgresServer(url).open_inline()))


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("postgresql", settings.get_profile("default"), max_examples=3)
    settings.load_profile("postgresql")
    import engram.ledger

    for module in (inline, engram.ledger):
        setattr(module, "open_inline", open_inline)  # noqa: B010 - in place of a function


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    kept = [item for item in items if not any(word in item.nodeid for word in OF_SQLITE)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
