"""The refund terms that buyers see before they pay, in the 402 and at /terms, made from the operator's settings.

The specification of x402's flow `upfront` defines no refund: refunds are the seller's own terms, which are therefore
part of the offer.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Percent = Annotated[int, Meta(ge=0, le=100)]


class PublishedTerms(msgspec.Struct, frozen=True):
    """Percents are of the price of the time that is not delivered, what is not active yet counting as a whole."""

    not_delivered_percent: Percent
    """No node could be provided, or the session was stopped before its node was active."""
    node_lost_percent: Percent
    """An active node was lost for good: of the remaining time."""
    ended_by_operator_percent: Percent
    """The operator ended the session: of the remaining time."""
    early_stop_percent: Percent
    """The owner stopped an active session: of the remaining time."""
    outage_percent: Percent
    """Of the time an active session had no node beyond `outage_free_s`."""
    outage_free_s: Annotated[float, Meta(ge=0)]
    smallest_part: Annotated[str, Meta(pattern="^[0-9]+$")]
    """Atomic units of the token that was paid: smaller parts of a payment are not sent."""
    recipient: Literal["payer"]
    """Only ever the address that paid, in the token it paid with."""
    sent: Literal["automatically", "by_operator"]
    text: str
    """All of it in a sentence."""
