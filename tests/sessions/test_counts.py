"""The counts of sessions by state, held against a scan through everything that changes a session."""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import Connection

from engram.clock import ManualClock
from engram.ledger.connection import open_writer
from engram.ledger.inline import InlineLedger, open_inline
from engram.sessions import HELD, LIVE, ClockInstants, EndReason, Session, SessionEvent, SessionState, counts, records
from tests.ledger.groups import Commits, run_group
from tests.ledger.test_migrations import former
from tests.sessions.test_records import a_session

NAMES = [f"s{number}" for number in range(6)]
CONTROLLERS = [b"\1" * 32, b"\2" * 32]


def of(name: str, state: SessionState = SessionState.PAYMENT_PENDING) -> Session:
    controller = CONTROLLERS[NAMES.index(name) % 2]
    return msgspec.structs.replace(a_session(name, state), controller=controller, payment_id=f"payment of {name}")


class Lost(Exception):
    pass


class Counted(RuleBasedStateMachine):
    """Sessions come, change and go; some transactions are undone, and now and then the process dies before COMMIT."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite3"
        self.ledger = open_inline(self.path)
        self.instants = ClockInstants(ManualClock())
        self.model: dict[str, SessionState] = {}

    def _do(self, change: Callable[[Connection], object], how: str) -> bool:
        """Commit the change; or have it undone alone, or with the process. True when it is to be seen afterwards."""
        match how:
            case "refused":

                def refused(connection: Connection) -> NoReturn:
                    change(connection)
                    raise Lost

                with pytest.raises(Lost):
                    self.ledger.write_now(refused)
            case "killed":
                connection = self.ledger._connection
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                change(connection)
                self.ledger.close()
                self.ledger = open_inline(self.path)
            case _:
                self.ledger.write_now(change)
        return how == "done"

    how = st.sampled_from(["done", "done", "done", "refused", "killed"])

    @rule(name=st.sampled_from(NAMES), how=how)
    def bought(self, name: str, how: str) -> None:
        if name not in self.model and self._do(lambda c: records.insert_session(c, of(name)), how):
            self.model[name] = SessionState.PAYMENT_PENDING

    @rule(
        name=st.sampled_from(NAMES),
        event=st.sampled_from(SessionEvent),
        reason=st.sampled_from(EndReason),
        how=how,
    )
    def happens(self, name: str, event: SessionEvent, reason: EndReason, how: str) -> None:
        now, after = self.instants.now(), list[Session | None]()
        change = lambda c: after.append(records.transition(c, name, event, now, reason=reason))  # noqa: E731
        if self._do(change, how) and after[0]:
            self.model[name] = after[0].state

    @rule(name=st.sampled_from(NAMES), how=how)
    def unpaid(self, name: str, how: str) -> None:
        removed = list[bool]()
        if self._do(lambda c: removed.append(records.remove_unpaid(c, name)), how) and removed[0]:
            del self.model[name]

    @rule(names=st.sets(st.sampled_from(NAMES)), how=how)
    def forgotten(self, names: set[str], how: str) -> None:
        paid = [f"payment of {name}" for name in sorted(names)[:-1]]
        if self._do(lambda c: records.forget(c, sorted(names), paid), how):
            for name in sorted(names)[:-1]:
                self.model.pop(name, None)

    @rule()
    def restarts(self) -> None:
        self.ledger.close()
        self.ledger = open_inline(self.path)

    @invariant()
    def agrees(self) -> None:
        def read(connection: Connection) -> None:
            by_state = Counter(self.model.values())
            assert counts.by_state(connection) == counts.scan(connection) == by_state
            assert counts.wrong(connection) == {}
            held = sum(state in HELD for state in self.model.values())
            assert counts.held(connection) == held
            for number, controller in enumerate(CONTROLLERS):
                own = [state for name, state in self.model.items() if NAMES.index(name) % 2 == number]
                assert counts.taken(connection, controller) == (sum(state in LIVE for state in own), held)

        self.ledger.write_now(read)

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


Counted.TestCase.settings = settings(max_examples=settings().max_examples // 8, stateful_step_count=30, deadline=None)
TestCounted = Counted.TestCase


def test_one_group_of_transactions_counts_each_of_them_and_none_that_was_refused() -> None:
    connection = open_writer(None)

    def refused(connection: Connection) -> NoReturn:
        records.insert_session(connection, of("s1"))
        raise Lost

    add = [lambda c, name=name: records.insert_session(c, of(name)) for name in ("s0", "s2")]
    run_group(connection, [add[0], refused, add[1]], Commits())
    assert counts.by_state(connection) == {SessionState.PAYMENT_PENDING: 2}
    connection.close()


def test_a_ledger_of_the_version_before_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    rows = "".join(
        "INSERT INTO sessions (id, controller, state, tier, paid_s, amount_usd_micros, network, payment_id, created_at)"
        f" VALUES ('{number}', x'01', '{state}', 'lite', 1.0, 1, 'n', 'p', 1.0);"
        for number, state in enumerate([*SessionState, *HELD])
    )
    ledger = open_inline(former(tmp_path / "ledger", rows))
    assert ledger.write_now(counts.wrong) == {}
    assert ledger.write_now(counts.held) == 2 * len(HELD)
    ledger.close()


def test_counts_that_other_hands_made_wrong_are_found_and_corrected() -> None:
    ledger: InlineLedger = open_inline()
    ledger.write_now(lambda c: records.insert_session(c, of("s0")))
    ledger.write_now(lambda c: c.exec_driver_sql("UPDATE sessions SET state = 'active'"))
    wrong = {SessionState.PAYMENT_PENDING: (1, 0), SessionState.ACTIVE: (0, 1)}
    assert ledger.write_now(counts.wrong) == wrong
    assert ledger.write_now(counts.problems) == [
        "the count of payment_pending sessions is 1, and there are 0: the gateway corrects it when it starts",
        "the count of active sessions is 0, and there are 1: the gateway corrects it when it starts",
    ]
    assert ledger.write_now(counts.recount) == wrong
    assert ledger.write_now(counts.wrong) == {}
    ledger.close()


def test_a_purchase_is_counted_without_reading_the_sessions_that_hold_places() -> None:
    ledger = open_inline()
    plan = ledger._connection.exec_driver_sql(
        f"EXPLAIN QUERY PLAN {counts._TAKEN.sql}", {"controller": b"\1" * 32}
    ).all()
    read = [row[3] for row in plan if row[3].startswith(("SCAN", "SEARCH"))]
    of_sessions = [line for line in read if " sessions" in line]
    assert len(of_sessions) == 1
    assert "ix_sessions_live (controller=?)" in of_sessions[0]
    ledger.close()
