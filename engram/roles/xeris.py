"""The role `xeris`: a receiver of what validators and gateways relay."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, final

import msgspec

from actors import Backoff, ChildSpec, Intensity, Job, SupervisorSpec
from config.model import Settings
from engram.chain.epochs import epoch_at
from engram.chain.read.endpoints import open_endpoints
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.fork_folder import FOLDER as FORKS
from engram.chain.sync.fork_folder import ForkFolder
from engram.chain.sync.subnets import Subnets
from engram.hotkeys import Keypair, PublicKey, ss58, wallet
from engram.http.limits import Limiter, burst_of
from engram.http.listener import Listener
from engram.mcp import Scope
from engram.mcp.access import Policy
from engram.mcp.connect import audience
from engram.mcp.revocation import RevocationFile
from engram.relay.schemas import TAKEN
from engram.roles.process import spare
from engram.roles.shared import LEDGER, Shared
from engram.telemetry.loop_lag import loop_lag_job
from engram.xeris.agent_handlers import Agents
from engram.xeris.agents import catalog
from engram.xeris.anchoring import chain_root
from engram.xeris.app import xeris_app
from engram.xeris.chain_views import ChainViews
from engram.xeris.ops import ops_app
from engram.xeris.permits import chain_permits
from engram.xeris.prices import Sells, UsePaid
from engram.xeris.receiver import XerisReceiver
from engram.xeris.upkeep import PermitWatch, Retention

OWN_KEY: Final = "xeris-hotkey"
REVOKED: Final = "mcp-revoked.json"
DAY_S: Final = 86_400.0


class Payments(Protocol):
    """Takes payments for submissions."""

    @property
    def shop(self) -> Sells:
        """What the surface sells by."""
        ...

    @property
    def use(self) -> UsePaid:
        """What uses one of a key's submissions."""
        ...

    def children(self) -> list[ChildSpec | SupervisorSpec]:
        """Return the children that take payments."""
        ...


OpenPaid = Callable[[Shared, Listener], Payments]
"""Takes the shared parts and the surface's listener. Raises ValueError for a malformed setting."""


def tree(p: Shared, keypair: Keypair, open_paid: OpenPaid | None = None) -> SupervisorSpec:
    """Return the whole tree of a receiver; without `open_paid` submissions cost nothing."""
    at = p.settings.xeris
    chain = msgspec.structs.replace(p.settings.chain, netuids=at.netuids)
    subnets = Subnets(p.clock, at.netuids, chain.stall_after_s)
    nodes = open_endpoints(chain, p.http, p.clock)
    archive = msgspec.structs.replace(chain, endpoints=at.archive_endpoints)
    others = open_endpoints(archive, p.http, p.clock) if at.archive_endpoints else ()
    # Each has room of its own, so that what one reads keeps none of the others from reading.
    permits, strangers, roots, heads = (ChainViews(nodes, others) for _ in range(4))
    reads = chain.source != "recorded"
    keep_s, per_key = at.keep_days * DAY_S, p.settings.http.requests_per_minute_per_hotkey
    listener = p.listener("xeris", at.host, at.port)
    paid = None if open_paid is None else open_paid(p, listener)
    receiver = XerisReceiver(
        p.ledger,
        keypair,
        p.clock,
        gateways=frozenset(ss58.decode(address) for address in at.gateways),
        netuids=at.netuids,
        quorum=at.quorum,
        keep_s=keep_s,
        read_root=chain_root(roots) if reads else None,
        read_permits=chain_permits(permits, at.netuids) if reads else None,
        read_permits_for_others=chain_permits(strangers, at.netuids) if reads else None,
        limiter=Limiter(per_key, burst_of(per_key), p.clock.monotonic),
        taken={
            kind: kept
            for kind, versions in TAKEN.items()
            if (kept := tuple(version for version in versions if version in at.schema_versions))
        },
        use_paid=None if paid is None else paid.use,
        is_registered=lambda netuid, key: is_registered(subnets, netuid, key),
        finalized=lambda netuid: finalized_of(subnets, netuid) if reads else None,
        read_head=heads.head if reads else None,
        epoch_at=lambda netuid, block: epoch_index(subnets, netuid, block),
        judged=lambda code: p.metrics.xeris_judged.labels(code).inc(),
    )
    operators = p.listener("ops", p.settings.ops.host, p.settings.ops.port)
    agents = agents_of(p)
    keep_fork = ForkFolder(p.folder / FORKS).keep

    watch = PermitWatch(p.ledger, subnets, at.netuids, p.clock, p.metrics, at.anchor_epochs)
    retention = Retention(p.ledger, p.clock, keep_s=keep_s, log_kept_s=at.log_days * DAY_S)

    return SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", p.ledger_actor, name=LEDGER, shutdown=30.0),
            spare("loop_lag", lambda: loop_lag_job(p.metrics)),
            *(paid.children() if paid is not None else []),
            spare("xeris_chain", lambda: MetagraphSyncer(nodes, subnets, chain, p.clock, p.rng, keep_fork=keep_fork)),
            spare("xeris_permits", lambda: Job(watch.run)),
            spare("xeris_purge", lambda: Job(retention.run)),
            ChildSpec(
                "ops",
                lambda: operators.job(
                    lambda: ops_app(
                        p.ledger,
                        subnets,
                        keypair.ss58,
                        settings=p.settings.http,
                        clock=p.clock,
                        ids=p.ids,
                        metrics=p.metrics,
                    )
                ),
                shutdown=p.settings.shutdown.drain_s + 2.0,
                backoff=Backoff(0.1, 5.0),
            ),
            ChildSpec(
                "xeris",
                lambda: listener.job(
                    lambda: xeris_app(
                        receiver,
                        p.ledger,
                        settings=p.settings.http,
                        clock=p.clock,
                        ids=p.ids,
                        metrics=p.metrics,
                        selling=None if paid is None else paid.shop,
                        agents=agents,
                    )
                ),
                shutdown=p.settings.shutdown.drain_s + 2.0,
                backoff=Backoff(0.1, 5.0),
            ),
        ],
        strategy="one_for_one",
        intensity=Intensity(restarts=10, period_s=60.0),
    )


def is_registered(subnets: Subnets, netuid: int, key: PublicKey) -> bool:
    """Return whether a key is registered on a subnet; True while the subnet was not read."""
    metagraph = subnets.get(netuid)
    return metagraph is None or metagraph.neuron(key) is not None


def finalized_of(subnets: Subnets, netuid: int) -> int:
    """Return the finalized block at which a subnet was read last; 0 while it was not."""
    metagraph = subnets.get(netuid)
    return 0 if metagraph is None else metagraph.block


def epoch_index(subnets: Subnets, netuid: int, block: int) -> int | None:
    """Return the number of the epoch of a block; None while the subnet was not read."""
    metagraph = subnets.get(netuid)
    return None if metagraph is None else epoch_at(metagraph, block).index


def agents_of(p: Shared) -> Agents:
    """Return what agents are offered over MCP. Raises ValueError for a malformed setting, OSError."""
    at = p.settings.xeris
    callers = frozenset(ss58.decode(address) for address in at.mcp_callers)
    own = audience(at.public_url)
    readers: frozenset[Scope] = frozenset({"read"})
    policy = Policy(
        hosts=frozenset(host.lower() for host in (*at.mcp_hosts, *([own] if own else []))),
        named_by="xeris.mcp_hosts",
        loopback=readers,
        anyone=readers if at.mcp_open_to == "anyone" else frozenset(),
        signed=readers,
        permitted=lambda key: not callers or key in callers,
    )
    return Agents(catalog(p.ledger, at.netuids), policy, RevocationFile(p.folder / REVOKED))


@final
class Xeris:
    """The role: its key, created at the first start; see shared.Role."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Raise HotkeyError, UnusableRefundKey, OSError."""
        path = folder / OWN_KEY
        if not path.exists():
            wallet.write_hotkey_file(path, Keypair.generate())
        self.keypair = wallet.read_private_hotkey_file(path)
        self.settings = settings
        self._open_paid: OpenPaid | None = None
        if settings.xeris.submission_usd > 0:
            from engram.roles.xeris_ports import open_payments  # the payments area: 3 MB, where money is taken

            self.settings, self._open_paid = open_payments(settings, folder)

    async def tree(self, shared: Shared) -> SupervisorSpec:
        """Return the tree. Raises ValueError for a malformed setting."""
        return tree(shared, self.keypair, self._open_paid)

    async def close(self) -> None:
        """Do nothing: the role holds no resources."""


open_role = Xeris
