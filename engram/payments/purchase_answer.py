"""What a purchase may be answered; each names the HTTP status it becomes."""

from typing import TypeAlias

import msgspec

from engram.payments.model import Payment


class Bought(msgspec.Struct, frozen=True, tag=True):
    """Settled. The session is `payment.session_id`; it may already be further on, or refunded."""

    payment: Payment


class StillPending(msgspec.Struct, frozen=True, tag=True):
    """The outcome is not known yet: 202 `payment_pending`, never a 402."""

    payment: Payment
    retry_after_s: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Not paid, and no money moved: 402 with a fresh offer."""

    code: str
    """x402's word where it has one."""
    message: str


class Conflict(msgspec.Struct, frozen=True, tag=True):
    """This payment was presented before with another request: 409. The answer reveals nothing of that request.

    `code`: payment_conflict; order_taken when the order of a pay link is paid, or being paid, by another payment.
    """

    message: str
    code: str = "payment_conflict"


class Replayed(msgspec.Struct, frozen=True, tag=True):
    """The signature was used before with another request: 401."""

    message: str


class Malformed(msgspec.Struct, frozen=True, tag=True):
    """The payment cannot be read, or lacks what we require: 400."""

    code: str
    message: str


class NoRoom(msgspec.Struct, frozen=True, tag=True):
    """Nothing can be sold now; no money moved.

    `code`: no_capacity (503), session_limit (429), too_many_open_payments (429), session_over (409),
    session_not_paid (503).
    """

    code: str
    message: str
    retry_after_s: int


class CannotNow(msgspec.Struct, frozen=True, tag=True):
    """We or the facilitator cannot do it now; no money moved: 503 with Retry-After."""

    code: str
    message: str
    retry_after_s: int


NotBought: TypeAlias = Refused | Conflict | Replayed | Malformed | NoRoom | CannotNow
PurchaseAnswer: TypeAlias = Bought | StillPending | NotBought
