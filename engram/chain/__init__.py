"""The Bittensor chain: the syncer, and the view of the subnets that everybody else reads."""

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
