"""Prices, durations, the transition table and paid time."""

import math
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.sessions import (
    HELD,
    LIVE,
    TERMINAL,
    ClockSighting,
    EndReason,
    Instant,
    InvalidDuration,
    Session,
    SessionEvent,
    SessionState,
    TierName,
    UnknownTier,
    rules,
)

pytestmark = pytest.mark.rules

BOOT = Instant(1_000.0, 50.0, "a")


def a_session(**changes: object) -> Session:
    session = Session(
        id="s",
        controller=b"\1" * 32,
        state=SessionState.ACTIVE,
        tier=TierName.LITE,
        paid_s=3600.0,
        amount_usd_micros=100_000,
        network="eip155:31337",
        payment_id="p",
        created_at=900.0,
        active_at=1_000.0,
        counted=BOOT,
    )
    return msgspec.structs.replace(session, **changes)


def test_the_table_of_tiers_is_the_seeds() -> None:
    table = rules.tiers(0.10)
    assert [
        (t.name, t.cpu_vcpu, t.memory_gb, t.storage_gb, t.usd_per_hour, t.price_akt_per_hour) for t in table.values()
    ] == [
        ("lite", 1, 2, 10, 0.10, 0.05),
        ("standard", 2, 4, 20, 0.20, 0.10),
        ("pro", 4, 8, 40, 0.36, 0.18),
    ]
    assert table[TierName.LITE].memory_bytes == 2 * 1024**3
    assert table[TierName.LITE].storage_bytes == 10 * 1024**3


def test_a_tier_is_found_by_its_exact_name_only() -> None:
    table = rules.tiers(0.10)
    assert rules.tier_named(table, "pro").name is TierName.PRO
    for wrong in ("x", "PRO", "", None, 3, ["lite"]):
        with pytest.raises(UnknownTier, match="Valid: \\['lite', 'standard', 'pro'\\]"):
            rules.tier_named(table, wrong)


@pytest.mark.parametrize("wrong", ["abc", "1", None, True, [], math.nan, math.inf, -math.inf, 0.49, 720.5, -1, 10**400])
def test_a_duration_that_is_no_number_of_hours_in_the_limits_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidDuration, match=r"duration_hours must be between 0\.5 and 720\."):
        rules.paid_seconds(wrong, 0.5, 720.0)


def test_durations_at_the_limits_are_taken() -> None:
    assert rules.paid_seconds(0.5, 0.5, 720.0) == 1800.0
    assert rules.paid_seconds(720, 0.5, 720.0) == 720 * 3600.0
    assert rules.paid_seconds(0.7, 0.5, 720.0) == 2520.0


@given(st.floats(min_value=0.5, max_value=720), st.sampled_from(list(TierName)))
def test_the_price_is_the_exact_product_rounded_once(hours: float, name: TierName) -> None:
    tier = rules.tiers(0.10)[name]
    exact = Fraction(repr(hours)) * tier.usd_micros_per_hour
    assert abs(rules.price(tier, hours) - exact) <= Fraction(1, 2)


def test_what_is_shown_is_what_is_charged() -> None:
    for lite in (0.10, 0.07, 0.123456):
        for tier in rules.tiers(lite).values():
            for hours in (0.5, 1, 6, 24, 168, 720):
                shown = Fraction(repr(tier.price_akt_per_hour)) * 2 * Fraction(repr(hours))
                assert abs(rules.price(tier, hours) - shown * 1_000_000) < 1
    assert rules.price(rules.tiers(0.10)[TierName.PRO], 0.7) == 252_000


ARROWS = """
payment_pending  settled           provisioning
payment_pending  payment_failed    failed
payment_pending  end               stopping
provisioning     node_ready        active
provisioning     provision_failed  failed
provisioning     end               stopping
active           degrade           degraded
degraded         recover           active
active           end               stopping
degraded         end               stopping
stopping         destroyed         stopped
"""
"""From, by, to; `destroyed` of a session that its user stopped."""


def test_the_arrows_between_states_are_these_and_no_others() -> None:
    drawn = {(state, event): after for state, event, after in map(str.split, ARROWS.strip().splitlines())}
    for state in SessionState:
        for event in SessionEvent:
            assert rules.next_state(state, event, None) == drawn.get((state, event)), (state, event)


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        ("user", "stopped"),
        ("operator", "stopped"),
        ("expired", "expired"),
        ("payment", "failed"),
        ("provision", "failed"),
        ("node_lost", "failed"),
    ],
)
def test_where_a_destroyed_session_ends_follows_its_reason(reason: str, end: str) -> None:
    assert rules.next_state(SessionState.STOPPING, SessionEvent.DESTROYED, EndReason[reason.upper()]) == end


@given(st.sampled_from(SessionState), st.sampled_from(SessionEvent), st.sampled_from([None, *EndReason]))
def test_terminal_states_are_left_by_nothing_and_entered_only_when_no_node_is_left(
    state: SessionState, event: SessionEvent, reason: EndReason | None
) -> None:
    after = rules.next_state(state, event, reason)
    if state in TERMINAL:
        assert after is None
    if state is SessionState.STOPPING and after is not None:
        assert event is SessionEvent.DESTROYED
        assert after is rules.ENDS[reason or EndReason.USER]
    if after in TERMINAL:
        assert event in (
            SessionEvent.DESTROYED,
            SessionEvent.PAYMENT_FAILED,
            SessionEvent.PROVISION_FAILED,
        )


def test_every_live_session_can_be_stopped() -> None:
    for state in LIVE:
        assert rules.next_state(state, SessionEvent.END, None) is SessionState.STOPPING


def test_the_end_reason_follows_the_event() -> None:
    assert rules.end_reason_of(SessionEvent.END, None) is EndReason.USER
    assert rules.end_reason_of(SessionEvent.END, EndReason.EXPIRED) is EndReason.EXPIRED
    assert rules.end_reason_of(SessionEvent.PAYMENT_FAILED, None) is EndReason.PAYMENT
    assert rules.end_reason_of(SessionEvent.PROVISION_FAILED, None) is EndReason.PROVISION
    assert rules.end_reason_of(SessionEvent.RECOVER, EndReason.USER) is None


def test_a_jump_of_the_wall_clock_neither_steals_nor_gives_hours() -> None:
    session = a_session()
    for wall in (0.0, 1e9):
        assert rules.remaining_s(session, Instant(wall, 50.0 + 600.0, "a")) == 3000.0


def test_time_that_was_used_beyond_what_was_paid_leaves_nothing_and_no_debt() -> None:
    for over_s in (0.0, 0.5, 600.0):
        assert rules.remaining_s(a_session(), Instant(0.0, 50.0 + 3600.0 + over_s, "a")) == 0.0


def test_what_was_used_before_the_last_count_brings_the_end_forward() -> None:
    assert rules.expires_at(a_session(used_s=100.0), BOOT) == 4_500.0


def test_across_a_reboot_the_wall_clock_counts_and_never_backwards() -> None:
    session = a_session()
    assert rules.remaining_s(session, Instant(1_600.0, 1.0, "b")) == 3000.0
    assert rules.remaining_s(session, Instant(10.0, 1.0, "b")) == 3600.0


def test_until_active_the_whole_time_remains_and_expiry_is_provisional() -> None:
    session = a_session(state=SessionState.PROVISIONING, counted=None, active_at=None)
    later = Instant(5_000.0, 4_050.0, "a")
    assert rules.remaining_s(session, later) == 3600.0
    assert rules.expires_at(session, later) == 8_600.0
    assert rules.expires_at(msgspec.structs.replace(session, used_s=100.0), later) == 8_500.0
    assert not rules.has_expired(session, later)


@given(st.floats(0, 3_000), st.floats(-0.4, 0.4), st.sampled_from(["a", "b"]), st.sampled_from([0, 4, 1_000_000]))
def test_while_time_runs_the_end_is_the_same_at_each_reading(
    since: float, slewed_s: float, boot: str, set_by_s: int
) -> None:
    session = a_session(counted=Instant(1_000.123456, 50.0, "a"))
    read = Instant(1_000.123456 + since + slewed_s + set_by_s, 50.0 + since, boot)
    ends_at = rules.expires_at(session, read)
    assert ends_at == 4_600.123 + (set_by_s if boot == "a" else 0)
    if boot == "a":
        assert ends_at - read.wall == pytest.approx(rules.remaining_s(session, read), abs=0.5)


def test_a_session_that_ended_has_nothing_left_and_keeps_its_end_time() -> None:
    for state in (*TERMINAL, SessionState.STOPPING):
        session = a_session(state=state, counted=None, used_s=10.0)
        assert rules.remaining_s(session, BOOT) == 0.0
        assert rules.expires_at(session, BOOT) == 4_600.0
        assert not rules.takes_time(session)
    assert rules.expires_at(a_session(state=SessionState.FAILED, active_at=None), BOOT) == 4_500.0


def test_expiry_waits_for_an_extension_that_is_being_paid_for() -> None:
    end = Instant(4_600.0, 3_650.0, "a")
    assert rules.has_expired(a_session(), end)
    assert not rules.has_expired(a_session(pending_extensions=1), end)
    assert not rules.has_expired(a_session(paid_s=7200.0), end)


def test_expiry_waits_two_minutes_for_an_extension_and_no_longer() -> None:
    session = a_session(pending_extensions=1)
    assert not rules.has_expired(session, Instant(4_719.9, 3_769.9, "a"))
    assert rules.has_expired(session, Instant(4_720.0, 3_770.0, "a"))


@given(st.lists(st.tuples(st.floats(0.1, 60.0), st.floats(-1e4, 1e4), st.booleans()), min_size=2, max_size=12))
def test_a_shared_clock_runs_no_faster_than_time_whatever_is_done_to_the_servers_wall_clock(
    looks: list[tuple[float, float, bool]],
) -> None:
    """At each look time has passed, the server's clock may have been set, and the row may be moved on."""
    true_s = server = row = moved_at = 0.0
    known = rules.sighted(rules.sighted(None, -1.0, 0.0), row, true_s)
    for passed, set_by, moves in looks:
        true_s, server = true_s + passed, server + passed + set_by
        known = rules.sighted(known, row, true_s)
        elapsed = rules.shared_elapsed_s(server - moved_at, known, true_s)
        assert elapsed >= 0.0
        if moves:
            row, moved_at = row + elapsed, server
        assert row <= true_s + 1e-6


def test_what_is_known_of_a_shared_clock_grows_with_each_look() -> None:
    first = rules.sighted(None, 100.0, 5.0)
    assert first == ClockSighting(100.0, 5.0, None)
    assert rules.shared_elapsed_s(7.0, first, 6.0) == 7.0
    assert rules.shared_elapsed_s(-7.0, first, 6.0) == 0.0
    again = rules.sighted(first, 100.0, 8.0)
    assert again == ClockSighting(100.0, 8.0, None)
    moved = rules.sighted(again, 103.0, 9.0)
    assert moved == ClockSighting(103.0, 9.0, 8.0)
    assert rules.sighted(moved, 100.0, 10.0) is moved
    assert rules.shared_elapsed_s(3_600.0, moved, 10.0) == 2.0
    assert rules.shared_elapsed_s(1.5, moved, 10.0) == 1.5
    assert rules.shared_elapsed_s(-3_600.0, moved, 10.0) == 0.0


def test_seconds_can_be_added_to_every_session_that_has_not_begun_to_end() -> None:
    assert {state for state in SessionState if rules.takes_time(a_session(state=state))} == LIVE


def test_what_holds_a_place() -> None:
    assert SessionState.STOPPING in HELD
    assert SessionState.STOPPING not in LIVE
    assert rules.is_over(a_session(state=SessionState.EXPIRED))
    assert not rules.is_over(a_session())
