"""Python client of the gateway and of a memory node."""

from engram.sdk.errors import (
    ApiError,
    Impostor,
    MalformedAnswer,
    NodeRefused,
    NotReached,
    OutcomeUnknown,
    PaymentNeeded,
    PaymentRefused,
    SdkError,
    SessionOver,
    WaitedTooLong,
)
from engram.sdk.gateway import GatewayClient
from engram.sdk.model import Event, Hit, Identity, Memory, Payment, Session, Stopped, Tier
from engram.sdk.node import NodeClient
from engram.sdk.wallet import Wallet

__all__ = [
    "ApiError",
    "Event",
    "GatewayClient",
    "Hit",
    "Identity",
    "Impostor",
    "MalformedAnswer",
    "Memory",
    "NodeClient",
    "NodeRefused",
    "NotReached",
    "OutcomeUnknown",
    "Payment",
    "PaymentNeeded",
    "PaymentRefused",
    "SdkError",
    "Session",
    "SessionOver",
    "Stopped",
    "Tier",
    "WaitedTooLong",
    "Wallet",
]
