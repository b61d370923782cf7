"""Which keys a launch may have, whatever is shown in whatever order."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.hotkeys import Keypair
from engram.hotkeys.node_identity import Introduction
from engram.provisioning import enrollment_rules as rules
from engram.provisioning.enrollment_rules import MOST_KEYS, VALID_S, Expected, Verdict, certificate, judge

HOTKEY, CONTROLLER = Keypair.from_uri("//Charlie").public_key, Keypair.from_uri("//Dave").public_key
KEYS = [Keypair.from_uri(f"//key{number}").public_key for number in range(MOST_KEYS + 4)]
NOW = 1_800_000_000.0


def expected(*keys: bytes, has_hotkey: bool = False, serves_until: float = NOW + 3_600) -> Expected:
    return Expected(
        session_id="s",
        token="t",
        hotkey=HOTKEY,
        controller=CONTROLLER,
        keys=keys,
        recent_keys=len(keys),
        has_hotkey=has_hotkey,
        serves_until=serves_until,
        ends_at=serves_until + 180,
    )


def shown(key: bytes, box_key: bytes = b"\1" * 32) -> Introduction:
    return Introduction(hotkey=HOTKEY, key=key, box_key=box_key, session_id="s", launch_token="t")


def test_a_node_on_our_own_machine_signs_by_its_hotkey_alone() -> None:
    for launching in (True, False):
        assert judge(shown(HOTKEY, b""), expected(has_hotkey=True), launching=launching) is Verdict.HOTKEY
        assert judge(shown(KEYS[0]), expected(has_hotkey=True), launching=launching) is Verdict.WRONG_KEY


def test_the_first_key_is_taken_while_the_node_starts_and_then_stands() -> None:
    assert judge(shown(KEYS[0]), expected(), launching=True) is Verdict.FIRST
    assert judge(shown(KEYS[0]), expected(), launching=False) is Verdict.WRONG_KEY
    for launching in (True, False):
        assert judge(shown(KEYS[0]), expected(KEYS[0]), launching=launching) is Verdict.SAME


def test_another_key_is_taken_only_from_a_node_that_starts_again() -> None:
    assert judge(shown(KEYS[1]), expected(KEYS[0]), launching=True) is Verdict.REPLACED
    assert judge(shown(KEYS[1]), expected(KEYS[0]), launching=False) is Verdict.WRONG_KEY


@pytest.mark.parametrize("box_key", [b"", b"short", b"\1" * 33, bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 31])
def test_a_key_without_a_box_key_is_none(box_key: bytes) -> None:
    """Nothing can be sealed to a point of small order."""
    assert judge(shown(KEYS[0], box_key), expected(), launching=True) is Verdict.WRONG_KEY


def test_a_node_may_be_started_again_for_months() -> None:
    worn = msgspec.structs.replace(expected(*KEYS[:-1]), recent_keys=MOST_KEYS - 1)
    assert judge(shown(KEYS[-1]), worn, launching=True) is Verdict.REPLACED
    hurried = msgspec.structs.replace(worn, recent_keys=MOST_KEYS)
    assert judge(shown(KEYS[-1]), hurried, launching=True) is Verdict.TOO_MANY_KEYS


@given(st.lists(st.tuples(st.integers(0, len(KEYS) - 1), st.booleans()), max_size=60))
def test_one_key_at_a_time_none_comes_back_and_their_number_is_bounded(steps: list[tuple[int, bool]]) -> None:
    keys: tuple[bytes, ...] = ()
    for number, launching in steps:
        key = KEYS[number]
        verdict = judge(shown(key), expected(*keys), launching=launching)
        if verdict in rules.CERTIFIED:
            assert launching or verdict is Verdict.SAME
            if verdict is not Verdict.SAME:
                assert key not in keys
                keys = (*keys, key)
        else:
            assert verdict not in rules.TRUSTED
        assert len(keys) <= MOST_KEYS
        assert len(set(keys)) == len(keys)


@given(st.floats(-100, 10_000), st.floats(0, 5_000))
def test_a_certificate_is_never_good_for_longer_than_what_was_paid_for(left_s: float, after_s: float) -> None:
    made = certificate(shown(KEYS[0]), expected(serves_until=NOW + left_s), NOW)
    assert made.not_before <= made.not_after <= max(NOW + left_s, made.not_before)
    assert made.not_after - made.not_before <= VALID_S


@given(st.floats(0, 3_600))
def test_a_gateway_that_looks_once_a_minute_never_lets_a_certificate_end(offset_s: float) -> None:
    until, now = NOW + VALID_S, NOW + offset_s
    sweeps = [NOW + 60.0 * sweep for sweep in range(1, 60) if NOW + 60.0 * sweep <= now]
    for sweep in sweeps:
        if rules.is_due(until, NOW + 100_000, sweep):
            until = sweep + VALID_S
    assert until - now > 300


def test_what_is_shown_for_another_launch_names_none_of_this_one() -> None:
    assert rules.names(shown(KEYS[0]), expected())
    for changed in ({"session_id": "x"}, {"launch_token": "x"}, {"hotkey": KEYS[3]}):
        assert not rules.names(msgspec.structs.replace(shown(KEYS[0]), **changed), expected())
