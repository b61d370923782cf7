"""What the chain itself proves of an authorization, and what follows from it: pure.

| payment        | paid                 | spent otherwise, final | unused, as of the last final block      |
|----------------|----------------------|------------------------|-----------------------------------------|
| unknown        | settled              | voided                 | voided once it has expired, else ask on |
| rejected, void | arrived, once final  | at rest                | at rest once it has expired             |
| settled        | at rest once final   | reorganised            | reorganised, if it should be in by then |

"Used" alone proves nothing: a cancelled authorization is used, too, and so is another one under the same nonce.
"""

from enum import StrEnum
from typing import Final, Protocol, TypeAlias

import msgspec

from engram.payments.model import Payment, PaymentState, Refund
from engram.payments.refund_rules import Next
from engram.payments.rules import PaymentEvent

SHOULD_BE_IN_S: Final = 60.0
"""A settled payment that the chain does not know at a final block this much younger was reorganised away."""


GIVEN_UP_S: Final = 86_400.0
"""A rejected or void payment that the chain tells nothing of is watched for so long after it expired."""


class Question(msgspec.Struct, frozen=True):
    """Which authorization, and what it should have moved."""

    asset: bytes
    payer: bytes
    nonce: bytes
    pay_to: bytes
    amount: int
    since: float
    """Unix seconds before which it cannot have been used."""
    transaction: str | None = None
    """Where it is said to have been used; looked at first, and believed only as far as its receipt goes."""


class Paid(msgspec.Struct, frozen=True, tag=True):
    """The authorization moved the money, by whichever submitter."""

    transaction: str
    final: bool


class Spent(msgspec.Struct, frozen=True, tag=True):
    """It was cancelled, or its nonce was used for something else."""

    why: str
    final: bool


class Unused(msgspec.Struct, frozen=True, tag=True):
    """It was not used as of a final block of time `as_of` (unix seconds)."""

    as_of: float


class NoEvidence(msgspec.Struct, frozen=True, tag=True):
    """The chain could not be read, or its answers contradict each other."""

    why: str


Finding: TypeAlias = Paid | Spent | Unused | NoEvidence


class Evidence(Protocol):
    """Who can look at the chain. Nothing is raised for what the other side does."""

    async def look(self, question: Question) -> Finding:
        """Return what became of the authorization, as far as the chain shows now."""
        ...


class Watch(StrEnum):
    """What is done with a payment of which nothing new was found."""

    REST = "rest"
    """Nothing can happen to it any more."""
    AGAIN = "again"


def about(payment: Payment, transaction: str | None = None) -> Question:
    """Return the question about a buyer's payment; `transaction` is the one the facilitator names now, if any."""
    return Question(
        asset=payment.asset,
        payer=payment.payer,
        nonce=payment.nonce,
        pay_to=payment.pay_to,
        amount=payment.amount,
        since=payment.created_at,
        transaction=transaction or payment.transaction_hash,
    )


def about_refund(payment: Payment, refund: Refund, sender: bytes) -> Question:
    """Return the question about a signed refund."""
    since = refund.signed_at if refund.signed_at is not None else refund.created_at
    return Question(payment.asset, sender, refund.nonce, refund.address, refund.amount, since)


def decide(payment: Payment, finding: Finding, now: float) -> PaymentEvent | Watch:
    """Return what `finding` means for the payment in its state at `now` (unix seconds)."""
    match payment.state, finding:
        case PaymentState.UNKNOWN, Paid():
            return PaymentEvent.SETTLED
        case PaymentState.UNKNOWN, Spent(_, True):
            return PaymentEvent.VOIDED
        case PaymentState.UNKNOWN, Unused(as_of) if as_of >= payment.valid_before:
            return PaymentEvent.VOIDED
        case PaymentState.REJECTED | PaymentState.VOID, Paid(_, True):
            return PaymentEvent.ARRIVED
        case PaymentState.REJECTED | PaymentState.VOID, Spent(_, True):
            return Watch.REST
        case PaymentState.REJECTED | PaymentState.VOID, Unused(as_of) if as_of >= payment.valid_before:
            return Watch.REST
        case PaymentState.REJECTED | PaymentState.VOID, NoEvidence() if now > payment.valid_before + GIVEN_UP_S:
            return Watch.REST
        case PaymentState.SETTLED, Paid(_, True):
            return Watch.REST
        case PaymentState.SETTLED, Spent(_, True):
            return PaymentEvent.REORGANISED
        case PaymentState.SETTLED, Unused(as_of) if as_of > (payment.settled_at or 0.0) + SHOULD_BE_IN_S:
            return PaymentEvent.REORGANISED
        case _:
            return Watch.AGAIN


def after_look(refund: Refund, finding: Finding) -> Next | None:
    """Return what is done with a refund that was sent before; None: send the identical one again."""
    match finding:
        case Paid(_, True):
            return Next.CONFIRM
        case Paid(_, False) | Spent():
            return Next.WAIT
        case Unused(as_of) if refund.valid_before is not None and as_of >= refund.valid_before:
            return Next.RESIGN
        case _:
            return None


def is_final(finding: Finding) -> bool:
    """Return whether the payment has all its confirmations."""
    return isinstance(finding, Paid) and finding.final


def transaction_of(finding: Finding) -> str | None:
    """Return the hash of the transaction that moved the money."""
    return finding.transaction if isinstance(finding, Paid) else None


def word(finding: Finding) -> str:
    """Return a finding as one word, for the log."""
    match finding:
        case Paid(_, final):
            return "paid" if final else "paid_not_final"
        case Spent(why, _) | NoEvidence(why):
            return why
        case Unused():
            return "unused"
