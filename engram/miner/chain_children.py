"""The chain actors of a node: the syncer of its subnet and the announcer of its address."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from config.addresses import announced_at, is_loopback, is_public
from config.model import ChainSettings, MinerSettings
from engram.chain import Subnets
from engram.chain.model import EndpointHealth
from engram.chain.read.endpoint_health import after_failure
from engram.chain.read.endpoints import open_endpoints
from engram.chain.read.watched import watch
from engram.chain.registry.announce_journal import AnnouncementFile
from engram.chain.registry.announce_rules import ServingAddress, serving_address
from engram.chain.registry.announce_view import Announcements
from engram.chain.registry.announcer import Announcer
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.fork_folder import FOLDER as FORKS
from engram.chain.sync.fork_folder import ForkFolder
from engram.chain.sync.gauges import count_changes, measure
from engram.clock import Clock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.miner.errors import NodeError
from engram.miner.ops import OnChain
from engram.miner.stakes import NoSubnet, Subnet, SyncedSubnet
from engram.nodes.launch import LaunchFile
from engram.telemetry.metrics import Metrics

ANNOUNCEMENT: Final = "announcement.json"

_log = structlog.get_logger("engram.miner")


class Following(msgspec.Struct, frozen=True):
    """The node's view of its subnet, the factories of the actors that update it, and the status for /status."""

    subnet: Subnet
    syncer: Callable[[], MetagraphSyncer] | None = None
    """None when the node follows no chain."""
    announcer: Callable[[], Announcer] | None = None
    """None when the node announces no address."""
    status: Callable[[], OnChain] = OnChain


def follow(
    launch: LaunchFile, settings: MinerSettings, keypair: Keypair | None, clock: Clock, metrics: Metrics
) -> Following:
    """Return the chain parts of the node; without its hotkey (`keypair`) it announces nothing, which its gateway does.
    Raises NodeError when the address to announce is not allowed."""
    wanted = _wanted(launch, settings)
    if not launch.chain():
        return Following(NoSubnet())
    chain = ChainSettings(endpoints=launch.chain(), netuids=(launch.netuid,), reset_after_s=launch.chain_reset_after_s)
    subnets = Subnets(clock, chain.netuids, chain.stall_after_s)
    healths = [EndpointHealth() for _ in chain.endpoints]
    forks = ForkFolder(Path(launch.data_dir) / FORKS)
    rng = random.Random()

    def syncer() -> MetagraphSyncer:
        return MetagraphSyncer(
            open_endpoints(chain, HttpClient(), clock),
            subnets,
            chain,
            clock,
            rng,
            healths=healths,
            keep_fork=forks.keep,
        )

    metrics.before_scrape(lambda: measure(metrics, subnets))
    count_changes(metrics, subnets)
    if wanted is None or keypair is None:
        return Following(SyncedSubnet(subnets, launch.netuid), syncer=syncer, status=lambda: OnChain(subnets.status()))
    if is_loopback(launch.host) and not is_loopback(wanted.ip):
        _log.warning("announced_but_on_loopback", listens_on=launch.host, announced=wanted.text)
    announcements = Announcements(subnets, launch.netuid, keypair.public_key, wanted, clock)
    journal = AnnouncementFile(Path(launch.data_dir) / ANNOUNCEMENT)

    def announcer() -> Announcer:
        set_aside = partial(after_failure, rng=rng)
        own = watch(open_endpoints(chain, HttpClient(), clock), clock, rng, healths=healths, set_aside=set_aside)
        return Announcer(
            announcements, own, keypair, journal, on_outcome=lambda outcome: metrics.announcements.labels(outcome).inc()
        )

    metrics.before_scrape(lambda: _measure(metrics, announcements))
    return Following(
        SyncedSubnet(subnets, launch.netuid),
        syncer=syncer,
        announcer=announcer,
        status=lambda: OnChain(subnets.status(), announcements.status()),
    )


def _wanted(launch: LaunchFile, settings: MinerSettings) -> ServingAddress | None:
    """Return the address to announce, or None. The environment of the launch file decides which are allowed."""
    if not settings.announce:
        return None
    try:
        place = serving_address(settings.announce, launch.port)
        address, _ = announced_at(settings.announce)
    except ValueError as error:
        raise NodeError(f"miner.announce: {error}") from None
    if launch.environment != "local" and not is_public(address):
        raise NodeError(f"miner.announce: {address} cannot be reached from the internet, which validators ask from")
    if not launch.chain():
        raise NodeError("miner.announce is set, and the launch file names no chain: set chain_endpoints")
    return place


def _measure(metrics: Metrics, announcements: Announcements) -> None:
    verdict = announcements.status().verdict
    metrics.announcement.show({verdict.value: 1})
