"""The networks on which USDC can be taken, by their CAIP-2 id and by x402's v1 name.

Assets and EIP-712 names: x402 2.25, mechanisms/evm/default_assets. Base Sepolia's token is named "USDC", Base's
"USD Coin": a signature made over the other name recovers to a stranger.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from engram.payments.errors import UnknownNetwork


class Network(msgspec.Struct, frozen=True):
    """A chain and the one dollar token taken on it (6 decimals)."""

    caip2: str
    v1_name: str
    chain_id: int
    asset: bytes
    """20-byte address of the token contract."""
    asset_name: str
    """`name` of the token's EIP-712 domain."""
    asset_version: str
    play: bool = False
    """True: the facilitator's own books are the chain, and what they hold is worth nothing."""
    test: bool = False
    """True: a public test network."""


PLAY: Final = Network(
    caip2="eip155:31337",
    v1_name="engram-play",
    chain_id=31337,
    asset=bytes.fromhex("504c4159000000000000000000000000000000d5"),
    asset_name="Engram Play USD",
    asset_version="2",
    play=True,
)
BASE: Final = Network(
    caip2="eip155:8453",
    v1_name="base",
    chain_id=8453,
    asset=bytes.fromhex("833589fcd6edb6e08f4c7c32d4f71b54bda02913"),
    asset_name="USD Coin",
    asset_version="2",
)
BASE_SEPOLIA: Final = Network(
    caip2="eip155:84532",
    v1_name="base-sepolia",
    chain_id=84532,
    asset=bytes.fromhex("036cbd53842c5426634e7929541ec2318f3dcf7e"),
    asset_name="USDC",
    asset_version="2",
    test=True,
)

NETWORKS: Final[Mapping[str, Network]] = MappingProxyType(
    {name: network for network in (PLAY, BASE, BASE_SEPOLIA) for name in (network.caip2, network.v1_name)}
)


def short_name(network: str) -> str:
    """Return x402's v1 name of a network given by either name, which our answers use; an unknown name as it is.

    >>> short_name("eip155:84532"), short_name("base")
    ('base-sepolia', 'base')
    """
    known = NETWORKS.get(network)
    return network if known is None else known.v1_name


def find(name: str) -> Network:
    """Return the network of that name (CAIP-2 or v1). Raises UnknownNetwork, which lists what can be taken."""
    network = NETWORKS.get(name)
    if network is None:
        raise UnknownNetwork(f"network {name[:64]!r} cannot be taken; known: {', '.join(sorted(NETWORKS))}")
    return network
