"""The tables of the payment rules, written out: each row of them, each bound from both sides, each value that is kept
for ever."""

import itertools

import pytest

from engram.payments import rules
from engram.payments.model import PaymentState
from engram.payments.outcomes import Rejected, Unknown
from engram.payments.purchase_answer import Bought, CannotNow, NoRoom, PurchaseAnswer, Refused, StillPending
from engram.payments.rules import Delivery, PaymentEffect, PaymentEvent
from tests.payments import builders
from tests.payments.builders import NOW

pytestmark = pytest.mark.rules

ARROWS = """
reserved    verified          settling
reserved    refused           rejected    release
settling    settled           settled     deliver
settling    refused           rejected    release
settling    unclear           unknown
unknown     settled           settled     deliver
unknown     unclear           unknown
unknown     voided            void        release
rejected    retried           reserved
rejected    arrived           refund_due  refund
void        arrived           refund_due  refund
settled     reorganised       unknown
settled     owed              refund_due  refund
refund_due  refund_sent       refunding
refunding   part_refunded     refund_due
refunding   refund_confirmed  refunded
"""
"""From, by, to, with: while what was bought waits."""
OTHERWISE = """
reserved  verified  impossible  rejected    release
settling  settled   impossible  refund_due  release refund
settling  settled   delivered   settled
settling  settled   owed        refund_due
unknown   settled   impossible  refund_due  release refund
unknown   settled   delivered   settled
unknown   settled   owed        refund_due
unknown   voided    delivered   void        withdraw
unknown   voided    owed        void        forgive
"""
"""From, by, how what was bought stands, to, with: where that makes a difference."""


def test_the_arrows_between_states_are_these_and_no_others() -> None:
    drawn: dict[tuple[str, str, str], tuple[str, list[str]]] = {}
    for row in ARROWS.strip().splitlines():
        state, event, after, *effects = row.split()
        drawn |= {(state, event, delivery): (after, effects) for delivery in Delivery}
    for row in OTHERWISE.strip().splitlines():
        state, event, delivery, after, *effects = row.split()
        drawn[state, event, delivery] = (after, effects)
    for case in itertools.product(PaymentState, PaymentEvent, Delivery):
        decision = rules.decide(*case)
        assert (None if decision is None else (decision.state, [*decision.effects])) == drawn.get(case), case


@pytest.mark.parametrize(
    ("named", "states"),
    [
        (rules.OPEN, "reserved settling unknown"),
        (rules.AT_ONCE, "reserved settling"),
        (rules.OWED, "refund_due refunding"),
        (rules.WORKED, "reserved settling unknown refund_due refunding"),
        (rules.GIVEN_UP, "rejected void"),
        (rules.PAID, "settled refund_due refunding refunded"),
    ],
)
def test_which_states_are_open_owed_given_up_and_paid(named: frozenset[PaymentState], states: str) -> None:
    assert named == set(states.split())


BEFORE_BROADCAST = """
insufficient_funds invalid_exact_evm_insufficient_balance invalid_exact_evm_payload_signature
invalid_exact_evm_payload_recipient_mismatch invalid_exact_evm_payload_authorization_value_mismatch
invalid_exact_evm_payload_authorization_valid_before invalid_exact_evm_payload_authorization_valid_after
invalid_exact_evm_payload_undeployed_smart_wallet invalid_exact_evm_token_name_mismatch
invalid_exact_evm_token_version_mismatch invalid_exact_evm_eip3009_not_supported missing_eip712_domain network_mismatch
invalid_network unsupported_scheme invalid_scheme invalid_x402_version invalid_payload invalid_payment_requirements
asset_not_deployed_contract
"""
MAY_HAVE_MOVED = """
invalid_exact_evm_nonce_already_used invalid_exact_evm_transaction_simulation_failed transaction_failed settle_failed
"""


def settle_failed(reason: str) -> object:
    body = {"success": False, "errorReason": reason, "transaction": ""}
    return rules.read_settlement(200, body, "eip155:31337", builders.PAYER)


@pytest.mark.parametrize("reason", BEFORE_BROADCAST.split())
def test_a_reason_that_is_found_before_broadcasting_is_a_refusal(reason: str) -> None:
    assert settle_failed(reason) == Rejected(reason)


@pytest.mark.parametrize("reason", MAY_HAVE_MOVED.split())
def test_any_other_reason_leaves_the_outcome_unknown(reason: str) -> None:
    assert settle_failed(reason) == Unknown(reason)


@pytest.mark.parametrize(("status", "is_read"), [(199, False), (200, True), (499, True), (500, False)])
def test_an_outcome_is_read_from_200_to_499(status: int, is_read: bool) -> None:
    refused = {"success": False, "errorReason": "insufficient_funds", "transaction": ""}
    settled = rules.read_settlement(status, refused, "eip155:31337", builders.PAYER)
    assert settled == (Rejected("insufficient_funds") if is_read else Unknown(f"http_{status}"))


@pytest.mark.parametrize("reason", ["invalid_exact_evm_nonce_already_used", rules.SIMULATION_FAILED])
def test_a_refusal_that_may_mean_a_used_authorization_is_kept_as_one_unless_proven(reason: str) -> None:
    assert rules.kept_refusal(reason, proven=False) == "authorization_may_be_used"
    assert rules.kept_refusal(reason, proven=True) == reason


def answered(state: str, reason: str | None = None) -> PurchaseAnswer:
    return rules.answer(builders.payment(state=PaymentState(state), reason=reason))


@pytest.mark.parametrize("state", ["reserved", "settling", "unknown"])
def test_an_open_payment_is_pending_for_its_buyer(state: str) -> None:
    told = answered(state)
    assert isinstance(told, StillPending)
    assert (told.payment.state, told.retry_after_s) == (state, 3)


@pytest.mark.parametrize("state", ["settled", "refund_due", "refunding", "refunded"])
def test_a_payment_that_was_settled_has_bought(state: str) -> None:
    assert isinstance(answered(state), Bought)


@pytest.mark.parametrize(
    ("state", "reason", "kind", "code", "retry_after_s"),
    [
        ("void", None, Refused, "void", None),
        ("rejected", "facilitator_unavailable", CannotNow, "facilitator_unavailable", 5),
        ("rejected", "interrupted", CannotNow, "facilitator_unavailable", 5),
        ("rejected", "authorization_may_be_used", CannotNow, "authorization_may_be_used", 5),
        ("rejected", "session_stopped", NoRoom, "session_over", 0),
        ("rejected", "insufficient_funds", Refused, "insufficient_funds", None),
        ("rejected", None, Refused, "unnamed_reason", None),
    ],
)
def test_what_the_buyer_of_a_payment_that_came_to_nothing_is_answered(
    state: str, reason: str | None, kind: type[object], code: str, retry_after_s: int | None
) -> None:
    told = answered(state, reason)
    assert (type(told), getattr(told, "code", ""), getattr(told, "retry_after_s", None)) == (kind, code, retry_after_s)


def test_a_payment_is_ours_once_settled_even_while_its_block_is_reorganized() -> None:
    for state in PaymentState:
        assert rules.was_paid(builders.payment(state=state)) == (state in rules.PAID)
    assert rules.was_paid(builders.payment(state=PaymentState.UNKNOWN, settled_at=NOW))
    assert not rules.was_paid(builders.payment(state=PaymentState.VOID, settled_at=NOW))


def test_waiting_ends_when_a_payment_is_decided_or_quarantined() -> None:
    for state in PaymentState:
        assert rules.is_decided(builders.payment(state=state)) == (state not in rules.OPEN)
    assert rules.is_decided(builders.payment(state=PaymentState.UNKNOWN, quarantined_at=NOW))


def test_a_reservation_is_stale_from_its_last_second_on() -> None:
    reserved = builders.payment(updated_at=NOW)
    assert not rules.is_stale(reserved, NOW + 59.9, 60.0)
    assert rules.is_stale(reserved, NOW + 60.0, 60.0)
    assert not rules.is_stale(builders.payment(state=PaymentState.SETTLING, updated_at=NOW), NOW + 600.0, 60.0)


def test_unknown_settlements_are_looked_at_after_1_s_doubling_to_60() -> None:
    delays = [rules.retry_delay_s(attempts) for attempts in range(-1, 9)]
    assert delays == [1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("waited_s", "delay_s"), [(0, 15), (150, 15), (160, 16), (600, 60), (1_200, 120), (1_210, 120), (1e9, 120)]
)
def test_the_chain_is_looked_at_after_a_tenth_of_the_time_waited(waited_s: float, delay_s: float) -> None:
    assert rules.watch_delay_s(waited_s) == delay_s


def test_an_authorization_may_be_good_for_two_minutes_longer_and_five_crashes_quarantine() -> None:
    assert (rules.AHEAD_S, rules.QUARANTINE_AFTER) == (120, 5)


@pytest.mark.parametrize(
    ("paid", "refunded", "asked", "left"),
    [(10, 0, None, 10), (10, 4, None, 6), (10, 11, None, 0), (10, 4, 6, 6), (10, 4, 7, 6), (10, 4, -1, 0)],
)
def test_a_refund_is_at_most_what_is_left(paid: int, refunded: int, asked: int | None, left: int) -> None:
    assert rules.refundable(paid, refunded, asked) == left


def test_hashes_that_are_kept_never_change() -> None:
    """They stand in ledgers and on chains: another value would repeat a refund, or take a repeated request for new."""
    assert rules.request_hash("POST", b"/sessions", b"\1" * 32, b"{}").hex() == (
        "b23501a41d8e78f0bad00b3e1b620f4a281298c432ba111b734d2f4f65278e46"
    )
    assert rules.refund_nonce("eip155:8453", b"\1" * 20, b"\2" * 20, b"\3" * 32, 1).hex() == (
        "c8f83b614f1a871bb9cef3e8ef611d5e10b91ce03813b83aaae9ca63d8d9c67e"
    )


def test_effects_are_written_only_where_the_table_says() -> None:
    named = {word for line in (ARROWS + OTHERWISE).splitlines() for word in line.split()}
    assert {str(effect) for effect in PaymentEffect} - named == set()
