"""The payment rules against an independent telling of them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engram.payments import rules
from engram.payments.model import AcceptedTerms, Payload, PaymentState
from engram.payments.networks import BASE, PLAY
from engram.payments.outcomes import (
    Invalid,
    NotSent,
    Pending,
    Rejected,
    Settled,
    Settlement,
    Unavailable,
    Unknown,
    Valid,
)
from engram.payments.purchase_answer import CannotNow, Refused
from engram.payments.rules import Delivery, PaymentEffect, PaymentEvent
from tests.payments import builders
from tests.payments.builders import NOW

pytestmark = pytest.mark.rules

HASH = "0x" + "ab" * 32


# The state machine.


def test_the_table_is_the_architecture() -> None:
    told = {
        "reserved": {"settling", "rejected"},
        "settling": {"settled", "rejected", "unknown"},
        "unknown": {"settled", "void", "unknown"},
        "rejected": {"reserved", "refund_due"},
        "void": {"refund_due"},
        "settled": {"unknown", "refund_due"},
        "refund_due": {"refunding"},
        "refunding": {"refunded", "refund_due"},  # a payment may be refunded in parts
    }
    table: dict[str, set[str]] = {}
    for (state, _), decision in rules.TRANSITIONS.items():
        table.setdefault(str(state), set()).add(str(decision.state))
    assert table == told


@pytest.mark.parametrize("state", PaymentState)
@pytest.mark.parametrize("event", PaymentEvent)
def test_what_is_not_in_the_table_does_not_happen(state: PaymentState, event: PaymentEvent) -> None:
    for delivery in Delivery:
        assert (rules.decide(state, event, delivery) is None) == ((state, event) not in rules.TRANSITIONS)


def test_a_stopped_session_takes_no_money_that_was_not_asked_for_yet() -> None:
    decision = rules.decide(PaymentState.RESERVED, PaymentEvent.VERIFIED, Delivery.IMPOSSIBLE)
    assert decision == rules.Transition(PaymentState.REJECTED, (PaymentEffect.RELEASE,))


@pytest.mark.parametrize("state", [PaymentState.SETTLING, PaymentState.UNKNOWN])
def test_money_for_a_stopped_session_is_owed_back_at_once(state: PaymentState) -> None:
    decision = rules.decide(state, PaymentEvent.SETTLED, Delivery.IMPOSSIBLE)
    assert decision == rules.Transition(PaymentState.REFUND_DUE, (PaymentEffect.RELEASE, PaymentEffect.REFUND))


class Money(RuleBasedStateMachine):
    """One payment, any events in any order; kept beside it: what a buyer and an accountant would know."""

    def __init__(self) -> None:
        super().__init__()
        self.state = PaymentState.RESERVED
        self.delivery = Delivery.WAITING
        self.delivered = 0
        self.withdrawn = 0
        self.held = True
        self.refunds = 0
        self.money_with_us = False

    def happen(self, event: PaymentEvent) -> None:
        decision = rules.decide(self.state, event, self.delivery)
        if decision is None:
            return
        self.state = decision.state
        if (event, self.delivery) == (PaymentEvent.SETTLED, Delivery.OWED):
            self.refunds += 1
        if event in (PaymentEvent.SETTLED, PaymentEvent.ARRIVED):
            self.money_with_us = True
        if event is PaymentEvent.REORGANISED:
            self.money_with_us = False
        if event is PaymentEvent.RETRIED:
            self.held, self.delivery = True, Delivery.WAITING
        for effect in decision.effects:
            match effect:
                case PaymentEffect.DELIVER:
                    self.delivered += 1
                    self.delivery, self.held = Delivery.DELIVERED, False
                case PaymentEffect.RELEASE:
                    self.held = False
                case PaymentEffect.REFUND:
                    self.refunds += 1
                case PaymentEffect.WITHDRAW:
                    self.withdrawn += 1
                case PaymentEffect.FORGIVE:
                    assert self.refunds == 0, "nothing of it was sent"

    @rule(event=st.sampled_from(PaymentEvent))
    def any_event(self, event: PaymentEvent) -> None:
        self.happen(event)

    @precondition(lambda self: self.delivery is Delivery.WAITING)
    @rule()
    def the_session_is_stopped(self) -> None:
        self.delivery = Delivery.IMPOSSIBLE

    @precondition(lambda self: self.delivery is Delivery.DELIVERED and self.state is PaymentState.UNKNOWN)
    @rule()
    def the_session_ends_while_its_payment_is_reorganised(self) -> None:
        self.delivery = Delivery.OWED

    @invariant()
    def what_is_owed_is_not_kept(self) -> None:
        assert (self.state, self.delivery) != (PaymentState.SETTLED, Delivery.OWED)

    @invariant()
    def delivers_at_most_once(self) -> None:
        assert self.delivered <= 1
        assert self.withdrawn <= self.delivered

    @invariant()
    def refunds_at_most_once_and_only_what_it_has(self) -> None:
        assert self.refunds <= 1
        assert self.money_with_us or not self.refunds

    @invariant()
    def holds_a_place_exactly_while_it_is_open_and_undelivered(self) -> None:
        assert self.held == (self.state in rules.OPEN and self.delivered == 0)

    @invariant()
    def a_settled_payment_was_delivered(self) -> None:
        if self.state is PaymentState.SETTLED:
            assert self.delivered == 1


TestMoney = Money.TestCase


# What is believed before anybody is asked.


def refusal(payload: Payload, now: float = NOW) -> str | None:
    found = rules.refusal(payload, builders.requirements(), now, 20)
    return None if found is None else found.reason


def test_a_good_payment_is_taken() -> None:
    assert refusal(builders.payload()) is None
    assert refusal(builders.payload(version=1, accepted=None, network="engram-play")) is None


TERMS = AcceptedTerms(100_000, PLAY.asset, builders.RECIPIENT, 120)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scheme": "upto"}, "unsupported_scheme"),
        ({"network": "eip155:8453"}, "network_mismatch"),
        ({"network": "base"}, "network_mismatch"),
        ({"network": "EIP155:31337"}, "network_mismatch"),
        ({"accepted": msgspec.structs.replace(TERMS, amount=1)}, "invalid_payment_requirements"),
        ({"accepted": msgspec.structs.replace(TERMS, asset=BASE.asset)}, "invalid_payment_requirements"),
        ({"accepted": msgspec.structs.replace(TERMS, pay_to=bytes(20))}, "invalid_payment_requirements"),
        ({"accepted": msgspec.structs.replace(TERMS, max_timeout_s=121)}, "invalid_payment_requirements"),
        ({"signature": bytes(65)}, "invalid_exact_evm_payload_signature"),
    ],
)
def test_a_payment_on_other_terms_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert refusal(builders.payload(**changes)) == reason


VALUE = "invalid_exact_evm_payload_authorization_value_mismatch"
BEFORE = "invalid_exact_evm_payload_authorization_valid_before"
AFTER = "invalid_exact_evm_payload_authorization_valid_after"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pay_to": bytes(20)}, "invalid_exact_evm_payload_recipient_mismatch"),
        ({"value": 99_999}, VALUE),
        ({"value": 100_001}, VALUE),
        ({"payer": bytes.fromhex("22" * 20)}, "invalid_exact_evm_payload_signature"),
        ({"payer": builders.RECIPIENT}, "invalid_payload"),
        ({"valid_after": int(NOW)}, AFTER),
        ({"valid_after": int(NOW) - 1}, None),
        ({"valid_before": int(NOW) + 19}, BEFORE),
        ({"valid_before": int(NOW) + 20}, None),
        ({"valid_before": int(NOW) + 240}, None),
        ({"valid_before": int(NOW) + 241}, BEFORE),
    ],
)
def test_an_authorization_of_other_words_or_times_is_refused(changes: dict[str, Any], reason: str | None) -> None:
    assert refusal(builders.payload(builders.authorization(**changes))) == reason


# What a facilitator's answer means.


def success(**changes: Any) -> dict[str, Any]:
    return {"success": True, "transaction": HASH, "network": PLAY.caip2} | changes


def failure(reason: object, transaction: object = "") -> dict[str, Any]:
    return {"success": False, "errorReason": reason, "transaction": transaction, "network": PLAY.caip2}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, success(), Settled(HASH)),
        (200, success(transaction=HASH.upper().replace("X", "x")), Settled(HASH)),
        (200, success(network="engram-play"), Settled(HASH)),
        (200, success(transaction=""), Unknown("success_without_proof")),
        (200, success(transaction=None), Unknown("success_without_proof")),
        (200, success(transaction="0x12"), Unknown("success_without_proof")),
        (200, success(network="eip155:1"), Unknown("success_without_proof", HASH)),
        (200, success(payer="0x" + builders.PAYER.hex().upper()), Settled(HASH)),
        (200, success(payer=None), Settled(HASH)),
        (200, success(payer="0x" + "44" * 20), Unknown("success_without_proof", HASH)),
        (200, success(payer=7), Unknown("success_without_proof", HASH)),
        (400, success(), Unknown("success_without_proof", HASH)),
        (200, failure("insufficient_funds"), Rejected("insufficient_funds")),
        (400, failure("insufficient_funds"), Rejected("insufficient_funds")),
        (200, failure("insufficient_funds", None), Rejected("insufficient_funds")),
        (200, failure("insufficient_funds", HASH), Unknown("insufficient_funds", HASH)),
        (200, failure("invalid_exact_evm_nonce_already_used"), Unknown("invalid_exact_evm_nonce_already_used")),
        (200, failure("transaction_failed", HASH), Unknown("transaction_failed", HASH)),
        (200, failure("settlement_pending", HASH), Pending(HASH)),
        (200, failure("settlement_pending"), Pending(None)),
        (200, failure(None), Unknown("unnamed_reason")),
        (200, failure("<script>"), Unknown("unnamed_reason")),
        (200, {"success": 1}, Unknown("http_200")),
        (200, [], Unknown("http_200")),
        (200, None, Unknown("http_200")),
        (429, {"error": "slow down"}, Unknown("http_429")),
        (500, failure("insufficient_funds"), Unknown("http_500")),
        (504, None, Unknown("http_504")),
    ],
)
def test_only_proof_is_a_settlement_and_only_a_refusal_before_broadcast_is_one(
    status: int, body: object, outcome: Settlement
) -> None:
    assert rules.read_settlement(status, body, PLAY.caip2, builders.PAYER) == outcome


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, {"isValid": True, "payer": "0x" + builders.PAYER.hex().upper()}, Valid()),
        (200, {"isValid": True}, Valid()),
        (200, {"isValid": True, "payer": "0x" + "00" * 20}, Unavailable("verdict_without_proof")),
        (400, {"isValid": True}, Unavailable("verdict_without_proof")),
        (400, {"isValid": False, "invalidReason": "insufficient_funds"}, Invalid("insufficient_funds")),
        (200, {"isValid": False}, Invalid("unnamed_reason")),
        (200, {"isValid": "yes"}, Unavailable("http_200")),
        (503, {"isValid": False, "invalidReason": "insufficient_funds"}, Unavailable("http_503")),
        (200, None, Unavailable("http_200")),
    ],
)
def test_a_verification_is_believed_only_about_our_payer(status: int, body: object, verdict: object) -> None:
    assert rules.read_verification(status, body, builders.PAYER) == verdict


@pytest.mark.parametrize(
    ("state", "settlement", "event"),
    [
        (PaymentState.SETTLING, Settled(HASH), PaymentEvent.SETTLED),
        (PaymentState.UNKNOWN, Settled(HASH), PaymentEvent.SETTLED),
        (PaymentState.SETTLING, NotSent("refused"), PaymentEvent.REFUSED),
        (PaymentState.SETTLING, Rejected("insufficient_funds"), PaymentEvent.REFUSED),
        (PaymentState.SETTLING, Pending(None), PaymentEvent.UNCLEAR),
        (PaymentState.SETTLING, Unknown("http_504"), PaymentEvent.UNCLEAR),
        (PaymentState.UNKNOWN, NotSent("refused"), PaymentEvent.UNCLEAR),
        (PaymentState.UNKNOWN, Rejected("insufficient_funds"), PaymentEvent.UNCLEAR),
        (PaymentState.UNKNOWN, Pending(HASH), PaymentEvent.UNCLEAR),
        (PaymentState.UNKNOWN, Unknown("http_429"), PaymentEvent.UNCLEAR),
    ],
)
def test_what_may_have_been_sent_before_is_never_refused(
    state: PaymentState, settlement: Settlement, event: PaymentEvent
) -> None:
    assert rules.settlement_event(state, settlement, play=True, valid_before=0, now=NOW) is event


@pytest.mark.parametrize(("play", "late", "event"), [(True, 1, "voided"), (False, 1, "unclear"), (True, 0, "unclear")])
def test_only_books_that_know_every_authorization_prove_that_an_expired_one_was_never_used(
    play: bool, late: int, event: str
) -> None:
    told = Rejected(rules.EXPIRED)
    found = rules.settlement_event(PaymentState.UNKNOWN, told, play=play, valid_before=int(NOW), now=NOW + late)
    assert found == event


# Times, refunds, requests.


@given(st.integers(-5, 10_000))
def test_retries_are_spaced_and_bounded(attempts: int) -> None:
    assert rules.RETRY_MIN_S <= rules.retry_delay_s(attempts) <= rules.RETRY_MAX_S
    assert rules.retry_delay_s(attempts) <= rules.retry_delay_s(attempts + 1)


@given(st.integers(0, 10**9), st.lists(st.none() | st.integers(-10, 10**9), max_size=6))
def test_refunds_in_parts_never_exceed_what_was_paid(paid: int, parts: list[int | None]) -> None:
    refunded = 0
    for asked in parts:
        part = rules.refundable(paid, refunded, asked)
        assert part >= 0
        assert asked is None or part <= max(asked, 0)
        refunded += part
    assert refunded <= paid
    assert None not in parts or refunded == paid


def test_every_part_of_a_refund_has_a_nonce_of_its_own_for_ever() -> None:
    parts = [rules.refund_nonce(PLAY.caip2, PLAY.asset, builders.PAYER, builders.nonce(), n) for n in (1, 2, 1)]
    assert parts[0] == parts[2] != parts[1]
    assert all(len(part) == 32 for part in parts)


def test_requests_differ_when_any_part_of_them_does() -> None:
    base = ("POST", b"/sessions", builders.ALICE, b"{}")
    others: list[tuple[str, bytes, bytes, bytes]] = [
        base,
        ("PUT", b"/sessions", builders.ALICE, b"{}"),
        ("POST", b"/sessions/", builders.ALICE, b"{}"),
        ("POST", b"/sessions", builders.BOB, b"{}"),
        ("POST", b"/sessions", builders.ALICE, b"{ }"),
        ("POST/", b"sessions", builders.ALICE, b"{}"),
    ]
    assert len({rules.request_hash(*parts) for parts in others}) == len(others)


def test_a_refusal_that_nothing_proves_is_not_told_as_one() -> None:
    kept = rules.kept_refusal(rules.NONCE_USED, proven=False)
    told = rules.answer(builders.payment(state=PaymentState.REJECTED, reason=kept))
    assert isinstance(told, CannotNow)
    assert told.code == "authorization_may_be_used"
    proven = rules.kept_refusal(rules.NONCE_USED, proven=True)
    assert isinstance(rules.answer(builders.payment(state=PaymentState.REJECTED, reason=proven)), Refused)
