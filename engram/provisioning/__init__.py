"""Where nodes run: the Provisioner seam, its backends, node keys, and the saga that brings a session its node."""

from engram.provisioning import node_keys, records, rules
from engram.provisioning.errors import (
    NoCapacity,
    NodeKeyError,
    OtherBackend,
    ProvisioningError,
    Rejected,
    Unavailable,
    Unknown,
)
from engram.provisioning.model import Node, NodeKey, NodeRecord, NodeSpec, NodeState, Offers
from engram.provisioning.node_backend import NodeBackend

__all__ = [
    "NoCapacity",
    "Node",
    "NodeBackend",
    "NodeKey",
    "NodeKeyError",
    "NodeRecord",
    "NodeSpec",
    "NodeState",
    "Offers",
    "OtherBackend",
    "ProvisioningError",
    "Rejected",
    "Unavailable",
    "Unknown",
    "node_keys",
    "records",
    "rules",
]
