"""The role `gateway`: sells sessions, and runs and watches their nodes."""

import os
from functools import partial
from pathlib import Path
from typing import Final, final

import structlog
import trio

from actors import Backoff, ChildSpec, Intensity, Job, SupervisorSpec
from config.model import Settings
from engram import service_manager
from engram.gateway.app import gateway_app
from engram.hotkeys import Keypair, WalletFileError, wallet
from engram.hotkeys.passwords import at_terminal, password_for
from engram.http.tls import Certificates
from engram.ledger import Ledger, LedgerError
from engram.ledger.agreement import tell_differences
from engram.ledger.singletons import one_at_a_time
from engram.payments.actor import PAYMENT_VERIFIER, PURCHASES, PaymentVerifier
from engram.payments.refund_settings import open_refund_key, with_play_recipient
from engram.provisioning.actor import PROVISIONER, SAGAS, Provisioner, node_watches, stop_all
from engram.provisioning.announcing import ANNOUNCERS, MOST, AnnouncingPorts, announce_for_ever
from engram.provisioning.backend_factory import make_backends
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.backends import Backends
from engram.provisioning.certifier import certify_for_ever
from engram.provisioning.committing import CommittingNodesPorts, commit_for_ever
from engram.provisioning.records import count_by_backend, own_tokens, require_backends
from engram.relay.actor import RELAY_EMITTER, RelayEmitter
from engram.relay.anchoring.committing import Committing, NotCommitting
from engram.relay.rounds import MemoryRounds
from engram.roles.facilitator import facilitator
from engram.roles.gateway_ports import GatewayPorts
from engram.roles.outages import outlasting
from engram.roles.process import spare
from engram.roles.shared import LEDGER, Shared, end_with_parent
from engram.stats import StatsPoller
from engram.telemetry.loop_lag import loop_lag_job

OWN_HOTKEY: Final = "gateway-hotkey"
STOP_NODES_S: Final = 30.0

_log = structlog.get_logger("engram")


def tree(p: Shared, ports: GatewayPorts) -> SupervisorSpec:
    """Return the whole tree of a gateway.

    Children start from the top and stop from the bottom, so the public surface stops first.
    """
    rounds, anchors = ports.rounds, ports.anchors
    return SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", p.ledger_actor, name=LEDGER, shutdown=30.0),
            spare("loop_lag", lambda: loop_lag_job(p.metrics)),
            *([spare("parent", lambda: Job(end_with_parent))] if p.is_worker else []),
            *(
                [spare("agreement", lambda: Job(partial(tell_differences, p.ledger, ports.common)))]
                if p.settings.ledger.url
                else []
            ),
            *([spare("backups", lambda: Job(p.back_up))] if p.settings.backup.folder else []),
            *([facilitator(p)] if p.settings.payments.facilitator_url == "embedded" else []),
            spare("chain", ports.syncer),
            SupervisorSpec(
                "payments",
                [
                    SupervisorSpec(
                        "purchases",  # one child per payment
                        strategy="dynamic",
                        # The verifier keeps to the setting; children that are just ending may still be counted here.
                        max_children=2 * p.settings.payments.concurrency,
                        name=PURCHASES,
                    ),
                    ChildSpec("payment_verifier", lambda: PaymentVerifier(ports.payments), name=PAYMENT_VERIFIER),
                    ChildSpec("facilitator_supported", lambda: Job(ports.supported.run)),
                ],
                strategy="rest_for_one",
            ),
            SupervisorSpec(
                "fleet",
                [
                    SupervisorSpec("sagas", strategy="dynamic", max_children=256, name=SAGAS),  # one child per session
                    node_watches(ports.fleet),  # one child per backend
                    ChildSpec("provisioner", lambda: Provisioner(ports.fleet), name=PROVISIONER),
                ],
                strategy="rest_for_one",
            ),
            spare("certifier", lambda: Job(partial(certify_for_ever, ports.certifier))),
            *(announcers(ports.announcing) if ports.announcing else []),
            *([committing(p, ports.committing)] if ports.committing else []),
            spare("stats_poller", lambda: StatsPoller(ports.stats)),
            spare(RELAY_EMITTER, lambda: RelayEmitter(ports.emitter)),
            spare("relay_rounds", lambda: Job(MemoryRounds(rounds).run) if rounds else None),
            spare("relay_anchors", lambda: anchoring(p, anchors) if anchors else None),
            spare("event_feed", lambda: Job(ports.feed.run)),
            spare("control", lambda: Job(ports.control)),
            spare("sales_watch", lambda: Job(ports.services.shop.sales.watch)),
            ChildSpec(
                "ops",
                lambda: ports.ops_listener.job(ports.ops_app),
                shutdown=p.settings.shutdown.drain_s + 2.0,
                backoff=Backoff(0.1, 5.0),
            ),
            ChildSpec(
                "http",
                lambda: ports.listener.job(lambda: gateway_app(ports.services)),
                shutdown=p.settings.shutdown.drain_s + 2.0,
                backoff=Backoff(0.1, 5.0),
            ),
        ],
        strategy="one_for_one",
        intensity=Intensity(restarts=10, period_s=60.0),
    )


def announcers(ports: AnnouncingPorts) -> list[ChildSpec | SupervisorSpec]:
    """Return what announces nodes on machines of others: a child for each of them, and the job that starts these."""
    return [
        SupervisorSpec(ANNOUNCERS, strategy="dynamic", max_children=MOST, name=ANNOUNCERS),
        spare("node_announcing", lambda: Job(partial(announce_for_ever, ports))),
    ]


def committing(p: Shared, ports: CommittingNodesPorts) -> ChildSpec:
    """Return what commits where nodes on machines of others serve: of gateways with one ledger, one does."""
    return spare("node_committing", lambda: one_at_a_time(p.ledger, "node_committing", partial(commit_for_ever, ports)))


def anchoring(p: Shared, anchors: Committing | NotCommitting) -> Job:
    """Return what commits roots: of gateways with one hotkey, one does."""
    if isinstance(anchors, Committing):
        return one_at_a_time(p.ledger, "relay_anchors", anchors.run)
    return outlasting("relay_anchors", anchors.run)


@final
class Gateway:
    """The role: its keys, and the backends that run its nodes; see shared.Role."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Raise HotkeyError, UnusableRefundKey, OSError."""
        self.keypair = _own_keypair(settings, folder)
        self.certificates = _certificates(settings)
        self.refund_key = open_refund_key(settings, folder)
        self.settings = with_play_recipient(settings, self.refund_key)
        self._backends: Backends | None = None
        self._ledger: Ledger | None = None

    async def tree(self, shared: Shared) -> SupervisorSpec:
        """Ask the backends for their capacity and return the tree. Raises UnusableBackend, OtherBackend."""
        backends = make_backends(self._backend_ports(shared))
        await shared.ledger.read(lambda connection: require_backends(connection, backends.names))
        await backends.look()
        backends.note_held(await shared.ledger.read(count_by_backend))
        ports = GatewayPorts(shared, self.keypair, self.refund_key, self.certificates, backends)
        self._backends, self._ledger = backends, shared.ledger
        return tree(shared, ports)

    def _backend_ports(self, p: Shared) -> BackendPorts:
        return BackendPorts(
            settings=self.settings,
            data_dir=p.folder,
            ledger_id=p.ledger_id,
            ledger=p.ledger,
            http=p.http,
            clock=p.clock,
            ids=p.ids,
            metrics=p.metrics,
            rng=p.rng,
        )

    async def close(self) -> None:
        """End the nodes if `shutdown.nodes` is `stop`; their data is kept for the next start."""
        if self._backends is None or self._ledger is None or self.settings.shutdown.nodes != "stop":
            return
        try:
            tokens = await self._ledger.read(own_tokens)
        except LedgerError as error:
            _log.error("nodes_not_stopped", reason=str(error))
            return
        with trio.move_on_after(STOP_NODES_S) as patience:
            await stop_all(self._backends, tokens)
        if patience.cancelled_caught:
            _log.error("nodes_not_stopped", after_s=STOP_NODES_S)


open_role = Gateway


def _own_keypair(settings: Settings, folder: Path) -> Keypair:
    """Return the gateway's own key: created at the first start and then permanent, because phones pin it.

    Opening an encrypted key takes seconds with the GIL held and may ask for its password, so it happens before the
    loop runs.
    """
    named, password_file = settings.gateway.hotkey_file, settings.gateway.hotkey_password_file
    given = service_manager.credential(OWN_HOTKEY)
    path = Path(named).expanduser() if named else given or folder / OWN_HOTKEY
    if not path.exists():
        if named:
            raise WalletFileError(f"gateway.hotkey_file: there is no {path}")
        wallet.write_hotkey_file(path, Keypair.generate())
    password = password_for(path, password_file, "gateway.hotkey_password_file", os.environ, at_terminal())
    return wallet.read_private_hotkey_file(path, password)


def _certificates(settings: Settings) -> Certificates | None:
    """Return the certificates for https, None where the gateway serves http. Raises OSError naming the setting."""
    at = settings.gateway
    if not at.tls_certificate:
        return None
    try:
        return Certificates(Path(at.tls_certificate).expanduser(), Path(at.tls_key).expanduser())
    except OSError as error:
        raise OSError(f"gateway.tls_certificate and gateway.tls_key cannot be used: {error}") from error
