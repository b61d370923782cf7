"""The Bittensor chain: reading it, syncing subnets into memory, sending extrinsics, and the registry of miners."""

from engram.chain.errors import ChainError
from engram.chain.model import (
    Axon,
    AxonMoved,
    ChainStatus,
    Metagraph,
    Neuron,
    PermitLost,
    Registered,
    Removed,
    Replaced,
    SubnetChange,
    SubnetParameters,
)
from engram.chain.sync.subnets import Subnets

__all__ = [
    "Axon",
    "AxonMoved",
    "ChainError",
    "ChainStatus",
    "Metagraph",
    "Neuron",
    "PermitLost",
    "Registered",
    "Removed",
    "Replaced",
    "SubnetChange",
    "SubnetParameters",
    "Subnets",
]
