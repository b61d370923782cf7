"""Which miners are asked, and which of them share one score."""

import ipaddress
from collections.abc import Collection, Iterable
from typing import Final

from config.addresses import is_public
from engram.chain.model import Metagraph, Neuron
from engram.validator.model import Miner

_NO_AXON: Final = "announces no address"


def miners(
    metagraph: Metagraph, own_hotkey: bytes, *, blacklist: Collection[bytes] = (), private_allowed: bool = False
) -> list[Miner]:
    """Return all neurons but this validator's own, each with its URL or the reason why it may not be asked.

    `private_allowed` is for test networks on one machine: an address that is not public is else never connected to.
    """
    return [
        _miner(neuron, blacklist, private_allowed=private_allowed)
        for neuron in metagraph.neurons
        if neuron.hotkey != own_hotkey
    ]


def _miner(neuron: Neuron, blacklist: Collection[bytes], *, private_allowed: bool) -> Miner:
    url, reason = None, ""
    axon = neuron.axon
    if neuron.hotkey in blacklist:
        reason = "on the blacklist"
    elif axon is None:
        reason = _NO_AXON
    else:
        try:
            address = ipaddress.ip_address(axon.ip)
        except ValueError:
            address = None
        if address is None or not 0 < axon.port < 65_536:
            reason = f"announces {axon.ip!r} port {axon.port}, which is no address"
        elif not (private_allowed or is_public(address)):
            reason = f"announces {address}, which is not reachable from the internet"
        else:
            url = f"http://[{address}]:{axon.port}" if address.version == 6 else f"http://{address}:{axon.port}"
    return Miner(hotkey=neuron.hotkey, uid=neuron.uid, coldkey=neuron.coldkey, url=url, reason=reason)


def groups(found: Iterable[Miner]) -> list[frozenset[int]]:
    """Return sets of uids that share one score: miners of one coldkey or of one address, joined transitively."""
    leader: dict[int, int] = {}

    def find(uid: int) -> int:
        while leader[uid] != uid:
            uid = leader[uid]
        return uid

    seen: dict[object, int] = {}
    for miner in found:
        leader[miner.uid] = miner.uid
        marks: list[object] = [miner.coldkey]
        if miner.url is not None:
            marks.append(_host(miner.url))
        for mark in marks:
            if mark in seen:
                one, other = sorted((find(seen[mark]), find(miner.uid)))
                leader[other] = one
            else:
                seen[mark] = miner.uid
    members: dict[int, set[int]] = {}
    for uid in leader:
        members.setdefault(find(uid), set()).add(uid)
    return [frozenset(each) for each in members.values() if len(each) > 1]


def _host(url: str) -> str:
    return url.removeprefix("http://").rpartition(":")[0]
