"""What a facilitator may have done: five answers to a settlement that are never confused, three to a verification."""

from typing import TypeAlias

import msgspec


class NotSent(msgspec.Struct, frozen=True, tag=True):
    """Nothing left this machine."""

    why: str


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """Refused for a reason that is known before anything is broadcast: no money moved by this request."""

    reason: str


class Settled(msgspec.Struct, frozen=True, tag=True):
    """Paid, in this transaction."""

    transaction: str


class Pending(msgspec.Struct, frozen=True, tag=True):
    """Broadcast and not yet in a block."""

    transaction: str | None


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """The request left and what became of it is not known."""

    why: str
    transaction: str | None = None


Settlement: TypeAlias = NotSent | Rejected | Settled | Pending | Unknown


class Valid(msgspec.Struct, frozen=True, tag=True):
    """The facilitator would settle it."""


class Invalid(msgspec.Struct, frozen=True, tag=True):
    """The facilitator would refuse it."""

    reason: str


class Unavailable(msgspec.Struct, frozen=True, tag=True):
    """No verdict; a verification moves nothing, so it may be repeated."""

    why: str


Verification: TypeAlias = Valid | Invalid | Unavailable
