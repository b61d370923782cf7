"""Python client of the gateway and of a memory node."""

from engram.sdk.async_node import AsyncNodeClient
from engram.sdk.encryption import HybridCipher, NamespaceCipher, Undecryptable
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
from engram.sdk.key_shares import SharesMissing, collect_key_shares, distribute_key_shares
from engram.sdk.model import Event, Hit, Identity, Memory, Payment, Session, Stopped, Tier
from engram.sdk.node import NodeClient
from engram.sdk.wallet import Wallet

__all__ = [
    "ApiError",
    "AsyncNodeClient",
    "Event",
    "GatewayClient",
    "Hit",
    "HybridCipher",
    "Identity",
    "Impostor",
    "MalformedAnswer",
    "Memory",
    "NamespaceCipher",
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
    "SharesMissing",
    "Stopped",
    "Tier",
    "Undecryptable",
    "WaitedTooLong",
    "Wallet",
    "collect_key_shares",
    "distribute_key_shares",
]
