"""The role `xeris`: a receiver of what validators and gateways relay."""

from pathlib import Path
from typing import Final, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from actors import Backoff, ChildSpec, Context, Intensity, Job, SupervisorSpec
from config.model import Settings
from engram.chain.model import Metagraph
from engram.chain.read.endpoints import open_endpoints
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.fork_folder import FOLDER as FORKS
from engram.chain.sync.fork_folder import ForkFolder
from engram.chain.sync.subnets import Subnets
from engram.hotkeys import Keypair, ss58, wallet
from engram.http.limits import Limiter, burst_of
from engram.ledger import LedgerError
from engram.mcp import Scope
from engram.mcp.access import Policy
from engram.mcp.connect import audience
from engram.mcp.revocation import RevocationFile
from engram.payments.refund_key import RefundKey
from engram.payments.refund_settings import open_refund_key, with_play_recipient
from engram.relay.schemas import TAKEN
from engram.roles.process import spare
from engram.roles.shared import LEDGER, Shared
from engram.roles.xeris_ports import PaidSubmissions
from engram.telemetry.loop_lag import loop_lag_job
from engram.xeris import anchoring, records, submissions
from engram.xeris.agent_handlers import Agents
from engram.xeris.agents import catalog
from engram.xeris.anchoring import chain_root
from engram.xeris.app import xeris_app
from engram.xeris.chain_views import ChainViews
from engram.xeris.ops import measure_kept, ops_app
from engram.xeris.permits import chain_permits
from engram.xeris.receiver import XerisReceiver

OWN_KEY: Final = "xeris-hotkey"
LOOK_S: Final = 3.0
REVOKED: Final = "mcp-revoked.json"
PURGE_S: Final = 3_600.0
DAY_S: Final = 86_400.0

_log = structlog.get_logger("engram.xeris")


def tree(p: Shared, keypair: Keypair, refund_key: RefundKey | None = None) -> SupervisorSpec:
    """Return the whole tree of a receiver."""
    at = p.settings.xeris
    chain = msgspec.structs.replace(p.settings.chain, netuids=at.netuids)
    subnets = Subnets(p.clock, at.netuids, chain.stall_after_s)
    nodes = open_endpoints(chain, p.http, p.clock)
    archive = msgspec.structs.replace(chain, endpoints=at.archive_endpoints)
    views = None
    if chain.source != "recorded":
        views = ChainViews(nodes, open_endpoints(archive, p.http, p.clock) if at.archive_endpoints else ())
    keep_s, per_key = at.keep_days * DAY_S, p.settings.http.requests_per_minute_per_hotkey
    receiver = XerisReceiver(
        p.ledger,
        keypair,
        p.clock,
        gateways=frozenset(ss58.decode(address) for address in at.gateways),
        quorum=at.quorum,
        keep_s=keep_s,
        read_root=None if views is None else chain_root(views),
        read_permits=None if views is None else chain_permits(views, at.netuids),
        limiter=Limiter(per_key, burst_of(per_key), p.clock.monotonic),
        taken={
            kind: kept
            for kind, versions in TAKEN.items()
            if (kept := tuple(version for version in versions if version in at.schema_versions))
        },
        is_paid=at.submission_usd > 0,
        judged=lambda code: p.metrics.xeris_judged.labels(code).inc(),
    )
    listener = p.listener("xeris", at.host, at.port)
    operators = p.listener("ops", p.settings.ops.host, p.settings.ops.port)
    paid = PaidSubmissions(p, listener, refund_key) if at.submission_usd > 0 else None
    agents = agents_of(p)
    keep_fork = ForkFolder(p.folder / FORKS).keep

    async def mark_overdue(metagraph: Metagraph) -> None:
        before = metagraph.block - at.anchor_epochs * (metagraph.parameters.tempo + 1)
        registered = metagraph.uid_by_hotkey.keys()
        marked = await p.ledger.write(lambda c: anchoring.mark_overdue(c, metagraph.netuid, before, registered))
        for kind, payloads in marked.items():
            p.metrics.xeris_overdue.labels(kind).inc(payloads)
            _log.error("not_anchored_in_time", kind=kind, payloads=payloads, netuid=metagraph.netuid)
        # In a process with a gateway the operator's listener is that one's.
        await measure_kept(p.ledger, p.metrics, p.clock.now())

    async def note_permits(context: Context) -> None:
        context.ready()
        noted: dict[int, int] = {}
        while True:
            for netuid in at.netuids:
                metagraph = subnets.get(netuid)
                if metagraph is not None and noted.get(netuid) != metagraph.block:
                    holders = [neuron.hotkey for neuron in metagraph.neurons if neuron.validator_permit]
                    await p.ledger.write(
                        lambda c, m=metagraph, h=holders: records.note_permits(c, m.netuid, m.block, h)  # type: ignore[misc]
                    )
                    noted[netuid] = metagraph.block
                    await mark_overdue(metagraph)
            await trio.sleep(LOOK_S)

    def forget(connection: Connection) -> None:
        before = records.kept_from(connection, p.clock.now(), keep_s)
        records.purge(connection, before)
        anchoring.purge(connection, before)

    async def purge(context: Context) -> None:
        context.ready()
        while True:
            try:
                await p.ledger.write(forget)
                await p.ledger.write(lambda c: submissions.purge(c, p.clock.now() - at.log_days * DAY_S))
            except LedgerError as error:
                _log.error("not_purged", reason=str(error))
            await trio.sleep(PURGE_S)

    return SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", p.ledger_actor, name=LEDGER, shutdown=30.0),
            spare("loop_lag", lambda: loop_lag_job(p.metrics)),
            *(paid.children() if paid is not None else []),
            spare("xeris_chain", lambda: MetagraphSyncer(nodes, subnets, chain, p.clock, p.rng, keep_fork=keep_fork)),
            spare("xeris_permits", lambda: Job(note_permits)),
            spare("xeris_purge", lambda: Job(purge)),
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


def agents_of(p: Shared) -> Agents:
    """Return what agents are offered over MCP. Raises ValueError for a malformed setting, OSError."""
    at = p.settings.xeris
    callers = frozenset(ss58.decode(address) for address in at.mcp_callers)
    own = audience(at.public_url)
    readers: frozenset[Scope] = frozenset({"read"})
    policy = Policy(
        hosts=frozenset(host.lower() for host in (*at.mcp_hosts, *([own] if own else []))),
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
        self.refund_key = open_refund_key(settings, folder) if settings.xeris.submission_usd > 0 else None
        self.settings = with_play_recipient(settings, self.refund_key)

    async def tree(self, shared: Shared) -> SupervisorSpec:
        """Return the tree. Raises ValueError for a malformed setting."""
        return tree(shared, self.keypair, self.refund_key)

    async def close(self) -> None:
        """Do nothing: the role holds no resources."""


open_role = Xeris
