"""Paid time through checkpoints, jumps of the wall clock, kills and reboots, against what really passed."""

import tempfile
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engram.ledger.inline import open_inline
from engram.sessions import Instant, SessionEvent, SessionState, paid_clock, records, rules
from tests.ledger.test_migrations import former
from tests.sessions.test_records import a_session

NAMES = ("a", "b", "c")
BOOT = Instant(1_000_000.0, 500.0, "boot-1")


class Passed(msgspec.Struct):
    """What the model knows of one session: no checkpoints, only time."""

    really_s: float = 0.0
    doubt_s: float = 0.0
    """By how much jumps of the wall clock may have been counted: those between a checkpoint and the first one after a
    reboot, because nothing but the wall clock tells how long the machine was down."""
    running: bool = True


class PaidTime(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite3"
        self.ledger = open_inline(self.path)
        self.now = BOOT
        self.jumped_s, self.rebooted = 0.0, False  # both since the latest checkpoint
        self.passed: dict[str, Passed] = {}
        self.before: dict[str, float] = {}

    def _doubt_s(self) -> float:
        return abs(self.jumped_s) if self.rebooted else 0.0

    def _checkpointed(self) -> None:
        for one in self.passed.values():
            one.doubt_s += self._doubt_s() if one.running else 0.0
        self.jumped_s, self.rebooted = 0.0, False

    @rule(name=st.sampled_from(NAMES))
    def begins(self, name: str) -> None:
        if name in self.passed:
            return
        session = msgspec.structs.replace(a_session(name, SessionState.PROVISIONING), paid_s=3_600.0)
        self.ledger.write_now(lambda c: records.insert_session(c, session))
        assert self.ledger.write_now(lambda c: records.transition(c, name, SessionEvent.NODE_READY, self.now))
        self._checkpointed()
        self.passed[name] = Passed()

    @rule(
        name=st.sampled_from(NAMES),
        event=st.sampled_from([SessionEvent.DEGRADE, SessionEvent.RECOVER, SessionEvent.END]),
    )
    def happens(self, name: str, event: SessionEvent) -> None:
        if not self.ledger.write_now(lambda c: records.transition(c, name, event, self.now)):
            return
        if event is SessionEvent.END:
            self.passed[name].running = False
            self.passed[name].doubt_s += self._doubt_s()

    @rule(seconds=st.floats(0, 2_000))
    def time_passes(self, seconds: float) -> None:
        self.now = msgspec.structs.replace(
            self.now, wall=self.now.wall + seconds, monotonic=self.now.monotonic + seconds
        )
        for one in self.passed.values():
            one.really_s += seconds if one.running else 0.0

    @rule(name=st.sampled_from(NAMES), past_s=st.sampled_from([-1.0, 1.0]))
    def time_passes_to_about_the_end(self, name: str, past_s: float) -> None:
        session = self.ledger.write_now(partial(records.get, session_id=name))
        if session is not None:
            self.time_passes(max(0.0, session.paid_s - rules.used_s(session, self.now) + past_s))

    @rule(seconds=st.floats(-1e5, 1e5))
    def the_wall_clock_is_set(self, seconds: float) -> None:
        self.now = msgspec.structs.replace(self.now, wall=self.now.wall + seconds)
        self.jumped_s += seconds

    @rule()
    def checkpoint(self) -> None:
        self.ledger.write_now(lambda c: paid_clock.checkpoint(c, self.now))
        self._checkpointed()

    @rule()
    def killed_before_a_checkpoint_is_committed(self) -> None:
        connection = self.ledger._connection
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        paid_clock.checkpoint(connection, self.now)
        self.ledger.close()
        self.ledger = open_inline(self.path)

    @rule(down_s=st.floats(0, 5_000))
    def the_machine_reboots(self, down_s: float) -> None:
        self.ledger.close()
        self.time_passes(down_s)
        self.now = msgspec.structs.replace(self.now, monotonic=7.0, boot=self.now.boot + "+")
        self.rebooted = True
        self.ledger = open_inline(self.path)

    @rule()
    def a_late_checkpoint_of_an_earlier_moment_changes_nothing(self) -> None:
        earlier = msgspec.structs.replace(self.now, monotonic=self.now.monotonic - 5.0, wall=self.now.wall - 5.0)
        self.checkpoint()
        self.ledger.write_now(lambda c: paid_clock.checkpoint(c, earlier))

    @invariant()
    def agrees(self) -> None:
        over, close = set[str](), set[str]()
        for name, one in self.passed.items():
            session = self.ledger.write_now(partial(records.get, session_id=name))
            assert session is not None
            used_s = rules.used_s(session, self.now)
            doubt_s = one.doubt_s + (self._doubt_s() if one.running else 0.0)
            assert abs(used_s - one.really_s) <= doubt_s + 1e-3
            assert used_s >= session.used_s >= self.before.get(name, 0.0) - 1e-6, "what was counted is never given back"
            self.before[name] = session.used_s
            assert (session.counted is not None) == one.running
            if rules.has_expired(session, self.now):
                over.add(name)
            if abs(session.paid_s - used_s) < 1e-3:
                close.add(name)
        found = set(self.ledger.write_now(lambda c: paid_clock.expired(c, self.now)))
        assert found - close == over - close

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


PaidTime.TestCase.settings = settings(max_examples=settings().max_examples // 6, stateful_step_count=30, deadline=None)
TestPaidTime = PaidTime.TestCase


FORMER = (
    # name, used_s, counted: wall, monotonic, boot; the latest checkpoint of boot b was at 5,000 (wall), 300 (monotonic)
    ("checkpointed", 100.0, 5_000.0, 300.0, "b"),
    ("began after it", 0.0, 5_020.0, 320.0, "b"),
    ("left from boot a", 40.0, 4_000.0, 9_000.0, "a"),
)


@pytest.mark.parametrize("boot", ["b", "c"])
@pytest.mark.parametrize("since_s", [0.0, 25.5, 7_000.0])
def test_paid_time_of_the_version_before_goes_on_to_the_second(tmp_path: Path, boot: str, since_s: float) -> None:
    columns = "id, controller, state, tier, paid_s, amount_usd_micros, network, payment_id, created_at"
    values = "x'01', 'active', 'lite', 3600.0, 1, 'n', 'p', 1.0"
    rows = "".join(
        f"INSERT INTO sessions ({columns}, used_s, counted_wall, counted_monotonic, counted_boot) "
        f"VALUES ('{name}', {values}, {used}, {wall}, {monotonic}, '{booted}');"
        f"INSERT INTO session_events (session_id, at, event, data) VALUES ('{name}', 1.0, 'active', '{{}}');"
        for name, used, wall, monotonic, booted in reversed(FORMER)
    )
    rows += "".join(  # what happens to a session says nothing of the boot that its time was counted in
        f"INSERT INTO session_events (session_id, at, event, data) VALUES ('left from boot a', 2.0, '{event}', '{{}}');"
        for event in ("degraded", "active")
    )
    rows += f"INSERT INTO sessions ({columns}, used_s) VALUES ('over', {values.replace('active', 'stopped')}, 7.0);"
    ledger = open_inline(former(tmp_path / "ledger", rows))
    now = Instant(5_020.0 + since_s, 320.0 + since_s if boot == "b" else 11.0, boot)
    for name, used, wall, monotonic, booted in FORMER:
        session = ledger.write_now(partial(records.get, session_id=name))
        assert session is not None
        since = Instant(wall, monotonic, booted)
        assert rules.used_s(session, now) == pytest.approx(used + rules.elapsed_s(since, now))
    over = ledger.write_now(lambda c: records.get(c, "over"))
    assert over is not None
    assert (over.used_s, over.counted) == (7.0, None)
    ledger.close()


def test_a_ledger_of_the_version_before_without_running_sessions_begins_a_clock(tmp_path: Path) -> None:
    ledger = open_inline(former(tmp_path / "ledger"))
    ledger.write_now(lambda c: records.insert_session(c, a_session(state=SessionState.PROVISIONING)))
    ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.NODE_READY, BOOT))
    later = msgspec.structs.replace(BOOT, monotonic=BOOT.monotonic + 60.0)
    ledger.write_now(lambda c: paid_clock.checkpoint(c, later))
    session = ledger.write_now(lambda c: records.get(c, "s"))
    assert session is not None
    assert (session.used_s, session.counted) == (60.0, later)
    ledger.close()


def test_a_checkpoint_writes_one_row_and_what_has_expired_is_found_by_an_index() -> None:
    ledger = open_inline()
    for name in map(str, range(20)):
        ledger.write_now(partial(records.insert_session, session=a_session(name, SessionState.PROVISIONING)))
        ledger.write_now(partial(records.transition, session_id=name, event=SessionEvent.NODE_READY, now=BOOT))
    raw = ledger._connection.connection.dbapi_connection
    before = raw.total_changes  # type: ignore[union-attr]
    later = msgspec.structs.replace(BOOT, monotonic=BOOT.monotonic + 60.0)
    ledger.write_now(lambda c: paid_clock.checkpoint(c, later))
    assert raw.total_changes - before == 1  # type: ignore[union-attr]
    statements: list[str] = []
    raw.set_trace_callback(statements.append)  # type: ignore[union-attr]
    assert ledger.write_now(lambda c: paid_clock.expired(c, later)) == []
    raw.set_trace_callback(None)  # type: ignore[union-attr]
    (query,) = [sql for sql in statements if "FROM sessions" in sql]
    plan = ledger._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    assert [row[3] for row in plan] == ["SEARCH sessions USING INDEX ix_sessions_ends (<expr><?)"]
    ledger.close()
