"""Announces nodes that do not have their hotkey on the chain (serve_axon), signed here by that hotkey.

One announcer a node, as a node with its hotkey runs one itself. Only endpoints with a port of their own are announced:
what a provider's web server tells apart by the name of the host has no address that an axon could carry.
"""

import ipaddress
import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from actors import ActorsError, Backoff, ChildSpec, Context, Intensity, Registry
from config.addresses import is_public
from config.model import ChainSettings
from engram.chain.model import EndpointHealth
from engram.chain.read.endpoint_health import after_failure
from engram.chain.read.endpoints import open_endpoints
from engram.chain.read.watched import watch
from engram.chain.registry.announce_journal import AnnouncementFile
from engram.chain.registry.announce_rules import ServingAddress
from engram.chain.registry.announce_view import Announcements
from engram.chain.registry.announcer import LOOK_S, Announcer
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock
from engram.hotkeys import Keypair, ss58
from engram.http.client import HttpClient
from engram.ledger import Ledger, LedgerError
from engram.provisioning import session_keys
from engram.provisioning.errors import NodeKeyError
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.provisioning.model import NodeKey
from engram.sessions import RunningSession
from engram.telemetry.metrics import Metrics

ANNOUNCERS: Final = "node_announcers"
FOLDER: Final = "announcements"
MOST: Final = 256
"""Nodes that are announced at once; more are logged."""
LOOKUPS_AT_ONCE: Final = 16
LOOKUP_S: Final = 5.0
"""For the name of a host, which its provider has chosen and answers for."""
_SHARED_PORTS: Final = frozenset({80, 443})

_log = structlog.get_logger("engram.provisioning")


class AnnouncingPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What announcing nodes needs."""

    registry: Registry
    ledger: Ledger
    ring: HotkeyRing
    subnets: Subnets
    chain: ChainSettings
    netuid: int
    folder: Path
    """Of the announcements that may be in flight, one file a hotkey."""
    allows_private: bool
    """Whether addresses may be announced that cannot be reached from the internet."""
    http: HttpClient
    clock: Clock
    rng: random.Random
    metrics: Metrics


class Place(msgspec.Struct, frozen=True):
    """Where a node is to be announced, and by which key."""

    address: ServingAddress
    key: NodeKey


async def announce_for_ever(ports: AnnouncingPorts, context: Context, look_s: float = LOOK_S) -> None:
    """Start an announcer for each new place and stop those of places that are gone, every `look_s`; a job, endless.

    Raises OSError when the folder cannot be made.
    """
    await trio.to_thread.run_sync(partial(ports.folder.mkdir, mode=0o700, parents=True, exist_ok=True))
    context.ready()
    known: dict[str, Place] = {}
    while True:
        try:
            await _follow(ports, known)
        except (LedgerError, ActorsError) as error:
            _log.warning("nodes_not_announced", reason=str(error))
        await trio.sleep(look_s)


def address_of(endpoint: str, found: str, *, allows_private: bool) -> ServingAddress | None:
    """Return the address of an endpoint whose host is at the IP address `found`; None where none can be announced.

    >>> address_of("http://node.example:31234", "203.0.113.5", allows_private=True).text
    '203.0.113.5:31234'
    >>> address_of("http://node.example", "203.0.113.5", allows_private=True)
    """
    port = urlsplit(endpoint).port
    address = ipaddress.ip_address(found)
    if port is None or port in _SHARED_PORTS or not (allows_private or is_public(address)):
        return None
    return ServingAddress(str(address), port)


async def _follow(ports: AnnouncingPorts, known: dict[str, Place]) -> None:
    """Compare the places with the announcers. Raises LedgerError, ActorsError.

    A node whose key cannot be read keeps no other from being announced.
    """
    announcers = ports.registry.supervisor(ANNOUNCERS)
    wanted = await _places(ports)
    running = {child.id for child in await announcers.children()}
    for token in [token for token in running if known.get(token) != wanted.get(token)]:
        await announcers.stop_child(token)
        running.discard(token)
    over = len(wanted.keys() | running) - MOST
    if over > 0:
        _log.error("nodes_not_announced", nodes=over, reason=f"no more than {MOST} are announced at once")
    for token, place in wanted.items():
        if token not in running and len(running) < MOST:
            try:
                keypair = await ports.ring.keypair(place.key)
            except (NodeKeyError, OSError) as error:
                _log.error("node_not_announced", node=token, reason=str(error))
                continue
            await announcers.start_child(_child(ports, token, place.address, keypair))
            known[token] = place
            running.add(token)


async def _places(ports: AnnouncingPorts) -> Mapping[str, Place]:
    """Return where each node is to be announced. Names are looked up side by side, each for LOOKUP_S at most."""
    found: dict[str, Place] = {}
    room = trio.CapacityLimiter(LOOKUPS_AT_ONCE)

    async def look_up(session: RunningSession, key: NodeKey) -> None:
        async with room:
            resolved = await _resolved(session)
        if resolved is None:
            return
        address = address_of(session.endpoint, resolved, allows_private=ports.allows_private)
        if address is not None:
            found[session.token] = Place(address, key)

    sessions = await ports.ledger.read(session_keys.certified_with_keys)
    async with trio.open_nursery() as nursery:
        for session, key in sessions:
            nursery.start_soon(look_up, session, key)
    return {session.token: found[session.token] for session, _ in sessions if session.token in found}


async def _resolved(session: RunningSession) -> str | None:
    """Return the first IP address of the node's host."""
    host = urlsplit(session.endpoint).hostname or ""
    try:
        with trio.fail_after(LOOKUP_S):
            [(*_, (resolved, *_)), *_] = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError, trio.TooSlowError) as error:
        reason = str(error) or f"its name is not answered within {LOOKUP_S:g} s"
        _log.warning("node_not_resolved", node=session.token, reason=reason)
        return None
    return str(resolved)


def _child(ports: AnnouncingPorts, token: str, address: ServingAddress, keypair: Keypair) -> ChildSpec:
    announcements = Announcements(ports.subnets, ports.netuid, keypair.public_key, address, ports.clock)
    journal = AnnouncementFile(ports.folder / f"{ss58.encode(keypair.public_key)}.json")
    healths = [EndpointHealth() for _ in ports.chain.endpoints]

    def start() -> Announcer:
        set_aside = partial(after_failure, rng=ports.rng)
        endpoints = open_endpoints(ports.chain, ports.http, ports.clock)
        own = watch(endpoints, ports.clock, ports.rng, healths=healths, set_aside=set_aside)
        return Announcer(
            announcements,
            own,
            keypair,
            journal,
            on_outcome=lambda outcome: ports.metrics.announcements.labels(outcome).inc(),
        )

    never_gives_up = Intensity(1_000_000, 1.0)
    return ChildSpec(token, start, backoff=Backoff(1.0, 60.0), intensity=never_gives_up, on_exceed="disable")
