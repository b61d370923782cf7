"""What the ledger says of an order whose purchase was not answered: never a failure that may still turn into a sale."""

import msgspec
import pytest

from engram.payments.model import PaymentState
from engram.payments.protocol import NewSession, Order
from engram.payments.purchase_answer import Bought, CannotNow, Conflict, PurchaseAnswer, Refused, StillPending
from engram.payments.reservations import lost_answer
from engram.sessions import TierName
from tests.payments import builders

PAYMENT = builders.reservation().payment
ORDER = Order(
    quote=builders.quote(),
    wanted=NewSession(TierName.LITE, 3600.0),
    controller=PAYMENT.controller,
    request_hash=PAYMENT.request_hash,
    message_hash=None,
    client_address="",
)


def answered(state: PaymentState) -> PurchaseAnswer:
    return lost_answer(msgspec.structs.replace(PAYMENT, state=state), ORDER)


@pytest.mark.parametrize("state", [PaymentState.RESERVED, PaymentState.SETTLING, PaymentState.UNKNOWN])
def test_an_open_payment_is_pending(state: PaymentState) -> None:
    assert isinstance(answered(state), StillPending)


@pytest.mark.parametrize(
    "state", [PaymentState.SETTLED, PaymentState.REFUND_DUE, PaymentState.REFUNDING, PaymentState.REFUNDED]
)
def test_a_settled_payment_is_bought(state: PaymentState) -> None:
    assert isinstance(answered(state), Bought)


def test_a_void_payment_is_refused_since_it_never_comes_back() -> None:
    assert isinstance(answered(PaymentState.VOID), Refused)


def test_a_rejected_payment_is_unknown_since_the_purchase_may_be_trying_it_again() -> None:
    lost = answered(PaymentState.REJECTED)
    assert isinstance(lost, CannotNow)
    assert lost.code == "outcome_unknown"


def test_a_payment_that_is_not_recorded_is_unknown() -> None:
    lost = lost_answer(None, ORDER)
    assert isinstance(lost, CannotNow)
    assert lost.code == "outcome_unknown"


@pytest.mark.parametrize("state", list(PaymentState))
@pytest.mark.parametrize("other", [{"controller": builders.BOB}, {"request_hash": b"another"}])
def test_the_payment_of_another_request_is_a_conflict_whatever_its_state(
    state: PaymentState, other: dict[str, bytes]
) -> None:
    known = msgspec.structs.replace(PAYMENT, state=state)
    assert isinstance(lost_answer(known, msgspec.structs.replace(ORDER, **other)), Conflict)
