"""What buyers are told of refunds is what they get."""

import math

import pytest
from msgspec.structs import replace

from config.model import PaymentSettings
from engram.payments import refund_rules, refund_settings
from engram.payments.networks import BASE
from engram.payments.refund_rules import Ended
from engram.sessions import EndReason

GRANTED = PaymentSettings(early_stop_refund_percent=30, outage_free_s=60.0, refund_min_usd=0.05)
PAID_S, USED_S = 3_600.0, 1_600.0


def share_owed(reason: EndReason | None, *, was_active: bool = True) -> float:
    """The part of the remaining time that goes back, in percent."""
    ended = Ended(reason, was_active, PAID_S, USED_S if was_active else 0.0, 0.0)
    owed = min(refund_rules.owed_s(ended, refund_settings.refund_terms(GRANTED)), PAID_S)
    return 100 * owed / (PAID_S - ended.used_s)


def test_the_published_shares_are_those_that_are_paid() -> None:
    told = refund_settings.published(GRANTED)
    assert told.early_stop_percent == pytest.approx(share_owed(EndReason.USER))
    assert told.node_lost_percent == pytest.approx(share_owed(EndReason.NODE_LOST))
    assert told.ended_by_operator_percent == pytest.approx(share_owed(EndReason.OPERATOR))
    assert told.not_delivered_percent == pytest.approx(share_owed(EndReason.USER, was_active=False))


def test_the_published_outage_and_smallest_part_are_those_that_count() -> None:
    told, terms = refund_settings.published(GRANTED), refund_settings.refund_terms(GRANTED)
    assert (told.outage_free_s, int(told.smallest_part)) == (terms.outage_free_s, terms.min_part) == (60.0, 50_000)
    outage_s = 100.0
    lost = refund_rules.owed_s(Ended(EndReason.EXPIRED, True, PAID_S, PAID_S, told.outage_free_s + outage_s), terms)
    assert lost == pytest.approx(outage_s * told.outage_percent / 100)
    assert not math.isinf(lost)


def test_who_sends_refunds_is_told() -> None:
    assert refund_settings.published(GRANTED).sent == "automatically"
    real = replace(GRANTED, network=BASE.caip2)
    assert refund_settings.published(real).sent == "by_operator"
    assert "by the operator" in refund_settings.published(real).text
    assert refund_settings.published(replace(real, refund_key_file="refund-key")).sent == "automatically"


def test_the_sentence_has_every_figure() -> None:
    text = refund_settings.published(GRANTED).text
    for figure in ("30 %", "60 s", "$0.05"):
        assert figure in text
