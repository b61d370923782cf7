"""Composition root: settings -> supervision tree -> trio.run. Nothing else wires the areas together.

    python run.py ROLE [ROLE …] [--profile local|testnet|mainnet] [--port N] …

Roles named together share one process, one ledger and one loop. A node (`miner --config launch.json`) is a tree of
its own, put together in engram/miner/node.py.
"""

import contextlib
import gc
import importlib
import json
import os
import random
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

import config
from actors import (
    Actor,
    ActorDown,
    ActorsError,
    Backoff,
    ChildSpec,
    EventStream,
    Intensity,
    Job,
    MailboxFull,
    NodeInfo,
    Registry,
    StartFailed,
    SupervisorSpec,
    System,
    SystemFailed,
    open_system,
)
from config.model import Settings
from engram import crash_reports
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock, Ids, SystemClock, SystemIds
from engram.hotkeys import HotkeyError, Keypair, WalletFileError, wallet
from engram.hotkeys.passwords import at_terminal, password_for
from engram.http import descriptors
from engram.http.app import App
from engram.http.client import HttpClient
from engram.http.listener import Listener
from engram.http.tls import Certificates
from engram.ledger import (
    LEDGER_FILE,
    FolderInUse,
    Group,
    LedgerActor,
    LedgerClient,
    LedgerError,
    LedgerUnusable,
    data_folder,
    facts,
)
from engram.ledger.connection import open_writer
from engram.provisioning.errors import ProvisioningError
from engram.telemetry import logs
from engram.telemetry.actor_events import observer
from engram.telemetry.loop_lag import loop_lag_job
from engram.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from engram.control.model import SystemStatus
    from engram.gateway.sales_check import Conditions
    from engram.gateway.services import Services
    from engram.gateway.views import NodeStats
    from engram.payments.evidence import Evidence
    from engram.provisioning import Offers, Provisioner
    from engram.stats import StatsView

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_CANNOT_START: Final = 2
LEDGER: Final = "ledger"
OWN_HOTKEY: Final = "gateway-hotkey"
STOP_NODES_S: Final = 30.0

_log = structlog.get_logger("engram")


def main(
    roles: Sequence[str], loaded: config.Loaded, *, ready_fd: int | None = None, launch: Path | None = None
) -> int:
    """Run the roles until SIGTERM or Ctrl-C; returns the exit status (0 ended as it should, 1 failed, 2 cannot start).

    `ready_fd` gets one JSON line with the URLs once everything serves. `launch` is the launch file of a node.
    """
    settings = loaded.settings
    os.umask(0o077)  # what is written holds signed payments and keys' paths
    descriptors.raise_limit()
    if "miner" in roles:
        return _run_node(roles, settings, launch)
    logs.configure(settings.log.level, json=_logs_are_json(settings))
    for caution in config.cautions(settings, roles):
        _log.warning("setting_to_look_at", key=caution.key, reason=caution.message)
    for unread in loaded.unread:
        _log.warning("variable_not_read", name=unread.key, reason=unread.message)
    try:
        with data_folder(Path(settings.data_dir)) as folder:
            return trio.run(Process(roles, settings, folder, ready_fd).run)
    except (FolderInUse, HotkeyError, LedgerError, OSError, ValueError) as error:
        print(f"engram cannot start: {error}", file=sys.stderr)
        return EXIT_CANNOT_START


def _run_node(roles: Sequence[str], settings: Settings, launch: Path | None) -> int:
    from engram.miner import node

    if tuple(roles) != ("miner",) or launch is None:
        print("a miner runs alone, from its launch file: miner --config launch.json", file=sys.stderr)
        return EXIT_CANNOT_START
    return node.main(launch, settings.miner, settings.log.level)


def _logs_are_json(settings: Settings) -> bool:
    return settings.log.format == "json" or (settings.log.format == "auto" and not sys.stderr.isatty())


class Process:
    """What all roles of this process share, and its life from start to exit status."""

    def __init__(self, roles: Sequence[str], settings: Settings, folder: Path, ready_fd: int | None) -> None:
        self.roles = tuple(roles)
        self.settings = settings
        self.folder = folder
        self.registry = Registry()
        self.clock: Clock = SystemClock()
        self.ids: Ids = SystemIds()
        self.rng = random.Random(secrets.randbits(64))
        self.metrics = Metrics()
        self.ledger_id = _ledger_id(folder, settings.environment)
        self.keypair = _own_keypair(settings, folder) if "gateway" in self.roles else None
        certificates = _certificates(settings) if "gateway" in self.roles else None
        self.listeners = {
            name: Listener(at.host, at.port, settings.http, settings.shutdown.drain_s, shown)
            for name, at, shown in (
                ("gateway", settings.gateway, certificates),
                ("ops", settings.ops, None),
                ("facilitator", settings.facilitator, None),
            )
        }
        self.system: System | None = None
        self._ready_fd = ready_fd
        self._fatal: LedgerError | None = None

    async def run(self) -> int:
        """Open the tree, say that it is ready, and wait for its end."""
        self.http = HttpClient()
        self.ledger = LedgerClient(self.registry.ref(LedgerActor, LEDGER), self.folder)
        async with trio.open_nursery() as nursery:
            boot, status = trio.CancelScope(), EXIT_OK
            nursery.start_soon(self._stop_on_signals, boot)
            with boot:
                try:
                    status = await self._run_tree()
                except (HotkeyError, LedgerError, ProvisioningError, OSError, ValueError) as error:
                    print(f"engram cannot start: {error}", file=sys.stderr)
                    status = EXIT_CANNOT_START
            nursery.cancel_scope.cancel()
        return status

    async def _run_tree(self) -> int:
        gateway = await Gateway.open(self, self.keypair) if self.keypair is not None else None
        tree = self.tree(gateway)
        events = EventStream()
        try:
            with events.listen(observer(self.metrics)):
                async with open_system(
                    tree, registry=self.registry, rng=self.rng, events=events, log_crashes=False
                ) as system:
                    self.system = system
                    self._say_ready()
                    await system.wait()
        except StartFailed as failed:
            if isinstance(cause := _innermost(failed), OSError):
                raise cause from failed
            _log.error("tree_gave_up", error=str(failed))
            return EXIT_FAILED
        except SystemFailed as failed:
            _log.error("tree_gave_up", error=str(failed))
            return EXIT_FAILED
        finally:
            with trio.CancelScope(shield=True):
                if gateway is not None and self.settings.shutdown.nodes == "stop":
                    await gateway.stop_nodes()
                await self.http.aclose()
                self.ledger.close()
        if self._fatal is not None:
            _log.error("ledger_lost", error=str(self._fatal), path=str(self.folder / LEDGER_FILE))
            return EXIT_FAILED
        _log.info("stopped")
        return EXIT_OK

    def tree(self, gateway: "Gateway | None") -> SupervisorSpec:
        """The supervision tree; it starts from the top and stops from the bottom, the public surface first."""
        settings = self.settings
        ledger = ChildSpec(
            LEDGER,
            lambda: LedgerActor(self.folder, self._on_ledger_lost, self._on_group),
            name=LEDGER,
            shutdown=30.0,
        )
        loop_lag = self.spare(lambda: loop_lag_job(self.metrics), "loop_lag")
        children: list[ChildSpec | SupervisorSpec] = [ledger, loop_lag]
        if "facilitator" in self.roles or settings.payments.facilitator_url == "embedded":
            children.append(facilitator_child(self))
        if gateway is not None:
            children += gateway.children()
        return SupervisorSpec("root", children, strategy="one_for_one", intensity=Intensity(restarts=10, period_s=60.0))

    def nodes(self) -> list[NodeInfo]:
        """The live tree; empty until it is up."""
        return [] if self.system is None else self.system.tree()

    def spare(self, start: Callable[[], Actor[Any] | Job | None], name: str) -> ChildSpec:
        """A child whose failures never end the process: it waits longer and longer, and is at last left down."""
        return ChildSpec(
            name,
            start,
            name=name,
            backoff=Backoff(0.2, 30.0, reset_after_s=60.0),
            intensity=Intensity(20, 600.0),
            on_exceed="disable",
        )

    def _on_group(self, group: Group) -> None:
        self.metrics.ledger_commits.labels(group.word).inc()
        self.metrics.ledger_commit_seconds.observe(group.seconds)
        self.metrics.ledger_queue.set(group.waiting)
        for outcome in group.outcomes:
            self.metrics.ledger_writes.labels(outcome.word).inc()

    def _on_ledger_lost(self, error: LedgerError) -> None:
        self._fatal = error
        if self.system is not None:
            self.system.request_stop()

    def _say_ready(self) -> None:
        # What was imported and built until now stays: looked through again by each full collection, it stops the loop
        # for 50 to 80 ms.
        gc.collect()
        gc.freeze()
        urls = {f"{name}_url": bound.url for name, at in self.listeners.items() if (bound := at.bound) is not None}
        line = {"ready": True, "pid": os.getpid(), "url": urls.get("gateway_url"), **urls}
        _log.info("ready", **urls)
        if self._ready_fd is not None:
            os.write(self._ready_fd, json.dumps(line).encode() + b"\n")
            os.close(self._ready_fd)

    async def _stop_on_signals(self, boot: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                _log.info("stopping", signal=signal.Signals(number).name)
                if self.system is None:
                    boot.cancel()
                else:
                    self.system.request_stop()
                break
            async for number in signals:
                _log.warning("stopping_at_once", signal=signal.Signals(number).name)
                if self.system is not None:
                    self.system.kill()


def _certificates(settings: Settings) -> Certificates | None:
    """What the gateway speaks https by, None where it speaks http. Raises OSError naming the setting."""
    at = settings.gateway
    if not at.tls_certificate:
        return None
    try:
        return Certificates(Path(at.tls_certificate).expanduser(), Path(at.tls_key).expanduser())
    except OSError as error:
        raise OSError(f"gateway.tls_certificate and gateway.tls_key cannot be used: {error}") from error


def _innermost(failed: StartFailed) -> BaseException | None:
    cause: BaseException | None = failed
    while isinstance(cause, StartFailed):
        cause = cause.__cause__
    return cause


def _ledger_id(folder: Path, environment: str) -> str:
    """Open, check and migrate the ledger before anything else runs. Raises LedgerError."""
    connection = open_writer(folder / LEDGER_FILE)
    try:
        theirs = facts.claim_environment(connection, environment)
        if theirs != environment:
            raise LedgerUnusable(f"{folder} holds the ledger of environment {theirs}, not {environment}; set data_dir")
        return facts.ledger_id(connection)
    finally:
        connection.close()
        connection.engine.dispose()


def facilitator_child(process: Process) -> ChildSpec:
    """The play-money facilitator (local only)."""
    from engram.facilitator.supervision import supervision

    return supervision(
        settings=process.settings,
        ledger=process.ledger,
        clock=process.clock,
        ids=process.ids,
        metrics=process.metrics,
        listener=process.listeners["facilitator"],
    )


class Gateway:
    """The parts of a gateway, wired. Areas meet only here: one learns of another by a callable it is given."""

    @classmethod
    async def open(cls, process: Process, keypair: Keypair) -> "Gateway":
        """Ask the backend what it holds, then put the parts together. Raises UnknownBackend, OtherBackend."""
        from engram.provisioning.backend_factory import make_backend
        from engram.provisioning.records import require_backend

        backend = make_backend(process.settings, process.folder, process.ledger_id, Path(__file__).resolve().parent)
        await process.ledger.read(lambda connection: require_backend(connection, backend.name))
        return cls(process, keypair, backend, await backend.offers())

    def __init__(self, process: Process, keypair: Keypair, backend: "Provisioner", offers: "Offers") -> None:
        from engram.gateway.feed import EventFeed
        from engram.gateway.sales_switch import Selling
        from engram.payments.actor import PaymentVerifier
        from engram.payments.breaker import Breaker, Standing
        from engram.payments.refund_settings import open_refund_key, with_play_recipient
        from engram.payments.supervision import PAYMENT_VERIFIER
        from engram.provisioning.actor import PROVISIONER
        from engram.provisioning.actor import Provisioner as ProvisionerActor
        from engram.relay.actor import RelayEmitter
        from engram.sessions import SystemInstants
        from engram.stats import StatsView

        registry, settings = process.registry, process.settings
        self.process = process
        self.refund_key = open_refund_key(settings, process.folder)
        self.settings = settings = with_play_recipient(settings, self.refund_key)
        self.instants = SystemInstants()
        self.keypair = keypair
        self.subnets = Subnets(process.clock, settings.chain.netuids, settings.chain.stall_after_s)
        self.standing = Standing(
            Breaker(process.clock, settings.payments.breaker_failures, settings.payments.breaker_open_s)
        )
        self.feed = EventFeed(process.ledger)
        self.selling = Selling(process.ledger, default=settings.gateway.selling)
        self.samples = StatsView(process.clock)
        self.verifier = registry.ref(PaymentVerifier, PAYMENT_VERIFIER)
        self.provisioner = registry.ref(ProvisionerActor, PROVISIONER)
        self.emitter = registry.ref(RelayEmitter, "relay_emitter")
        self.not_queued = 0
        self.backend = backend
        self.offers = offers
        self.room = min(offers.places, settings.sessions.live_in_all)
        self._keys: int | None = None
        self.services = self._services()
        self.status = self._status()

    def children(self) -> list[ChildSpec | SupervisorSpec]:
        """Beside the ledger; started from the top, stopped from the bottom."""
        gateway, ops = self.process.listeners["gateway"], self.process.listeners["ops"]
        return [
            self.process.spare(self._chain, "chain"),
            self._payments(),
            self._fleet(),
            self.process.spare(self._stats_poller, "stats_poller"),
            self.process.spare(self._relay_emitter, "relay_emitter"),
            self.process.spare(self._relay_rounds, "relay_rounds"),
            self.process.spare(lambda: Job(self.feed.run), "event_feed"),
            self.process.spare(self._control, "control"),
            self.process.spare(lambda: Job(self.services.shop.sales.watch), "sales_watch"),
            ops.child("ops", self._ops_app),
            gateway.child("http", self._gateway_app),
        ]

    async def stop_nodes(self) -> None:
        """`shutdown.nodes = stop`: end the nodes once the tree has; what they hold is kept for the next start."""
        from engram.provisioning.actor import stop_all

        with trio.move_on_after(STOP_NODES_S) as patience:
            await stop_all(self.backend)
        if patience.cancelled_caught:
            _log.error("nodes_not_stopped", after_s=STOP_NODES_S)

    def session_changed(self, session_id: str) -> None:
        """A hint to the provisioner and to open event streams; never raises."""
        from engram.provisioning.actor import session_changed

        if not session_changed(self.provisioner, session_id):
            self._hint_lost("provisioner")
        self.feed.poke(session_id)

    def _hint_lost(self, to: str) -> None:
        self.process.metrics.hints_lost.labels(to).inc()
        _log.info("hint_lost", to=to)

    def places(self) -> int:
        """Nodes that may run at once now: what the backend holds, and where keys are not made on demand, the pool."""
        return self.room if self._keys is None else min(self.room, self._keys)

    def _count_keys(self, usable: int) -> None:
        self._keys = usable

    def _fleet_changed(self, session_id: str) -> None:
        self.samples.outdate()
        self.feed.poke(session_id)

    def payments_changed(self) -> None:
        """A hint to the payment verifier; never raises."""
        from engram.payments.protocol import Reread

        try:
            self.verifier.tell(Reread())
        except (ActorDown, MailboxFull):
            self._hint_lost("payment_verifier")

    def outbox_changed(self) -> None:
        """A hint to the relay; never raises."""
        from engram.relay.protocol import OutboxGrew

        try:
            self.emitter.tell(OutboxGrew())
        except (ActorDown, MailboxFull):
            self._hint_lost("relay_emitter")

    def _chain(self) -> Actor[Any]:
        from engram.chain.read.endpoints import open_endpoints
        from engram.chain.sync.actor import MetagraphSyncer
        from engram.chain.sync.fork_folder import FOLDER, ForkFolder

        process, chain = self.process, self.settings.chain
        endpoints = open_endpoints(chain, process.http, process.clock)
        keep_fork = ForkFolder(process.folder / FOLDER).keep
        return MetagraphSyncer(endpoints, self.subnets, chain, process.clock, process.rng, keep_fork=keep_fork)

    def _payments(self) -> SupervisorSpec:
        from engram.payments import networks
        from engram.payments.breaker import GuardedFacilitator
        from engram.payments.facilitator import HttpFacilitator
        from engram.payments.supervision import supervision
        from engram.payments.supported_poller import SupportedPoller

        process, settings = self.process, self.settings.payments
        embedded = process.listeners["facilitator"]
        url = (lambda: embedded.url) if settings.facilitator_url == "embedded" else (lambda: settings.facilitator_url)
        facilitator = HttpFacilitator(
            process.http,
            url,
            verify_timeout_s=settings.verify_timeout_s,
            settle_timeout_s=settings.settle_timeout_s,
        )
        return supervision(
            registry=process.registry,
            settings=self.settings,
            ledger=process.ledger,
            facilitator=GuardedFacilitator(facilitator, self.standing.breaker),
            instants=self.instants,
            ids=process.ids,
            places=self.places,
            on_settled=self.session_changed,
            metrics=process.metrics,
            refund_key=self.refund_key,
            evidence=self._evidence(),
            poller=SupportedPoller(
                process.http, url, networks.find(settings.network), self.standing, settings.supported_interval_s
            ),
        )

    def _evidence(self) -> "Evidence | None":
        from engram.payments import networks
        from engram.payments.evm_rpc import EvmRpc, json_rpc

        settings = self.settings.payments
        if not settings.rpc_url:
            return None
        call = json_rpc(self.process.http, settings.rpc_url, settings.rpc_timeout_s)
        return EvmRpc(call, networks.find(settings.network), settings.confirmations)

    def _fleet(self) -> SupervisorSpec:
        from engram.payments.refund_settings import refund_terms
        from engram.payments.refunds import settle_up
        from engram.provisioning import node_keys
        from engram.provisioning.actor import fleet_spec
        from engram.provisioning.fleet import Fleet
        from engram.provisioning.health import health_probe
        from engram.provisioning.processes import listening_ports
        from engram.sessions.rules import tiers

        process = self.process
        keys_folder = process.folder / node_keys.FOLDER

        terms = refund_terms(self.settings.payments)

        def give_back(connection: Connection, session_id: str) -> None:
            settle_up(connection, session_id, terms, self.instants.now())

        async def new_key() -> None:
            await node_keys.generate(process.ledger, keys_folder, process.clock.now())

        makes_keys = self.settings.environment == "local"
        fleet = Fleet(
            ledger=process.ledger,
            backend=self.backend,
            instants=self.instants,
            ids=process.ids,
            settings=self.settings.provisioning,
            tiers=tiers(self.settings.pricing.lite_usd_per_hour),
            is_healthy=health_probe(process.http),
            on_failed=give_back,
            on_ended=give_back,
            new_key=new_key if makes_keys else None,
            on_changed=self._fleet_changed,
            on_launch=self._on_launch,
            on_hint_lost=lambda: self._hint_lost("provisioner"),
            taken_ports=listening_ports,
            on_keys=(lambda _: None) if makes_keys else self._count_keys,
        )
        return fleet_spec(fleet, process.registry, self.settings.stats.expiry_interval_s)

    def _on_launch(self, outcome: str, seconds: float) -> None:
        metrics, backend = self.process.metrics, self.backend.name
        metrics.launches.labels(backend, outcome).inc()
        if outcome == "healthy":
            metrics.launch_seconds.labels(backend).observe(seconds)

    def _on_poll(self, answered: bool, seconds: float) -> None:
        self.process.metrics.polls.labels("answered" if answered else "failed").inc()
        self.process.metrics.poll_seconds.observe(seconds)

    def _stats_poller(self) -> Actor[Any]:
        from engram.stats import Prover, StatsPoller, ask_stats

        process, settings = self.process, self.settings.stats
        return StatsPoller(
            process.ledger,
            lambda endpoint: ask_stats(process.http, endpoint, settings),
            self.samples,
            self.instants,
            settings,
            process.rng,
            on_sample=lambda session_id, _: self.feed.poke(session_id),
            on_changed=self.feed.poke,
            on_unresponsive=self.session_changed,
            on_poll=self._on_poll,
            prove=Prover(process.http, self.keypair, settings, process.clock, process.rng),
            block=lambda: self.subnets.block,
        )

    def _relay_rounds(self) -> Job | None:
        from engram.relay.rounds import LOST, MemoryRounds

        if not self.settings.relay.url:
            return None
        counted = {reason: self.process.metrics.relay_not_queued.labels(reason) for reason in LOST}

        def lost(reason: str, payloads: int) -> None:
            counted[reason].inc(payloads)
            self.not_queued += payloads

        process = self.process
        rounds = MemoryRounds(
            process.ledger,
            self.samples,
            process.clock,
            netuid=self.settings.miner.netuid,
            block=lambda: self.subnets.block,
            interval_s=self.settings.relay.round_s,
            on_queued=self.outbox_changed,
            on_lost=lost,
        )
        return Job(rounds.run)

    def _relay_emitter(self) -> Actor[Any]:
        from engram.relay import PayloadSigner, RetryPolicy
        from engram.relay.actor import RelayEmitter
        from engram.relay.receiver import Receiver

        settings, process = self.settings.relay, self.process
        receiver = Receiver(process.http, settings.url, settings.timeout_s) if settings.url else None
        policy = RetryPolicy(settings.attempts, settings.backoff_min_s, settings.backoff_max_s)
        signer = PayloadSigner.of(self.keypair)

        def attempted(word: str) -> None:
            process.metrics.relay_sends.labels(word).inc()

        return RelayEmitter(
            process.ledger, receiver, signer, policy, process.clock, process.rng, attempted, lambda: self.not_queued
        )

    def _control(self) -> Job:
        from engram.control.operations import GatewayOperations
        from engram.control.server import control_job

        process = self.process
        operations = GatewayOperations(
            process.folder,
            process.ledger,
            process.clock,
            self.instants,
            self.selling,
            self,
            self.status,
            # As its nodes have it: they are not told the gateway's environment.
            lambda file: password_for(
                file, self.settings.miner.hotkey_password_file, "miner.hotkey_password_file", environ=None
            ),
        )
        return Job(control_job(process.folder, operations))

    def _services(self) -> "Services":
        from engram.gateway import probes
        from engram.gateway.pricing import Shop
        from engram.gateway.services import Services
        from engram.gateway.tickets import Tickets

        process, settings = self.process, self.settings
        listener = process.listeners["gateway"]

        def public_url() -> str:
            return settings.gateway.public_url.rstrip("/") or listener.url

        shop = Shop(settings, public_url, process.ledger, self.selling, self.verifier, self.places, self._conditions())
        return Services(
            settings=settings,
            public_url=public_url,
            ledger=process.ledger,
            keypair=self.keypair,
            clock=process.clock,
            instants=self.instants,
            ids=process.ids,
            shop=shop,
            stats=_Latest(self.samples),
            subnets=self.subnets,
            feed=self.feed,
            tickets=Tickets(secrets.token_bytes(32)),
            metrics=process.metrics,
            probes={
                "ledger": probes.ledger_probe(process.ledger),
                "disk": probes.disk_probe(process.folder),
                "chain": probes.chain_probe(self.subnets),
                "actors": probes.parts_probe(self._missing),
                "sales": probes.sales_probe(shop.sales),
            },
            session_changed=self.session_changed,
            not_enforced=lambda: self.offers.not_enforced,
        )

    def _conditions(self) -> "Conditions":
        """What sales depend on beside the ledger."""
        from engram.gateway.sales_check import Conditions, Disk
        from engram.gateway.standing_facts import fixed_facts

        return Conditions(
            fixed=fixed_facts(self.settings),
            usable_keys=lambda: self._keys,
            places=lambda: self.room,
            free_bytes=Disk(self.process.folder, self.process.clock).free_bytes,
            chain_read=lambda: bool(self.subnets.synced) if self.settings.miner.announce else None,
            facilitator=self.standing.refusal,
        )

    def _status(self) -> "Callable[[], Awaitable[SystemStatus]]":
        from engram.control.status import status_of

        process = self.process
        return status_of(
            self.settings.environment,
            process.ledger,
            process.clock,
            self.subnets,
            process.nodes,
            self.selling.is_on,
            lambda: self.feed.open_streams,
            self._extra,
        )

    async def _extra(self) -> dict[str, dict[str, object]]:
        from engram.relay.protocol import GetRelayStatus

        commits = await self.process.ledger.commits()
        extra: dict[str, dict[str, object]] = {
            "ledger": msgspec.structs.asdict(commits),
            "provisioning": {**msgspec.structs.asdict(self.offers), "places": self.places()},
        }
        with contextlib.suppress(ActorsError):
            extra["relay"] = msgspec.structs.asdict(await self.emitter.call(GetRelayStatus()))
        return extra

    def _missing(self) -> list[str]:
        """Parts that sales depend on and that do not run now."""
        needed = {LEDGER: "ledger", "payment_verifier": "payment verifier", "provisioner": "provisioner"}
        running = {node.path.rsplit("/", 1)[-1] for node in self.process.nodes() if node.state == "running"}
        return [f"{name} is down" for path, name in needed.items() if path not in running]

    def _gateway_app(self) -> App:
        from engram.gateway.app import gateway_app

        return gateway_app(self.services)

    def _ops_app(self) -> App:
        from engram.gateway.app import ops_app
        from engram.gateway.gauges import gauges

        process = self.process
        counts = gauges(process.metrics, process.ledger, self.subnets, self.feed, process.nodes)

        async def refresh() -> None:
            await counts()
            await self.services.shop.sales.measure(process.metrics)

        return ops_app(self.services, self.status, refresh)


class _Latest:
    """The poller's view, as the surface asks for it."""

    def __init__(self, samples: "StatsView") -> None:
        from engram.gateway.views import NodeStats

        self._samples = samples
        self._presented = NodeStats

    def latest(self, session_id: str) -> "NodeStats | None":
        """The newest stats of a session's node, None before the first."""
        sample = self._samples.sample(session_id)
        return None if sample is None else self._presented(msgspec.structs.asdict(sample.stats), sample.at)


def _own_keypair(settings: Settings, folder: Path) -> Keypair:
    """The gateway's own key: made at the first start, and the same ever after, since phones pin it.

    An encrypted one takes seconds to open, with the interpreter's lock held, and may ask for its password: before the
    loop runs.
    """
    named, password_file = settings.gateway.hotkey_file, settings.gateway.hotkey_password_file
    path = Path(named).expanduser() if named else folder / OWN_HOTKEY
    if not path.exists():
        if named:
            raise WalletFileError(f"gateway.hotkey_file: there is no {path}")
        wallet.write_hotkey_file(path, Keypair.generate())
    password = password_for(path, password_file, "gateway.hotkey_password_file", os.environ, at_terminal())
    return wallet.read_private_hotkey_file(path, password)


def _entry() -> int:
    crash_reports.enable()
    command_line = importlib.import_module("engram.cli")
    status = command_line.main(["run", *sys.argv[1:]])
    return int(status)


if __name__ == "__main__":
    sys.exit(_entry())
