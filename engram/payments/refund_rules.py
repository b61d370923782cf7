"""What a session's end gives back, and how a signed refund goes on: pure, no clock, no I/O.

| how the session ended              | what goes back                                                    |
|------------------------------------|-------------------------------------------------------------------|
| it never became active             | everything                                                        |
| node lost, ended by the operator   | the price of the time that was left, and of outages               |
| stopped by its owner               | the terms' share of what was left, and the price of outages       |
| expired                            | the price of outages                                              |

Outages are the time an active session had no node, beyond what the terms allow. The time bought last is given back
first; parts are rounded down and never exceed what was paid.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from engram.payments.model import Payment
from engram.payments.outcomes import NotSent, Pending, Rejected, Settled, Settlement, Unknown
from engram.payments.rules import EXPIRED, NOT_REACHED, PENDING
from engram.sessions import EndReason

REFUND_VALID_S: Final = 600
"""How long a signed refund is good for."""
RESIGN_MARGIN_S: Final = 600.0
"""Where no chain can be read, a refund is signed again only this long after it expired, and only when the facilitator
calls it expired, too. Both bear the same nonce: at most one of them can ever be used."""


class RefundTerms(msgspec.Struct, frozen=True):
    """What the operator grants."""

    early_stop_share: float
    """0 to 1: part of the remaining time's price when the owner stops."""
    outage_free_s: float
    min_part: int
    """Atomic units: smaller parts are not sent."""


class Ended(msgspec.Struct, frozen=True):
    """How a session ended."""

    reason: EndReason | None
    was_active: bool
    paid_s: float
    used_s: float
    outage_s: float


def owed_s(ended: Ended, terms: RefundTerms) -> float:
    """Return the paid seconds that go back; infinite when nothing was delivered.

    >>> terms = RefundTerms(early_stop_share=0.5, outage_free_s=60.0, min_part=0)
    >>> owed_s(Ended(EndReason.USER, True, 3600.0, 1600.0, 70.0), terms)
    1010.0
    """
    if not ended.was_active:
        return math.inf
    left = max(0.0, ended.paid_s - ended.used_s)
    outage = min(ended.used_s, max(0.0, ended.outage_s - terms.outage_free_s))
    match ended.reason:
        case EndReason.USER:
            share = terms.early_stop_share
        case EndReason.EXPIRED:
            share = 0.0
        case _:
            share = 1.0
    return outage + share * left


def parts(paid: Sequence[Payment], seconds: float, min_part: int) -> list[tuple[Payment, int]]:
    """Return what of each payment goes back when `seconds` in all do, the newest payment first."""
    found = []
    for payment in sorted(paid, key=lambda each: (each.created_at, each.id), reverse=True):
        taken = min(payment.seconds, seconds)
        seconds -= taken
        whole = taken >= payment.seconds
        amount = payment.amount if whole else math.floor(payment.amount * (taken / payment.seconds))
        if amount > 0 and (whole or amount >= min_part):
            found.append((payment, amount))
    return found


class Next(StrEnum):
    """What is done with a refund that was sent."""

    CONFIRM = "confirm"
    RESIGN = "resign"
    """It expired unused: sign it again, with the same nonce."""
    WAIT = "wait"
    """Send the identical one again later."""


def after_answer(settlement: Settlement, *, play: bool, valid_before: int, now: float) -> Next:
    """Return what the facilitator's answer to a sent refund means when no chain was read."""
    match settlement:
        case Settled():
            return Next.CONFIRM
        case Rejected(reason) if reason == EXPIRED and now > valid_before + (0.0 if play else RESIGN_MARGIN_S):
            return Next.RESIGN
        case _:
            return Next.WAIT


def word(settlement: Settlement) -> str:
    """Return an answer as one word, for the operator who looks why a refund has not arrived."""
    match settlement:
        case Settled():
            return "settled"
        case Rejected(reason):
            return reason
        case NotSent():
            return NOT_REACHED
        case Pending():
            return PENDING
        case Unknown(why):
            return why
