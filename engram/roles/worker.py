"""The role `worker`: connects to an orchestrator and runs the jobs that it is sent."""

from pathlib import Path
from typing import Final, final

from actors import Backoff, ChildSpec, DrainingJob, Intensity, SupervisorSpec
from config.model import Settings, WorkerSettings
from engram.gpu import GpuReader
from engram.hotkeys import Keypair, wallet
from engram.hotkeys.passwords import at_terminal, password_for
from engram.hotkeys.wallet_folder import WalletFolder
from engram.http.app import App
from engram.http.client import HttpClient
from engram.roles.process import spare
from engram.roles.registration import require_worker_registered
from engram.roles.shared import LEDGER, Shared
from engram.telemetry.loop_lag import loop_lag_job
from engram.worker.kinds import backend_client, http_kinds, load_kinds
from engram.worker.ops import ops_app
from engram.worker.service import FLUSH_S, WorkerPorts, WorkerService

_SLACK_S: Final = 3.0


def tree(p: Shared, parts: "WorkerParts") -> SupervisorSpec:
    """Return the whole tree of a worker. Children start from the top and stop from the bottom."""
    return SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", p.ledger_actor, name=LEDGER, shutdown=30.0),
            spare("loop_lag", lambda: loop_lag_job(p.metrics)),
            ChildSpec(
                "ops",
                lambda: parts.ops_listener.job(parts.ops_app),
                shutdown=p.settings.shutdown.drain_s + 2.0,
                backoff=Backoff(0.1, 5.0),
            ),
            ChildSpec(
                "worker",
                parts.worker,
                shutdown=p.settings.worker.drain_s + FLUSH_S + _SLACK_S,
                backoff=Backoff(0.2, 10.0),
            ),
        ],
        strategy="one_for_one",
        intensity=Intensity(restarts=10, period_s=60.0),
    )


@final
class WorkerParts:
    """What the children are made of. Raises ValueError for a kind that cannot be loaded."""

    def __init__(self, p: Shared, keypair: Keypair, backends: HttpClient) -> None:
        at = p.settings.worker
        self._p = p
        self._keypair = keypair
        self._ports = WorkerPorts(
            settings=at,
            keypair=keypair,
            http=p.http,
            ledger=p.ledger,
            clock=p.clock,
            rng=p.rng,
            kinds={**http_kinds(backends, at), **load_kinds(at.kinds)},
            gpu=GpuReader().read,
            metrics=p.metrics,
        )
        self._service = WorkerService(self._ports)
        self.ops_listener = p.listener("ops", p.settings.ops.host, p.settings.ops.port)

    def worker(self) -> DrainingJob:
        """Return a new life of the worker."""
        self._service = WorkerService(self._ports)
        return self._service.job()

    def ops_app(self) -> App:
        """Return the operator's application."""
        p = self._p
        return ops_app(
            lambda: self._service,
            p.ledger,
            p.settings.worker,
            self._keypair.ss58,
            self._ports.gpu,
            http=p.settings.http,
            clock=p.clock,
            ids=p.ids,
            metrics=p.metrics,
        )


@final
class WorkerRole:
    """The role: its key; see shared.Role."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Raise HotkeyError, OSError."""
        self.settings = settings
        self.keypair = hotkey_of(settings.worker)
        self._backends = backend_client(settings.worker)

    async def tree(self, shared: Shared) -> SupervisorSpec:
        """Return the tree. Raises ValueError for a malformed setting, or a hotkey that is not registered."""
        await require_worker_registered(shared.settings.worker, self.keypair.public_key, shared.http, shared.clock)
        return tree(shared, WorkerParts(shared, self.keypair, self._backends))

    async def close(self) -> None:
        """Close the connections to the backends."""
        await self._backends.aclose()


def hotkey_of(at: WorkerSettings) -> Keypair:
    """Return the worker's key pair; may ask for a password. Raises HotkeyError."""
    path = Path(at.hotkey_file).expanduser() if at.hotkey_file else _wallet_of(at).hotkey_path
    password = password_for(path, at.hotkey_password_file, "worker.hotkey_password_file", ask=at_terminal())
    return wallet.read_private_hotkey_file(path, password)


def _wallet_of(at: WorkerSettings) -> WalletFolder:
    return WalletFolder(at.wallet_name, at.hotkey_name)


open_role = WorkerRole
