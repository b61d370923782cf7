"""What the gateway's client decides of an answer: its price, whether to send again, how it is read."""

from typing import TypeVar

import msgspec

from engram import wire
from engram.api.route import Route
from engram.payments import x402
from engram.payments.errors import MalformedPayment
from engram.sdk.errors import ApiError, MalformedAnswer
from engram.sdk.transport import Answer

A = TypeVar("A")
Q = TypeVar("Q")


def dearest_usd(payment_required: str) -> float:
    """Return the highest price among the offers, read from the terms to be signed and not from the body's text."""
    try:
        offers = x402.decode_challenge(payment_required)
    except MalformedPayment as error:
        raise MalformedAnswer(f"the gateway's PAYMENT-REQUIRED header cannot be read: {error}") from None
    if not offers:
        raise MalformedAnswer("the gateway offers no way to pay that is known here (exact, USDC)")
    return max(offer.amount for offer in offers) / 1_000_000


def wait_s(error: ApiError, poll_s: float) -> float | None:
    """Return the seconds to wait before sending the paid request again; None when that would not help."""
    if error.status == 503 or error.code == "rate_limited":
        return min(10.0, error.retry_after_s or poll_s)
    return None


def decode(answer: Answer, route: Route[Q, A]) -> A:
    """Return the body of an answer of the row's success status. Raises MalformedAnswer."""
    assert route.success.answer is not None
    try:
        return wire.decode(answer.body, route.success.answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedAnswer(f"a {answer.status} answer could not be read: {error}") from None
