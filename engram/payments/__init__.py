"""Payments by x402: offers, verification, settlement, refunds.

What is named here is the area's public face, together with the facade in `purchasing`, which is a module of its own so
that a client of ours (the SDK) reads the wire forms without a ledger.
"""

from engram.payments.errors import (
    MalformedAddress,
    MalformedPayment,
    PaymentError,
    UnknownNetwork,
    UnprovenReceipt,
    UnusableRefundKey,
)
from engram.payments.model import Payment, PaymentKind, PaymentState, Quote, Refund, RefundState, Requirements
from engram.payments.networks import short_name
from engram.payments.purchase_answer import (
    Bought,
    CannotNow,
    Conflict,
    Malformed,
    NoRoom,
    NotBought,
    PurchaseAnswer,
    Refused,
    Replayed,
    StillPending,
)
from engram.payments.x402 import receipt_headers

__all__ = [
    "Bought",
    "CannotNow",
    "Conflict",
    "Malformed",
    "MalformedAddress",
    "MalformedPayment",
    "NoRoom",
    "NotBought",
    "Payment",
    "PaymentError",
    "PaymentKind",
    "PaymentState",
    "PurchaseAnswer",
    "Quote",
    "Refund",
    "RefundState",
    "Refused",
    "Replayed",
    "Requirements",
    "StillPending",
    "UnknownNetwork",
    "UnprovenReceipt",
    "UnusableRefundKey",
    "receipt_headers",
    "short_name",
]
