"""Sessions in a real SQLite ledger, held against an independent model."""

import json
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection

from engram.clock import ManualClock
from engram.ledger.inline import InlineLedger, open_inline
from engram.sessions import (
    ClockInstants,
    EndReason,
    Instant,
    Session,
    SessionEvent,
    SessionState,
    SystemInstants,
    TierName,
    counts,
    history,
    paid_clock,
    records,
    rules,
)


def a_session(session_id: str = "s", state: SessionState = SessionState.PAYMENT_PENDING) -> Session:
    return Session(
        id=session_id,
        controller=b"\1" * 32,
        state=state,
        tier=TierName.LITE,
        paid_s=3600.0,
        amount_usd_micros=100_000,
        network="eip155:31337",
        payment_id="p",
        created_at=1_000.0,
    )


@pytest.fixture
def ledger() -> Iterator[InlineLedger]:
    ledger = open_inline()
    yield ledger
    ledger.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def instants(clock: ManualClock) -> ClockInstants:
    return ClockInstants(clock)


def to_active(ledger: InlineLedger, instants: ClockInstants, session_id: str = "s") -> Session:
    def work(connection):  # type: ignore[no-untyped-def]  # a local transaction
        records.insert_session(connection, a_session(session_id))
        records.transition(connection, session_id, SessionEvent.SETTLED, instants.now())
        return records.transition(connection, session_id, SessionEvent.NODE_READY, instants.now())

    session: Session | None = ledger.write_now(work)
    assert session is not None
    return session


def test_a_session_is_read_as_it_was_written(ledger: InlineLedger) -> None:
    full = msgspec.structs.replace(
        a_session(),
        state=SessionState.DEGRADED,
        active_at=5.0,
        end_reason=EndReason.USER,
        error="e",
        counted=Instant(1.0, 2.0, "b"),
        node_token="t",
        node_endpoint="http://127.0.0.1:1",
        node_hotkey=b"\2" * 32,
        launch_attempts=2,
    )
    ledger.write_now(lambda c: records.insert_session(c, full))
    assert ledger.write_now(lambda c: records.get(c, "s")) == full
    assert ledger.write_now(lambda c: records.get(c, "nobody")) is None


def test_a_delete_during_provisioning_stays_stopped(ledger: InlineLedger, instants: ClockInstants) -> None:
    now = instants.now()
    ledger.write_now(lambda c: records.insert_session(c, a_session(state=SessionState.PROVISIONING)))
    stopping = ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.END, now))
    assert stopping is not None
    assert stopping.end_reason is EndReason.USER
    assert ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.NODE_READY, now)) is None
    expired = EndReason.EXPIRED
    assert ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.END, now, reason=expired)) is None
    over = ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.DESTROYED, now))
    assert over is not None
    assert over.state is SessionState.STOPPED
    assert over.ended_at == now.wall


def test_an_event_on_no_session_changes_nothing(ledger: InlineLedger, instants: ClockInstants) -> None:
    assert ledger.write_now(lambda c: records.transition(c, "x", SessionEvent.END, instants.now())) is None
    assert ledger.write_now(lambda c: records.count_crash(c, "x", 1.0)) is None
    assert not ledger.write_now(lambda c: records.hold_extension(c, "x"))


def test_history_is_appended_with_each_transition(ledger: InlineLedger, instants: ClockInstants) -> None:
    to_active(ledger, instants)
    end = EndReason.NODE_LOST
    ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.END, instants.now(), reason=end, error="gone"))
    events = ledger.write_now(lambda c: history.events_since(c, "s"))
    assert [e.event for e in events] == ["payment_pending", "provisioning", "active", "stopping"]
    assert json.loads(events[-1].data) == {
        "from": "active",
        "event": "end",
        "reason": "node_lost",
        "error": "gone",
    }
    assert ledger.write_now(lambda c: history.events_since(c, "s", events[-2].id)) == [events[-1]]


def test_paid_time_is_settled_when_the_session_stops(
    ledger: InlineLedger, clock: ManualClock, instants: ClockInstants
) -> None:
    clock.advance(500.0)
    to_active(ledger, instants)
    clock.advance(100.0)
    clock.jump(-9_999.0)
    stopped = ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.END, instants.now()))
    assert stopped is not None
    assert stopped.used_s == 100.0
    assert stopped.counted is None


def test_checkpoints_carry_paid_time_over_a_reboot(
    ledger: InlineLedger, clock: ManualClock, instants: ClockInstants
) -> None:
    to_active(ledger, instants)
    clock.advance(100.0)
    clock.jump(86_400.0)
    ledger.write_now(lambda c: paid_clock.checkpoint(c, instants.now()))
    instants.boot = "boot-2"
    clock.advance(200.0)
    session = ledger.write_now(lambda c: records.get(c, "s"))
    assert session is not None
    assert rules.remaining_s(session, instants.now()) == 3300.0
    ledger.write_now(lambda c: paid_clock.checkpoint(c, instants.now()))
    session = ledger.write_now(lambda c: records.get(c, "s"))
    assert session is not None
    assert session.used_s == 300.0
    assert session.counted == instants.now()
    clock.jump(-1e6)
    instants.boot = "boot-3"
    ledger.write_now(lambda c: paid_clock.checkpoint(c, instants.now()))
    session = ledger.write_now(lambda c: records.get(c, "s"))
    assert session is not None
    assert session.used_s == 300.0


def test_what_has_run_out_is_found_and_an_extension_adds_its_seconds_once(
    ledger: InlineLedger, clock: ManualClock, instants: ClockInstants
) -> None:
    to_active(ledger, instants)
    clock.advance(3_600.0)
    assert ledger.write_now(lambda c: records.hold_extension(c, "s"))
    assert ledger.write_now(lambda c: paid_clock.expired(c, instants.now())) == []
    assert ledger.write_now(lambda c: records.add_seconds(c, "s", 1800.0, 50_000, clock.now()))
    ledger.write_now(lambda c: records.release_extension(c, "s"))
    ledger.write_now(lambda c: records.release_extension(c, "s"))
    assert ledger.write_now(lambda c: paid_clock.expired(c, instants.now())) == []
    clock.advance(1_799.0)
    assert ledger.write_now(lambda c: paid_clock.expired(c, instants.now())) == []
    clock.advance(1.0)
    assert ledger.write_now(lambda c: paid_clock.expired(c, instants.now())) == ["s"]
    ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.END, instants.now()))
    assert ledger.write_now(lambda c: paid_clock.expired(c, instants.now())) == []
    assert not ledger.write_now(lambda c: records.add_seconds(c, "s", 1800.0, 50_000, clock.now()))
    session = ledger.write_now(lambda c: records.get(c, "s"))
    assert session is not None
    assert (session.paid_s, session.amount_usd_micros, session.pending_extensions) == (5400.0, 150_000, 0)


@given(st.lists(st.tuples(st.sampled_from(SessionEvent), st.booleans()), max_size=12))
def test_what_an_event_makes_of_a_session_is_what_its_row_says(events: list[tuple[SessionEvent, bool]]) -> None:
    ledger, clock = open_inline(), ManualClock()
    instants = ClockInstants(clock)
    ledger.write_now(lambda c: records.insert_session(c, a_session()))
    for event, crashed in events:
        clock.advance(10.0)
        if crashed:
            ledger.write_now(lambda c: records.count_crash(c, "s", clock.now(), quarantine_after=2))
        before = ledger.write_now(lambda c: records.get(c, "s"))
        after = ledger.write_now(partial(_happen, event=event, now=instants.now()))
        assert ledger.write_now(lambda c: records.get(c, "s")) == (after or before)
    ledger.close()


def _happen(connection: Connection, event: SessionEvent, now: Instant) -> Session | None:
    return records.transition(connection, "s", event, now, reason=EndReason.USER, error="an error")


def test_counts_and_lists(ledger: InlineLedger, instants: ClockInstants) -> None:
    def insert_all(connection: Connection) -> None:
        for number, state in enumerate(SessionState):
            records.insert_session(connection, a_session(f"s{number}", state))

    ledger.write_now(insert_all)
    assert ledger.write_now(lambda c: counts.taken(c, b"\1" * 32)) == (4, 5)
    assert ledger.write_now(lambda c: counts.taken(c, b"\2" * 32)) == (0, 5)
    assert ledger.write_now(counts.held) == 5
    assert ledger.write_now(counts.by_state) == dict.fromkeys(SessionState, 1)
    assert len(ledger.write_now(lambda c: records.list_by_controller(c, b"\1" * 32))) == len(SessionState)
    page = ledger.write_now(lambda c: records.list_in_states(c, set(SessionState), limit=3, after_id="s1"))
    assert [s.id for s in page] == ["s2", "s3", "s4"]


def test_five_crashes_quarantine_a_session(ledger: InlineLedger) -> None:
    ledger.write_now(lambda c: records.insert_session(c, a_session()))
    marks = ledger.write_now(lambda c: [records.count_crash(c, "s", float(n)) for n in range(1, 7)])
    assert [m.quarantined_at for m in marks if m] == [None, None, None, None, 5.0, 5.0]
    ledger.write_now(lambda c: records.release_quarantine(c, "s"))
    session = ledger.write_now(lambda c: records.get(c, "s"))
    assert session is not None
    assert session.crashes == 0
    assert session.quarantined_at is None


def test_stopping_a_session_lifts_its_quarantine(ledger: InlineLedger, instants: ClockInstants) -> None:
    to_active(ledger, instants)
    ledger.write_now(lambda c: [records.count_crash(c, "s", 1.0) for _ in range(5)])
    stopped = ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.END, instants.now()))
    assert stopped is not None
    assert (stopped.crashes, stopped.quarantined_at) == (0, None)


def test_the_machines_clock_reads_alike_in_every_process_of_one_boot(tmp_path) -> None:  # type: ignore[no-untyped-def]
    first, second = SystemInstants().now(), SystemInstants().now()
    assert first.boot == second.boot
    assert 0 <= second.monotonic - first.monotonic < 5
    missing = tmp_path / "none"
    assert SystemInstants(missing).now().boot != SystemInstants(missing).now().boot


class SessionLife(RuleBasedStateMachine):
    """Random events on one session, against a model that knows only lists of allowed words."""

    ids = Bundle("ids")

    MODEL: ClassVar[
        dict[str, dict[str, str | None]]
    ] = {  # state -> {event: next}; written from architecture.md, not from rules.py
        "payment_pending": {"settled": "provisioning", "payment_failed": "failed", "end": "stopping"},
        "provisioning": {"node_ready": "active", "provision_failed": "failed", "end": "stopping"},
        "active": {"degrade": "degraded", "end": "stopping"},
        "degraded": {"recover": "active", "end": "stopping"},
        "stopping": {"destroyed": None},
    }

    def __init__(self) -> None:
        super().__init__()
        self.ledger = open_inline()
        self.clock = ManualClock()
        self.instants = ClockInstants(self.clock)

    @initialize()
    def begin(self) -> None:
        self.ledger.write_now(lambda c: records.insert_session(c, a_session()))
        self.state = "payment_pending"
        self.reason: str | None = None
        self.paid, self.used, self.holds = 3600.0, 0.0, 0

    @rule(event=st.sampled_from(SessionEvent), reason=st.sampled_from([None, *EndReason]))
    def happens(self, event: SessionEvent, reason: EndReason | None) -> None:
        after = self.ledger.write_now(lambda c: records.transition(c, "s", event, self.instants.now(), reason=reason))
        allowed = self.MODEL.get(self.state, {})
        assert (after is not None) == (event.value in allowed)
        if after is None:
            return
        if event is SessionEvent.END:
            self.reason = (reason or EndReason.USER).value
        ends = {"stopped_by_user": "stopped", "stopped_by_operator": "stopped", "expired": "expired"}
        self.state = allowed[event.value] or ends.get(self.reason or "", "failed")
        assert after.state == self.state

    @rule(seconds=st.floats(min_value=0, max_value=2_000), jump=st.floats(min_value=-1e6, max_value=1e6))
    def time_passes(self, seconds: float, jump: float) -> None:
        self.clock.advance(seconds)
        self.clock.jump(jump)
        if self.state in ("active", "degraded"):
            self.used += seconds

    @rule()
    def checkpoint(self) -> None:
        self.ledger.write_now(lambda c: paid_clock.checkpoint(c, self.instants.now()))

    @rule()
    def extend(self) -> None:
        live = self.state in ("payment_pending", "provisioning", "active", "degraded")
        added = self.ledger.write_now(lambda c: records.add_seconds(c, "s", 600.0, 1, 0.0))
        assert added == live
        self.paid += 600.0 if live else 0.0

    @rule(hold=st.booleans())
    def pause(self, hold: bool) -> None:
        if hold and self.ledger.write_now(lambda c: records.hold_extension(c, "s")):
            self.holds += 1
        elif not hold:
            self.ledger.write_now(lambda c: records.release_extension(c, "s"))
            self.holds = max(0, self.holds - 1)

    @invariant()
    def agrees(self) -> None:
        session = self.ledger.write_now(lambda c: records.get(c, "s"))
        if session is None:
            return
        assert session.state == self.state
        assert session.paid_s == self.paid
        assert session.pending_extensions == self.holds
        left = max(0.0, self.paid - self.used)
        if self.state in ("active", "degraded"):
            assert abs(rules.remaining_s(session, self.instants.now()) - left) < 1e-3
            found = self.ledger.write_now(lambda c: paid_clock.expired(c, self.instants.now()))
            if left > 1e-3:
                assert not found
            elif left == 0.0 and self.used > self.paid + 1e-3:
                overdue = self.used - self.paid
                if self.holds == 0 or abs(overdue - rules.EXTENSION_PAUSE_S) > 1e-3:
                    assert bool(found) == (self.holds == 0 or overdue > rules.EXTENSION_PAUSE_S)
        events = self.ledger.write_now(lambda c: history.events_since(c, "s"))
        assert [e.event for e in events if e.event != "extended"][-1] == self.state

    def teardown(self) -> None:
        self.ledger.close()


SessionLife.TestCase.settings = settings(
    max_examples=max(1, settings().max_examples // 4), stateful_step_count=25, deadline=None
)
TestSessionLife = SessionLife.TestCase
