"""Builds the dependencies of a gateway's children. Areas are connected only here: none knows another's actor."""

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import final

import msgspec
from sqlalchemy import Connection

from actors import ActorsError, Context
from config.keys import mask_url
from config.model import Settings
from engram.api import node_model
from engram.chain.model import Metagraph
from engram.chain.read.endpoints import open_endpoints
from engram.chain.submit.sender import Sender
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.fork_folder import FOLDER as FORKS
from engram.chain.sync.fork_folder import ForkFolder
from engram.chain.sync.subnets import Subnets
from engram.control.model import SystemStatus
from engram.control.operations import GatewayOperations
from engram.control.server import control_job
from engram.control.status import status_of
from engram.gateway import probes
from engram.gateway.app import ops_app
from engram.gateway.feed import EventFeed
from engram.gateway.gauges import gauges
from engram.gateway.pricing import Shop
from engram.gateway.sales_check import Conditions, Disk
from engram.gateway.sales_switch import Selling
from engram.gateway.services import Services
from engram.gateway.standing_facts import fixed_facts
from engram.gateway.views import TimedStats
from engram.hotkeys import Keypair
from engram.hotkeys.passwords import password_for
from engram.http.app import App
from engram.http.errors import BadAnswer
from engram.http.tls import Certificates
from engram.payments import networks
from engram.payments.actor import PAYMENT_VERIFIER, PaymentVerifier
from engram.payments.breaker import Breaker, GuardedFacilitator
from engram.payments.evidence import Evidence
from engram.payments.evm_rpc import EvmRpc, json_rpc
from engram.payments.facilitator import HttpFacilitator
from engram.payments.ports import PaymentPorts
from engram.payments.protocol import NewSession, Wanted
from engram.payments.refund_key import RefundKey
from engram.payments.refund_settings import refund_terms
from engram.payments.refunds import settle_up
from engram.payments.supported import FacilitatorStatus
from engram.payments.supported_poller import SupportedPoller
from engram.provisioning import announcing, commitment_notes, node_keys
from engram.provisioning.actor import PROVISIONER
from engram.provisioning.announcing import AnnouncingPorts
from engram.provisioning.backend_factory import with_hotkeys
from engram.provisioning.backends import Backends
from engram.provisioning.certifier import CertifierPorts
from engram.provisioning.commitment_notes import CommitmentNotes
from engram.provisioning.committing import CommittingNodesPorts
from engram.provisioning.countersigning import Countersigner
from engram.provisioning.enrollment import Enrollment, EnrollmentPorts
from engram.provisioning.fleet import Fleet
from engram.provisioning.foreign_secrets import foreign_secrets
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.provisioning.node_addresses import node_client
from engram.provisioning.placement import Standing
from engram.provisioning.processes import listening_ports
from engram.relay import PayloadSigner, RetryPolicy
from engram.relay.actor import RELAY_EMITTER, EmitterPorts, RelayEmitter
from engram.relay.anchoring.committing import Committing, CommittingPorts, NotCommitting
from engram.relay.chain_heads import guard_of
from engram.relay.protocol import GetRelayStatus
from engram.relay.quorum.subnet_now import STALE_S
from engram.relay.receiver import open_receiver
from engram.relay.roots import NodeRoots
from engram.relay.rounds import RoundLosses, RoundPorts
from engram.relay.tools import payload_tool
from engram.roles.balances import balances_of
from engram.roles.hints import GatewayHints
from engram.roles.shared import LEDGER, Shared
from engram.sessions import SystemInstants
from engram.sessions.rules import tiers
from engram.stats import Prover, StatsPorts, StatsView, ask_stats

_NEEDED = {LEDGER: "ledger", PAYMENT_VERIFIER: "payment verifier", PROVISIONER: "provisioner"}
"""Children that sales depend on, by their path in the tree."""


@final
class GatewayPorts:
    """One struct of ports per child."""

    def __init__(
        self,
        p: Shared,
        keypair: Keypair,
        refund_key: RefundKey | None,
        certificates: Certificates | None,
        backends: Backends,
    ) -> None:
        settings = p.settings
        at, ops, played = settings.gateway, settings.ops, settings.facilitator
        self._p = p
        self._keypair = keypair
        self._backends = backends
        self._instants = SystemInstants()
        self._subnets = Subnets(p.clock, settings.chain.netuids, settings.chain.stall_after_s)
        self._standing = FacilitatorStatus(
            Breaker(p.clock, settings.payments.breaker_failures, settings.payments.breaker_open_s)
        )
        self._selling = Selling(p.ledger, default=at.selling)
        self._samples = StatsView(p.clock)
        self.common = common_of(settings, keypair.ss58)
        self.feed = EventFeed(p.ledger)
        self._hints = GatewayHints(p.registry, self.feed, self._samples)
        self._losses = RoundLosses(p.metrics)
        self.listener = p.listener("gateway", at.host, at.port, certificates)
        self.ops_listener = p.listener("ops", ops.host, ops.port)
        named = settings.payments.facilitator_url
        embedded = p.listener("facilitator", played.host, played.port) if named == "embedded" else None
        url = (lambda: embedded.url) if embedded is not None else (lambda: named)
        self.payments = self._payments(url, refund_key)
        self.supported = self._supported(url)
        self._nodes = node_client(settings, p.http)
        self._ring = HotkeyRing(p.folder / node_keys.FOLDER, self._password_of)
        self._enrollment = self._enrolling()
        self.certifier = CertifierPorts(
            ledger=p.ledger, enrollment=self._enrollment, instants=self._instants, hints=self._hints
        )
        self.announcing = self._announcing() if settings.provisioning.announce else None
        self.committing = self._committing() if settings.provisioning.commit_addresses else None
        self.fleet = self._fleet()
        self.stats = self._stats()
        p.keyring.add_heir(PayloadSigner.of(keypair))
        self.emitter = self._emitter()
        self.rounds = self._rounds() if settings.relay.url else None
        self.anchors = self._anchors() if settings.relay.url else None
        self.services = self._services()
        self._status = self._status_of()
        self.control = self._control()

    def _places(self, wanted: Wanted | None = None) -> int:
        """Return how many nodes may run at once: the backends' capacity, bounded by the key pool where there is one,
        and for a session by what its whole time costs there."""
        room = self._backends.places
        if isinstance(wanted, NewSession):
            room = self._backends.places_for(wanted.tier, wanted.seconds)
        room = min(room, self._p.settings.sessions.live_in_all)
        keys = self._hints.usable_keys
        return room if keys is None else min(room, keys)

    def syncer(self) -> MetagraphSyncer:
        """Return the chain's actor."""
        p, chain = self._p, self._p.settings.chain
        forks = ForkFolder(p.own_folder / FORKS)
        return MetagraphSyncer(
            open_endpoints(chain, p.http, p.clock), self._subnets, chain, p.clock, p.rng, keep_fork=forks.keep
        )

    def _payments(self, url: Callable[[], str], refund_key: RefundKey | None) -> PaymentPorts:
        p, settings = self._p, self._p.settings.payments
        facilitator = HttpFacilitator(
            p.http,
            url,
            verify_timeout_s=settings.verify_timeout_s,
            settle_timeout_s=settings.settle_timeout_s,
        )
        return PaymentPorts(
            registry=p.registry,
            settings=p.settings,
            ledger=p.ledger,
            facilitator=GuardedFacilitator(facilitator, self._standing.breaker),
            instants=self._instants,
            ids=p.ids,
            metrics=p.metrics,
            hints=self._hints,
            places=self._places,
            places_in=lambda connection, wanted: self._backends.places_in(connection, wanted.tier, wanted.seconds),
            refund_key=refund_key,
            evidence=self._evidence(),
        )

    def _evidence(self) -> Evidence | None:
        settings = self._p.settings.payments
        if not settings.rpc_url:
            return None
        call = json_rpc(self._p.http, settings.rpc_url, settings.rpc_timeout_s)
        return EvmRpc(call, networks.find(settings.network), settings.confirmations)

    def _supported(self, url: Callable[[], str]) -> SupportedPoller:
        settings = self._p.settings.payments
        network = networks.find(settings.network)
        return SupportedPoller(self._p.http, url, network, self._standing, settings.supported_interval_s)

    def _fleet(self) -> Fleet:
        p, settings = self._p, self._p.settings
        terms = refund_terms(settings.payments)

        def give_back(connection: Connection, session_id: str) -> None:
            settle_up(connection, session_id, terms, self._instants.now())

        keys_folder = p.folder / node_keys.FOLDER

        async def new_key() -> None:
            await node_keys.generate(p.ledger, keys_folder, p.clock.now())

        return Fleet(
            registry=p.registry,
            ledger=p.ledger,
            backends=self._backends,
            instants=self._instants,
            ids=p.ids,
            settings=settings.provisioning,
            tiers=tiers(settings.pricing.lite_usd_per_hour),
            keys_folder=keys_folder,
            has_key=partial(node_keys.has_file, folder=keys_folder),
            is_healthy=self._enrollment.is_healthy,
            settle_up=give_back,
            metrics=p.metrics,
            hints=self._hints,
            expiry_interval_s=settings.stats.expiry_interval_s,
            new_key=new_key if settings.environment == "local" else None,
            taken_ports=listening_ports,
        )

    def _enrolling(self) -> Enrollment:
        p, settings = self._p, self._p.settings.provisioning
        return Enrollment(
            EnrollmentPorts(
                http=self._nodes,
                ledger=p.ledger,
                instants=self._instants,
                ring=self._ring,
                metrics=p.metrics,
                launch_timeout_s=settings.launch_timeout_s,
                secrets=foreign_secrets(settings.foreign_embedding_key_file),
                given=with_hotkeys(p.settings),
            )
        )

    def _announcing(self) -> AnnouncingPorts:
        p, settings = self._p, self._p.settings
        return AnnouncingPorts(
            registry=p.registry,
            ledger=p.ledger,
            ring=self._ring,
            subnets=self._subnets,
            chain=settings.chain,
            netuid=settings.miner.netuid,
            folder=p.own_folder / announcing.FOLDER,
            allows_private=settings.environment == "local",
            http=p.http,
            clock=p.clock,
            rng=p.rng,
            metrics=p.metrics,
        )

    def _committing(self) -> CommittingNodesPorts:
        p, settings = self._p, self._p.settings
        nodes = tuple(open_endpoints(settings.chain, p.http, p.clock))
        return CommittingNodesPorts(
            ledger=p.ledger,
            ring=self._ring,
            subnets=self._subnets,
            netuid=settings.miner.netuid,
            nodes=nodes,
            sender=Sender(nodes, network=settings.chain.network),
            notes=CommitmentNotes(p.own_folder / commitment_notes.FOLDER),
            allows_private=settings.environment == "local",
            clock=p.clock,
            metrics=p.metrics,
        )

    def _stats(self) -> StatsPorts:
        p, settings = self._p, self._p.settings.stats

        async def ask(endpoint: str) -> node_model.NodeStats:
            if self._enrollment.is_suspect(endpoint):
                raise BadAnswer("something answers there by a key that is not the node's")
            return await ask_stats(self._nodes, endpoint, settings)

        return StatsPorts(
            ledger=p.ledger,
            ask=ask,
            view=self._samples,
            instants=self._instants,
            settings=settings,
            rng=p.rng,
            hints=self._hints,
            metrics=p.metrics,
            prove=Prover(self._nodes, self._keypair, settings, p.clock, p.rng),
            block=lambda: self._subnets.block,
        )

    def _emitter(self) -> EmitterPorts:
        p, settings, chain = self._p, self._p.settings.relay, self._p.settings.chain
        receiver = open_receiver(p.http, settings)
        return EmitterPorts(
            ledger=p.ledger,
            receiver=receiver,
            ask_terms=receiver.ask_terms if receiver else None,
            acknowledged_by=lambda: receiver.acknowledged_by if receiver else "",
            receiver_pinned=bool(settings.receiver_key),
            destination=settings.url,
            log_kept_s=settings.log_days * 86_400.0,
            keyring=p.keyring,
            policy=RetryPolicy(settings.attempts, settings.backoff_min_s, settings.backoff_max_s),
            clock=p.clock,
            rng=p.rng,
            metrics=p.metrics,
            losses=self._losses,
            concurrency=settings.concurrency,
            guard=guard_of(
                chain, open_endpoints(chain, p.http, p.clock), p.clock, settings.confirmations, self._subnets
            ),
        )

    def _rounds(self) -> RoundPorts:
        p, settings = self._p, self._p.settings
        return RoundPorts(
            ledger=p.ledger,
            view=self._samples,
            clock=p.clock,
            netuid=settings.miner.netuid,
            signer=self._keypair.ss58,
            block=lambda: self._subnets.block,
            interval_s=settings.relay.round_s,
            hints=self._hints,
            losses=self._losses,
            block_hash=self._subnets.hash_of,
            bound=settings.relay.pending_max,
            ask_root=NodeRoots(p.http, p.clock, settings.stats.timeout_s),
            call_tool=payload_tool(p.http, p.clock, settings.relay),
        )

    def _anchors(self) -> Committing | NotCommitting:
        p, chain, netuid = self._p, self._p.settings.chain, self._p.settings.miner.netuid
        if chain.source != "rpc" or not p.settings.relay.anchor:
            reason = "relay.anchor is false" if chain.source == "rpc" else "chain.source is recorded"
            return NotCommitting(p.ledger, p.clock, netuid, self._keypair.ss58, reason)
        nodes = open_endpoints(chain, p.http, p.clock)

        def metagraph() -> Metagraph | None:
            age_s = self._subnets.age_s(netuid)
            return None if age_s is None or age_s > STALE_S else self._subnets.get(netuid)

        return Committing(
            CommittingPorts(
                ledger=p.ledger,
                keypair=self._keypair,
                clock=p.clock,
                netuid=netuid,
                metagraph=metagraph,
                nodes=nodes,
                sender=Sender(nodes, network=chain.network),
                bound=p.settings.relay.pending_max,
                queued=self._hints.outbox_changed,
                metrics=p.metrics,
            )
        )

    def _control(self) -> Callable[[Context], Awaitable[None]]:
        p = self._p
        operations = GatewayOperations(
            p.own_folder, p.ledger, p.clock, self._instants, self._selling, self._hints, self._status, self._password_of
        )
        return control_job(p.own_folder, operations)

    def _password_of(self, file: Path) -> str | None:
        """Find it as nodes do, which do not inherit the gateway's environment. Raises HotkeyError."""
        password_file = self._p.settings.miner.hotkey_password_file
        return password_for(file, password_file, "miner.hotkey_password_file", environ=None)

    def _services(self) -> Services:
        p, settings = self._p, self._p.settings

        def public_url() -> str:
            return settings.gateway.public_url.rstrip("/") or self.listener.url

        verifier = p.registry.ref(PaymentVerifier, PAYMENT_VERIFIER)
        shop = Shop(settings, public_url, p.ledger, self._selling, verifier, self._places, self._conditions())
        return Services(
            settings=settings,
            public_url=public_url,
            ledger=p.ledger,
            keypair=self._keypair,
            clock=p.clock,
            instants=self._instants,
            ids=p.ids,
            shop=shop,
            stats=_Latest(self._samples),
            countersigner=Countersigner(p.ledger, self._instants, self._ring),
            subnets=self._subnets,
            feed=self.feed,
            metrics=p.metrics,
            probes={
                "ledger": probes.ledger_probe(p.ledger),
                "disk": probes.disk_probe(p.folder),
                "chain": probes.chain_probe(self._subnets),
                "actors": probes.parts_probe(self._missing),
                "sales": probes.sales_probe(shop.sales),
            },
            hints=self._hints,
            backends=self._backends,
            node_http=p.http,
            balances=balances_of(settings, p.ledger, p.http),
        )

    def _conditions(self) -> Conditions:
        """Return everything sales depend on besides the ledger."""
        p, settings = self._p, self._p.settings
        return Conditions(
            fixed=fixed_facts(settings),
            usable_keys=lambda: self._hints.usable_keys,
            places=lambda: min(self._backends.places, settings.sessions.live_in_all),
            silent_backends=lambda: self._backends.silent,
            free_bytes=Disk(p.folder, p.clock).free_bytes,
            chain_read=lambda: bool(self._subnets.synced) if settings.miner.announce else None,
            facilitator=self._standing.refusal,
        )

    def _missing(self) -> list[str]:
        """Return the children that sales depend on and that are not running."""
        running = {node.path.rsplit("/", 1)[-1] for node in self._p.process.nodes() if node.state == "running"}
        return [f"{name} is down" for path, name in _NEEDED.items() if path not in running]

    def _status_of(self) -> Callable[[], Awaitable[SystemStatus]]:
        p = self._p
        return status_of(
            p.settings.environment,
            p.ledger,
            p.clock,
            self._subnets,
            p.process.nodes,
            self._selling.is_on,
            lambda: self.feed.open_streams,
            self._areas,
        )

    async def _areas(self) -> dict[str, dict[str, object]]:
        """Return each area's own part of /status."""
        shown: dict[str, dict[str, object]] = {
            "ledger": msgspec.structs.asdict(await self._p.ledger.commits()),
            "provisioning": {"places": self._places(), "backends": [_shown(one) for one in self._backends.standings]},
        }
        emitter = self._p.registry.ref(RelayEmitter, RELAY_EMITTER)
        with contextlib.suppress(ActorsError):
            shown["relay"] = msgspec.structs.asdict(await emitter.call(GetRelayStatus()))
        return shown

    def ops_app(self) -> App:
        """Return the operator's application."""
        counts = gauges(
            self._p.metrics,
            self._p.ledger,
            self._subnets,
            self.feed,
            self._backends,
            self._p.process.nodes,
            self._p.clock,
        )

        async def refresh() -> None:
            await counts()
            await self.services.shop.sales.measure(self._p.metrics)

        async def relay() -> msgspec.Struct:
            return await self._p.registry.ref(RelayEmitter, RELAY_EMITTER).call(GetRelayStatus())

        return ops_app(self.services, self._status, refresh, relay)


def common_of(settings: Settings, hotkey: str) -> dict[str, str]:
    """Return what must be the same at all gateways of a ledger, by setting.

    The key is named by its address, and the URL bears no secret: all of it is written down and logged.
    """
    return {
        "payments.recipient": settings.payments.recipient,
        "payments.network": settings.payments.network,
        "payments.facilitator_url": mask_url(settings.payments.facilitator_url),
        "gateway.hotkey_file": hotkey,
        "ledger.lease_s": str(settings.ledger.lease_s),
    }


def _shown(standing: Standing) -> dict[str, object]:
    offers = None if standing.offers is None else msgspec.to_builtins(standing.offers)
    return {"name": standing.name, "answers": standing.answers, "reason": standing.reason, "offers": offers}


@final
class _Latest:
    """Adapts the poller's view to the surface's StatsView."""

    def __init__(self, samples: StatsView) -> None:
        self._samples = samples

    def latest(self, session_id: str) -> TimedStats | None:
        """Return the newest stats of a session's node, None before the first."""
        sample = self._samples.sample(session_id)
        return None if sample is None else TimedStats(msgspec.structs.asdict(sample.stats), sample.at)
