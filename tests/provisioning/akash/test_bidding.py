"""Which bid is taken, how providers are remembered, and when a node is placed again."""

from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.ledger.inline import open_inline
from engram.provisioning.akash import bidding, numbering, records
from engram.provisioning.akash.bidding import Attempt, GiveUp, Plan
from engram.provisioning.akash.model import PICO, Bid, ProviderMemory, pico_of
from engram.provisioning.akash.reconciling_rules import Verdict, verdict
from tests.provisioning.akash.deployments import S, a_bid, a_row, limits

NEW = ProviderMemory(provider="p1")


@pytest.mark.parametrize(
    ("bid", "is_taken"),
    [
        (a_bid(), True),
        (a_bid(price=30.0), True),
        (a_bid(price=30.000001), False),
        (a_bid(price=0.0), False),
        (a_bid(denom="uakt"), False),
        (a_bid("gone"), False),
        (a_bid("out"), False),
    ],
)
def test_a_bid_above_the_ceiling_in_other_coins_or_of_an_excluded_provider_is_refused(bid: Bid, is_taken: bool) -> None:
    out = ProviderMemory(provider="out", blacklisted_until=1.0)
    row = a_row(S.BIDDING, excluded=("gone",))
    assert bool(bidding.acceptable([bid], row, limits(0.5, out=out))) is is_taken


def test_the_cheapest_bid_wins_unless_its_provider_failed_or_gives_no_notice() -> None:
    cheap, dear = a_bid("a", 9.0), a_bid("b", 10.0)
    assert bidding.best([dear, cheap], limits()) is cheap
    struck = ProviderMemory(provider="a", strikes=1.0)
    assert bidding.best([dear, cheap], limits(0.0, a=struck)) is dear
    assert bidding.best([dear, cheap], limits(10 * bidding.HALF_LIFE_S, a=struck)) is cheap
    sudden = msgspec.structs.replace(cheap, price=int(9.9 * PICO), reclaim_s=0.0)
    assert bidding.best([sudden, dear], limits()) is dear


def test_a_provider_that_the_session_has_left_is_chosen_only_when_no_one_else_bids() -> None:
    cheap, dear = a_bid("a", 9.0), a_bid("b", 20.0)
    left = msgspec.structs.replace(limits(), left=frozenset({"a"}))
    assert bidding.best([cheap, dear], left) is dear
    assert bidding.best([cheap], left) is cheap


def test_a_session_has_left_the_providers_of_its_closed_deployments() -> None:
    ledger = open_inline()
    rows = (
        a_row(S.CLOSED, dseq=1, session_id="s1", token="t1", hash=b"1", provider="a", closed_at=100.0),
        a_row(S.CLOSED, dseq=2, session_id="s1", token="t2", hash=b"2", provider="b", closed_at=200.0),
        a_row(S.CLOSED, dseq=3, session_id="s2", token="t3", hash=b"3", provider="c", closed_at=200.0),
        a_row(S.SERVING, dseq=4, session_id="s1", token="t4", hash=b"4", provider="d"),
        a_row(S.CLOSED, dseq=5, session_id="s1", token="t5", hash=b"5", provider=None, closed_at=200.0),
    )
    try:
        for row in rows:
            ledger.write_now(partial(records.insert_deployment, row=row))
        assert ledger.write_now(lambda c: records.providers_left(c, "s1", 50.0)) == {"a", "b"}
        assert ledger.write_now(lambda c: records.providers_left(c, "s1", 150.0)) == {"b"}
    finally:
        ledger.close()


def test_many_failures_at_once_are_one_outage_and_one_strike() -> None:
    """akash-network/support#245, #15, node#1676: a provider closed many leases in one block."""
    memory = NEW
    for second in range(30):
        memory = bidding.after_failure(memory, "lease_ended", 1_000.0 + second)
    assert (memory.failures, memory.strikes) == (30, 1.0)
    assert memory.blacklisted_until == 1_000.0 + bidding.BLACKLIST_S
    assert bidding.is_blacklisted(memory, 1_001.0)
    again = bidding.after_failure(memory, "lease_ended", 1_000.0 + bidding.BLACKLIST_S)
    assert again.strikes > 1.9
    assert again.blacklisted_until - (1_000.0 + bidding.BLACKLIST_S) > 1.9 * bidding.BLACKLIST_S


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_a_blacklisting_ends_within_a_day_of_the_last_failure(pauses: list[float]) -> None:
    memory, now = NEW, 0.0
    for pause in pauses:
        now += pause
        memory = bidding.after_failure(memory, "x", now)
    assert not bidding.is_blacklisted(memory, now + bidding.BLACKLIST_MAX_S)


@pytest.mark.parametrize(
    ("reasons", "verdict"),
    [
        ([], Plan(wide=False)),
        (["no_bids"], Plan(wide=True)),
        (["provider_failed"], Plan(wide=False)),
        (["provider_failed", "never_ready"], Plan(wide=False)),
        (["provider_failed", "never_ready", "provider_failed"], GiveUp("provider_failed", for_good=True)),
        (["manifest_rejected"], GiveUp("manifest_rejected", for_good=True)),
        (["no_funds"], GiveUp("no_funds", for_good=True)),
    ],
)
def test_an_order_is_widened_once_and_two_more_providers_are_tried(reasons: list[str], verdict: Plan | GiveUp) -> None:
    attempts = [Attempt(reason, wide=False, at=float(number)) for number, reason in enumerate(reasons)]
    assert bidding.plan(attempts, 100.0) == verdict
    assert bidding.plan(attempts, 100.0 + bidding.ATTEMPTS_WITHIN_S) == Plan(wide=False)


def test_no_bids_even_for_a_wide_order_ends_it() -> None:
    attempts = [Attempt("no_bids", wide=False, at=0.0), Attempt("no_bids", wide=True, at=1.0)]
    assert bidding.plan(attempts, 2.0) == GiveUp("no_bids", for_good=True)


def test_the_ceiling_is_never_above_what_the_tier_sells_for() -> None:
    assert bidding.ceiling(120.0, 360_000, 588.5) == 120 * PICO
    assert bidding.ceiling(1e6, 360_000, 588.5) == int(360_000 * PICO / 588.5)


@given(st.floats(1, 1e7), st.integers(1, 120 * PICO))
def test_an_escrow_pays_the_session_and_a_twentieth_more(seconds: float, price: int) -> None:
    needed = price * seconds / 6.117 / PICO
    assert needed <= bidding.escrow_uact(price, seconds, 0) <= (needed + price / PICO) * 1.05 + 1
    assert bidding.escrow_uact(price, seconds, 500_000) >= 500_000


@pytest.mark.parametrize(
    ("state", "price", "deposit_act", "now", "owed_uact"),
    [
        (S.SERVING, 10.0, 0.0, 0.0, 617_957),  # 100 h, and a twentieth more
        (S.SERVING, 10.0, 0.5, 0.0, 117_957),
        (S.SERVING, 10.0, 0.7, 0.0, 0),
        (S.SERVING, 10.0, 0.5, 50 * 3_600.0, 103_253),  # half is spent, and half of the twentieth
        (S.BIDDING, None, 0.0, 0.0, 1_853_870),  # as the ceiling has it
        (S.CLOSING, 10.0, 0.0, 0.0, 0),
    ],
)
def test_what_sessions_that_were_sold_still_need_is_counted(
    state: S, price: float | None, deposit_act: float, now: float, owed_uact: int
) -> None:
    row = msgspec.structs.replace(
        a_row(state),
        price=None if price is None else int(price * PICO),
        deposit_uact=int(deposit_act * PICO),
        created_at=0.0,
        ends_at=100 * 3_600.0,
    )
    assert abs(bidding.owed_uact(row, now) - owed_uact) < 1_000


def test_negative_amounts_are_read_as_they_are() -> None:
    """akash-network/support#368: the funds of an overdrawn escrow."""
    assert pico_of("-6344.131225000000000000") == -6_344_131_225
    for text in ("", "x", "NaN", "Infinity", "1e99"):
        with pytest.raises(ValueError, match="is not a decimal amount"):
            pico_of(text)


@given(st.text(min_size=1, max_size=8), st.lists(st.floats(1.6e9, 3e9), min_size=1, max_size=20))
def test_numbers_rise_are_ours_and_fit_javascript(ledger_id: str, times: list[float]) -> None:
    last = 0
    for now in times:
        dseq = numbering.next_dseq(ledger_id, now, last)
        assert last < dseq < 2**53
        assert numbering.is_ours(ledger_id, dseq)
        assert not numbering.is_ours(ledger_id + "x", dseq)
        last = dseq


def test_the_numbers_of_console_and_of_the_command_line_are_never_ours() -> None:
    for dseq in (1_760_000_000_000, 24_000_000, 2**40):
        assert verdict(dseq, None, "0123abcd", 2e9, 900.0) is Verdict.FOREIGN


def test_an_orphan_is_closed_after_a_quarter_of_an_hour() -> None:
    dseq = numbering.next_dseq("l", 1.8e9, 0)
    assert verdict(dseq, None, "l", 1.8e9 + 899.0, 900.0) is Verdict.WAIT
    assert verdict(dseq, None, "l", 1.8e9 + 901.0, 900.0) is Verdict.CLOSE
    assert verdict(dseq, a_row(S.SERVING, dseq=dseq), "l", 1.9e9, 900.0) is Verdict.KEEP
    assert verdict(dseq, a_row(S.CLOSED, dseq=dseq), "l", 1.8e9, 900.0) is Verdict.CLOSE


def test_a_deployment_that_a_session_needs_is_kept_whatever_its_manifest_is_said_to_be() -> None:
    dseq = numbering.next_dseq("l", 1.8e9, 0)
    assert verdict(dseq, None, "l", 1.9e9, 900.0, is_live=True) is Verdict.KEEP
