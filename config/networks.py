"""Which payment networks can be configured, and whether their money is worth anything.

What a payment needs to know beyond that (asset, token names) is `engram.payments.networks`; a test compares the
two tables.
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Money = Literal["play", "test", "real"]

NETWORKS: Final[Mapping[str, Money]] = MappingProxyType(
    {
        "eip155:31337": "play",
        "engram-play": "play",
        "eip155:84532": "test",
        "base-sepolia": "test",
        "eip155:8453": "real",
        "base": "real",
    }
)


def money(network: str) -> Money:
    """Tell what the money of a network (CAIP-2 id or x402 v1 name) is worth.

    Raises ValueError, naming the network and those that can be taken.

    >>> money("base"), money("eip155:84532")
    ('real', 'test')
    """
    try:
        return NETWORKS[network]
    except KeyError:
        near = difflib.get_close_matches(network, NETWORKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"payments on the network {network[:64]!r} cannot be taken, only on {', '.join(NETWORKS)}{hint}"
        ) from None
