"""The table of what goes back, written out, with each bound from both sides."""

import math

import pytest

from engram.payments import refund_rules
from engram.payments.outcomes import NotSent, Pending, Rejected, Settled, Settlement, Unknown
from engram.payments.refund_rules import Ended, RefundTerms
from engram.sessions import EndReason
from tests.payments import builders
from tests.payments.builders import NOW

TERMS = RefundTerms(early_stop_share=0.5, outage_free_s=60.0, min_part=0)
EXPIRED = "invalid_exact_evm_payload_authorization_valid_before"
HASH = "0x" + "ab" * 32


@pytest.mark.parametrize(
    ("reason", "paid_s", "used_s", "outage_s", "owed_s"),
    [
        ("user", 3600.0, 1600.0, 0.0, 1000.0),
        ("expired", 3600.0, 3600.0, 0.0, 0.0),
        ("expired", 3600.0, 1600.0, 0.0, 0.0),
        ("operator", 3600.0, 1600.0, 0.0, 2000.0),
        ("node_lost", 3600.0, 1600.0, 0.0, 2000.0),
        ("node_lost", 3600.0, 3700.0, 0.0, 0.0),  # beyond what was paid
        ("expired", 3600.0, 3600.0, 60.0, 0.0),
        ("expired", 3600.0, 3600.0, 61.0, 1.0),
        ("expired", 3600.0, 100.0, 500.0, 100.0),  # at most what was used
        ("user", 3600.0, 1600.0, 70.0, 1010.0),
    ],
)
def test_what_goes_back_follows_the_end(
    reason: str, paid_s: float, used_s: float, outage_s: float, owed_s: float
) -> None:
    assert refund_rules.owed_s(Ended(EndReason[reason.upper()], True, paid_s, used_s, outage_s), TERMS) == owed_s


def test_what_was_never_delivered_goes_back_whole() -> None:
    assert refund_rules.owed_s(Ended(EndReason.PROVISION, False, 3600.0, 0.0, 0.0), TERMS) == math.inf


def parts(seconds: float, min_part: int = 0) -> list[tuple[str, int]]:
    first = builders.payment("first", id="first", amount=100, seconds=10.0, created_at=NOW)
    second = builders.payment("second", id="second", amount=90, seconds=10.0, created_at=NOW + 1)
    return [(paid.id, amount) for paid, amount in refund_rules.parts([first, second], seconds, min_part)]


def test_the_time_bought_last_goes_back_first_and_parts_are_rounded_down() -> None:
    assert parts(0.0) == []
    assert parts(0.01) == []
    assert parts(0.12) == [("second", 1)]
    assert parts(1.0) == [("second", 9)]
    assert parts(10.0) == [("second", 90)]
    assert parts(12.55) == [("second", 90), ("first", 25)]
    assert parts(math.inf) == [("second", 90), ("first", 100)]


def test_the_newest_is_the_one_made_last_and_of_those_made_at_once_the_last_by_id() -> None:
    old = builders.payment("old", id="z", amount=100, seconds=10.0, created_at=NOW)
    new = builders.payment("new", id="a", amount=100, seconds=10.0, created_at=NOW + 1)
    twin = builders.payment("twin", id="b", amount=100, seconds=10.0, created_at=NOW + 1)
    assert [paid.id for paid, _ in refund_rules.parts([old, new, twin], math.inf, 0)] == ["b", "a", "z"]


def test_a_part_below_the_least_is_not_sent_and_a_whole_payment_always_is() -> None:
    assert parts(1.0, min_part=9) == [("second", 9)]
    assert parts(1.0, min_part=10) == []
    assert parts(12.0, min_part=1_000) == [("second", 90)]


@pytest.mark.parametrize(
    ("settlement", "play", "late_s", "following"),
    [
        (Settled(HASH), False, -1.0, "confirm"),
        (Rejected(EXPIRED), True, 0.0, "wait"),
        (Rejected(EXPIRED), True, 0.5, "resign"),
        (Rejected(EXPIRED), False, 600.0, "wait"),
        (Rejected(EXPIRED), False, 600.5, "resign"),
        (Rejected("insufficient_funds"), False, 10_000.0, "wait"),
        (NotSent("down"), False, 10_000.0, "wait"),
        (Unknown("http_504"), False, 10_000.0, "wait"),
    ],
)
def test_a_refund_is_signed_again_only_when_it_is_surely_expired(
    settlement: Settlement, play: bool, late_s: float, following: str
) -> None:
    assert refund_rules.after_answer(settlement, play=play, valid_before=1_000, now=1_000 + late_s) == following


def test_a_signed_refund_is_good_for_ten_minutes() -> None:
    assert refund_rules.REFUND_VALID_S == 600


@pytest.mark.parametrize(
    ("settlement", "word"),
    [
        (Settled(HASH), "settled"),
        (Rejected("insufficient_funds"), "insufficient_funds"),
        (NotSent("down"), "facilitator_unavailable"),
        (Pending(HASH), "settlement_pending"),
        (Unknown("http_504"), "http_504"),
    ],
)
def test_each_answer_has_a_word(settlement: Settlement, word: str) -> None:
    assert refund_rules.word(settlement) == word
