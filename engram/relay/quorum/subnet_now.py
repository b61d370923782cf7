"""The subnet as the quorum sees it, from the metagraph that the syncer keeps; and where other validators are."""

import ipaddress
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from config.addresses import is_public
from engram.chain.epochs import current_epoch
from engram.chain.model import Metagraph, Neuron
from engram.hotkeys import PublicKey
from engram.relay.quorum.rules import Subnet

STALE_S: Final = 120.0
"""Age from which on a metagraph says nothing of whose turn it is."""

ReadsMetagraph = Callable[[], Metagraph | None]
"""Returns the newest metagraph; None while there is none, or only one older than STALE_S."""


class Peer(msgspec.Struct, frozen=True):
    """Another validator, and where it is asked."""

    hotkey: PublicKey
    url: str
    """Base URL."""


def subnet_of(metagraph: Metagraph) -> Subnet:
    """Return what the rules need of a metagraph."""
    return Subnet(
        block=metagraph.block,
        epoch=current_epoch(metagraph),
        holders=tuple(neuron.hotkey for neuron in metagraph.neurons if neuron.validator_permit),
    )


def peers_of(
    metagraph: Metagraph, own: PublicKey, named: Mapping[PublicKey, str], *, private_allowed: bool
) -> list[Peer]:
    """Return the other validators with a permit that can be asked: at the URL in `named`, else at their axon.

    An axon whose address is not public is never connected to unless `private_allowed`: anybody may announce one.
    """
    found = []
    for neuron in metagraph.neurons:
        if neuron.validator_permit and neuron.hotkey != own:
            url = named.get(neuron.hotkey) or _announced(neuron, private_allowed=private_allowed)
            if url is not None:
                found.append(Peer(neuron.hotkey, url))
    return found


def _announced(neuron: Neuron, *, private_allowed: bool) -> str | None:
    axon = neuron.axon
    if axon is None or not 0 < axon.port < 65_536:
        return None
    try:
        address = ipaddress.ip_address(axon.ip)
    except ValueError:
        return None
    if not (private_allowed or is_public(address)):
        return None
    return f"http://[{address}]:{axon.port}" if address.version == 6 else f"http://{address}:{axon.port}"
