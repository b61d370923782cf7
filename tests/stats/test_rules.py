"""When to poll, and what silence means."""

from hypothesis import given
from hypothesis import strategies as st

from engram.stats import rules
from engram.stats.rules import Verdict


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 6))
def test_a_session_is_degraded_by_so_many_failures_in_a_row_and_healed_by_one_answer(
    answers: list[bool], limit: int
) -> None:
    degraded, failures, in_a_row = False, 0, 0
    for answered in answers:
        failures = 0 if answered else failures + 1
        in_a_row = 0 if answered else in_a_row + 1
        found = rules.verdict(answered=answered, failures=failures, degraded=degraded, limit=limit)
        if found is Verdict.DEGRADE:
            assert in_a_row == limit
            assert not degraded
            degraded = True
        if found is Verdict.RECOVER:
            assert answered
            degraded = False
        if found is Verdict.REMIND:
            assert degraded
            assert in_a_row % limit == 0
        assert degraded == (in_a_row >= limit)


@given(st.floats(0.1, 1e4), st.floats(0, 0.99), st.floats(0, 1, exclude_max=True))
def test_polls_stay_within_their_jitter(interval: float, jitter: float, roll: float) -> None:
    assert interval * (1 - jitter) <= rules.next_poll_s(interval, jitter, roll) <= interval * (1 + jitter) + 1e-9


def test_at_boot_polls_are_spread_and_a_new_session_is_polled_soon() -> None:
    assert rules.first_poll_s(30.0, 0.5, at_boot=True) == 15.0
    assert rules.first_poll_s(30.0, 0.5, at_boot=False) == 0.5
