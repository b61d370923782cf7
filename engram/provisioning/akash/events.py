"""What a step of a deployment's saga (rules.py) observes. One step brings one event."""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from engram.provisioning.akash.bidding import BidLimits
from engram.provisioning.akash.model import Bid


class Refusal(StrEnum):
    """Why the chain refused, as far as it matters."""

    NO_FUNDS = "no_funds"
    BID_GONE = "bid_gone"
    GONE = "gone"
    """The deployment is closed or was never there."""
    OTHER = "other"


class Included(msgspec.Struct, frozen=True):
    """The transaction is on chain and took effect."""


class Exists(msgspec.Struct, frozen=True):
    """What the transaction was for is on chain already, and is ours."""


class NotIncluded(msgspec.Struct, frozen=True):
    """The transaction is certain never to be on chain."""

    text: str = ""
    """What an endpoint last refused it with."""


class Refused(msgspec.Struct, frozen=True):
    """The chain refused the transaction; nothing changed."""

    refusal: Refusal
    text: str = ""


class Bids(msgspec.Struct, frozen=True):
    """The open bids of the deployment's order."""

    bids: tuple[Bid, ...]
    limits: BidLimits


class Accepted(msgspec.Struct, frozen=True):
    """The provider took the manifest."""


class NoLeaseYet(msgspec.Struct, frozen=True):
    """The provider does not know the lease: its node lags behind the chain."""


class ManifestRejected(msgspec.Struct, frozen=True):
    """The provider refused the manifest for good."""

    text: str = ""


class ProviderFailed(msgspec.Struct, frozen=True):
    """The provider is not reached, or answers with an error."""

    text: str = ""


class Ready(msgspec.Struct, frozen=True):
    """The provider runs the node."""

    endpoint: str


class NotReady(msgspec.Struct, frozen=True):
    """The provider does not run the node yet."""

    text: str = ""


class LeaseEnded(msgspec.Struct, frozen=True):
    """The lease is no longer active, while the deployment may be."""

    text: str = ""


class ChainClosed(msgspec.Struct, frozen=True):
    """The deployment is closed on chain."""

    text: str = ""


class Resend(msgspec.Struct, frozen=True):
    """The node serves no longer: the provider is to get its manifest once more."""


class Close(msgspec.Struct, frozen=True):
    """The node is wanted no longer."""

    reason: str


Event: TypeAlias = (
    Included
    | Exists
    | NotIncluded
    | Refused
    | Bids
    | Accepted
    | NoLeaseYet
    | ManifestRejected
    | ProviderFailed
    | Ready
    | NotReady
    | LeaseEnded
    | ChainClosed
    | Resend
    | Close
)
