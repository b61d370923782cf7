"""Which miners are asked, and which of them share one score.

A miner is asked at its axon. One that announces none, or one that may not be asked, is asked at the address that its
hotkey has committed. The axon comes first because the two cannot be ordered by their blocks: any commit of a hotkey,
such as a relay's root, renews the block of all its fields.
"""

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from config.addresses import canonical, is_public
from engram.chain.model import Metagraph, Neuron
from engram.chain.registry.registrations import Registration
from engram.hotkeys import PublicKey, ss58
from engram.validator.commitments import NO_COMMITMENTS
from engram.validator.model import Miner

NO_BLACKLIST: Final[Mapping[PublicKey, str]] = {}
_NO_ADDRESS: Final = "announces no address"
_HOST_BITS: Final = 64
"""Of an IPv6 address, in the network of one host."""


def blacklisted(entries: Iterable[str]) -> dict[PublicKey, str]:
    """Return why each hotkey is refused, of entries that are a hotkey (ss58), a space, and why. Raises MalformedHotkey.

    >>> list(blacklisted(["5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty sold our data"]).values())
    ['sold our data']
    """
    parts = (entry.partition(" ") for entry in entries)
    return {ss58.decode(hotkey): reason.strip() for hotkey, _, reason in parts}


def miners(
    metagraph: Metagraph,
    own_hotkey: PublicKey,
    committed: Mapping[PublicKey, Registration] = NO_COMMITMENTS,
    *,
    blacklist: Mapping[PublicKey, str] = NO_BLACKLIST,
    private_allowed: bool = False,
) -> list[Miner]:
    """Return all neurons but this validator's own, each with its URL or the reason why it may not be asked.

    `private_allowed` is for test networks on one machine: an address that is not public is else never connected to.
    """
    return [
        _miner(neuron, committed.get(neuron.hotkey), blacklist, private_allowed=private_allowed)
        for neuron in metagraph.neurons
        if neuron.hotkey != own_hotkey
    ]


def _miner(
    neuron: Neuron, committed: Registration | None, blacklist: Mapping[PublicKey, str], *, private_allowed: bool
) -> Miner:
    if (why := blacklist.get(neuron.hotkey)) is not None:
        url, reason = None, f"on the blacklist: {why}" if why else "on the blacklist"
    else:
        url, reason = _announced(neuron, committed, private_allowed=private_allowed)
    return Miner(hotkey=neuron.hotkey, uid=neuron.uid, coldkey=neuron.coldkey, url=url, reason=reason)


def _announced(neuron: Neuron, committed: Registration | None, *, private_allowed: bool) -> tuple[str | None, str]:
    """Return the URL, or why there is none: of the axon, else of the commitment."""
    reasons = []
    if neuron.axon is not None:
        url, reason = _url(neuron.axon.ip, neuron.axon.port, "announces", private_allowed=private_allowed)
        if url is not None:
            return url, ""
        reasons.append(reason)
    if committed is not None:
        url, reason = _url(committed.address, committed.port, "has committed", private_allowed=private_allowed)
        if url is not None:
            return url, ""
        reasons.append(reason)
    return None, "; ".join(reasons) or _NO_ADDRESS


def _url(host: str, port: int, verb: str, *, private_allowed: bool) -> tuple[str | None, str]:
    try:
        address = canonical(ipaddress.ip_address(host))
    except ValueError:
        return None, f"{verb} {host!r} port {port}, which is no IP address"
    if not 0 < port < 65_536:
        return None, f"{verb} {address} port {port}, which is no port"
    if not (private_allowed or is_public(address)):
        return None, f"{verb} {address}, which is not reachable from the internet"
    return (f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"), ""


def groups(found: Iterable[Miner], proved_at: Collection[tuple[PublicKey, str]]) -> list[frozenset[int]]:
    """Return sets of uids that share one score: miners of one coldkey or of one address, joined transitively.

    The chain has checked the coldkey alone: it signed the registration. An address is whatever a miner announces, so it
    joins those that have answered there under their own hotkey: `proved_at` has hotkeys, each with a URL at which
    it has met a challenge. Whoever announces a stranger's address takes nothing from the stranger. All spellings of
    an IPv4 address are one, and so is a /64 of IPv6: that much is given to a single host.
    """
    proved = {(hotkey, _host(url)) for hotkey, url in proved_at}
    leader: dict[int, int] = {}

    def find(uid: int) -> int:
        while leader[uid] != uid:
            uid = leader[uid]
        return uid

    seen: dict[object, int] = {}
    for miner in found:
        leader[miner.uid] = miner.uid
        marks: list[object] = [miner.coldkey]
        if miner.url is not None and (miner.hotkey, _host(miner.url)) in proved:
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
    """Return what an address is grouped by."""
    host = url.removeprefix("http://").rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        address = canonical(ipaddress.ip_address(host))
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address) >> _HOST_BITS << _HOST_BITS, 128 - _HOST_BITS)))
    return str(address)
