"""Python client of the gateway and of a memory node."""

from engram.sdk.async_key_shares import async_collect_key_shares, async_distribute_key_shares
from engram.sdk.async_node import AsyncNodeClient
from engram.sdk.encryption import HybridCipher, NamespaceCipher, Undecryptable
from engram.sdk.errors import (
    ApiError,
    Impostor,
    ListingIncomplete,
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
from engram.sdk.export_rules import Exported
from engram.sdk.gateway import GatewayClient
from engram.sdk.key_shares import collect_key_shares, distribute_key_shares
from engram.sdk.model import (
    Event,
    Hit,
    Identity,
    Memory,
    OrderPayment,
    OrderStatus,
    Payment,
    PayOrder,
    Session,
    Spending,
    Stopped,
    Tier,
)
from engram.sdk.node import NodeClient
from engram.sdk.restoring import RestoredMemory, read_export, restore_session
from engram.sdk.share_rounds import SharesMissing, SharesNotPlaced
from engram.sdk.share_rules import NodeFault
from engram.sdk.wallet import Wallet

__all__ = [
    "ApiError",
    "AsyncNodeClient",
    "Event",
    "Exported",
    "GatewayClient",
    "Hit",
    "HybridCipher",
    "Identity",
    "Impostor",
    "ListingIncomplete",
    "MalformedAnswer",
    "Memory",
    "NamespaceCipher",
    "NodeClient",
    "NodeFault",
    "NodeRefused",
    "NotReached",
    "OrderPayment",
    "OrderStatus",
    "OutcomeUnknown",
    "PayOrder",
    "Payment",
    "PaymentNeeded",
    "PaymentRefused",
    "RestoredMemory",
    "SdkError",
    "Session",
    "SessionOver",
    "SharesMissing",
    "SharesNotPlaced",
    "Spending",
    "Stopped",
    "Tier",
    "Undecryptable",
    "WaitedTooLong",
    "Wallet",
    "async_collect_key_shares",
    "async_distribute_key_shares",
    "collect_key_shares",
    "distribute_key_shares",
    "read_export",
    "restore_session",
]
