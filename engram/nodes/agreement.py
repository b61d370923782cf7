"""What gateway and node agree on: the version of what they speak, and the secrets that a node gets after its start.

A gateway drives nodes of the last two versions, because nodes outlive it; a node of a version that it does not know is
not used, and the reason is logged. Version 1 had no introduction: such nodes run on the gateway's own machine alone.
"""

from typing import Final

import msgspec

PROTOCOL: Final = 2
"""What this node speaks. Rises when a gateway of the version before could no longer drive it."""
DRIVEN: Final = frozenset({PROTOCOL - 1, PROTOCOL})
"""What this gateway drives."""
INTRODUCED_SINCE: Final = 2
"""Nodes of this version and later introduce themselves."""


class NodeSecrets(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node must know that no provider of its machine is told; sealed to the node's box key."""

    embedding_api_key: str = ""
    """Of the embedding server, where the node's embedder is `openai`."""

    def __repr__(self) -> str:
        return "NodeSecrets()"
