"""The relay: carries what is learned of subnet and nodes to another network, at least once, in order, signed."""

from engram.relay.errors import NoSuchEntry, NotAbandoned, NotWaiting, RelayError
from engram.relay.model import (
    Entry,
    EntryState,
    LogLine,
    MemoryPayload,
    MinerScore,
    NodeMemory,
    Payload,
    RelayStatus,
    ScoresPayload,
    SignedRoot,
)
from engram.relay.rules import RetryPolicy, memory_of, memory_payload, scores_payload
from engram.relay.signer import PayloadSigner, is_signed

__all__ = [
    "Entry",
    "EntryState",
    "LogLine",
    "MemoryPayload",
    "MinerScore",
    "NoSuchEntry",
    "NodeMemory",
    "NotAbandoned",
    "NotWaiting",
    "Payload",
    "PayloadSigner",
    "RelayError",
    "RelayStatus",
    "RetryPolicy",
    "ScoresPayload",
    "SignedRoot",
    "is_signed",
    "memory_of",
    "memory_payload",
    "scores_payload",
]
