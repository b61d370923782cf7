"""The role `proxy`: the reverse proxy that guards GPU backends, configured by its own files and variables."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

import structlog
import trio

from actors import Actor, Backoff, ChildSpec, Intensity, Job, SupervisorSpec
from config.model import Settings
from engram.chain import Subnets
from engram.chain.read.endpoints import open_endpoints
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.fork_folder import FOLDER as FORKS
from engram.chain.sync.fork_folder import ForkFolder
from engram.chain.sync.gauges import count_changes, measure
from engram.hotkeys import Keypair, ReplayStore, wallet
from engram.hotkeys.passwords import at_terminal, password_for
from engram.http.tls import Certificates
from engram.proxy.authorization import ChainView
from engram.proxy.capacity import Capacity
from engram.proxy.chain_view import NoChain, SyncedChain, chain_settings
from engram.proxy.endpoints.operators import measure as measure_proxy
from engram.proxy.endpoints.operators import ops_app
from engram.proxy.exchange.admission import Admission
from engram.proxy.exchange.spool import Spool, problem_with
from engram.proxy.health_checks import Checks
from engram.proxy.jobs.worker import Jobs
from engram.proxy.min_stake import KeptThreshold, StakeReadings
from engram.proxy.planning import Planner
from engram.proxy.reloading import Reloading
from engram.proxy.serving import Surface
from engram.proxy.settings import Loaded, load
from engram.proxy.settings.environment import COMMON, VARIABLES
from engram.proxy.state import State
from engram.proxy.surface import proxy_app
from engram.roles.process import spare
from engram.roles.shared import LEDGER, Shared
from engram.telemetry import logs
from engram.telemetry.loop_lag import loop_lag_job

SPOOL: Final = "spool"
_SLACK_S: Final = 2.0

_log = structlog.get_logger("engram.proxy")


@final
class Proxy:
    """The role; see shared.Role."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Read the proxy's settings, keys and certificate. Raises ConfigError and what is in REFUSALS."""
        self.settings = settings
        self._state: State | None = None
        self.loaded = load()
        own = self.loaded.settings
        server = own.server
        logs.configure(server.log_level, json=server.log_format == "json" or _is_piped(server.log_format))
        self.certificates = (
            Certificates(Path(server.tls_certificate), Path(server.tls_key)) if server.tls_certificate else None
        )
        self.signer = _signer(self.loaded)
        self.spool_folder = Path(own.bodies.spool_dir) if own.bodies.spool_dir else folder / SPOOL
        self.spool_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (problem := problem_with(self.spool_folder, own.bodies.spool_bytes)) is not None:
            raise ValueError(problem)
        self.kept_threshold = KeptThreshold(folder)
        _say_sources(self.loaded)

    async def tree(self, shared: Shared) -> SupervisorSpec:
        """Return the whole tree of a proxy by itself."""
        parts = _Parts(shared, self)
        self._state = parts.state
        return await parts.tree()

    async def close(self) -> None:
        """Close the idle connections to backends."""
        if self._state is not None:
            self._state.close()


open_role = Proxy


@final
class _Parts:
    """The children of one proxy, and what they share."""

    def __init__(self, p: Shared, role: Proxy) -> None:
        self._p = p
        self._role = role
        own = role.loaded.settings
        self._chain = chain_settings(own.auth)
        self._subnets = Subnets(p.clock, self._chain.netuids, self._chain.stall_after_s)
        view: ChainView = SyncedChain(self._subnets, own.auth.netuid) if self._chain.endpoints else NoChain()
        self.state = State(
            chain=view,
            admission=Admission(own.limits),
            spool=Spool(role.spool_folder, own.bodies),
            jobs=Jobs(p.ledger, p.clock, p.ids, own.jobs),
            capacity=Capacity(own.capacity),
            clock=p.clock,
            ids=p.ids,
            metrics=p.metrics,
        )
        self._planner = Planner(self.state, ReplayStore(), role.signer)
        p.metrics.before_scrape(lambda: measure_proxy(self.state))
        if self._chain.endpoints:
            p.metrics.before_scrape(lambda: measure(p.metrics, self._subnets))
            count_changes(p.metrics, self._subnets)

    async def tree(self) -> SupervisorSpec:
        p, role, state = self._p, self._role, self.state
        state.threshold = await trio.to_thread.run_sync(role.kept_threshold.read)
        state.use(await self._planner.plan(role.loaded, None))
        surface = Surface(role.loaded.settings, state, proxy_app(state), role.certificates)
        p.serves("proxy", surface)
        reloading = Reloading(state, self._planner, role.loaded, load)
        checks = Checks(lambda: state.plan)
        stakes = StakeReadings(state, p.http, role.kept_threshold)
        ops = p.listener("ops", p.settings.ops.host, p.settings.ops.port)
        drain_s = role.loaded.settings.server.drain_s
        return SupervisorSpec(
            "root",
            [
                ChildSpec("ledger", p.ledger_actor, name=LEDGER, shutdown=30.0),
                spare("loop_lag", lambda: loop_lag_job(p.metrics)),
                *([_tireless("chain", self._syncer)] if self._chain.endpoints else []),
                _tireless("jobs", lambda: Job(state.jobs.run)),
                spare("checks", lambda: Job(checks.run)),
                spare("min_stake", lambda: Job(stakes.run)),
                spare("reloading", lambda: Job(reloading.run)),
                ChildSpec(
                    "ops",
                    lambda: ops.job(lambda: ops_app(state)),
                    shutdown=p.settings.shutdown.drain_s + _SLACK_S,
                    backoff=Backoff(0.2, 5.0),
                ),
                ChildSpec("proxy", surface.job, shutdown=drain_s + _SLACK_S, backoff=Backoff(0.1, 5.0)),
            ],
            strategy="one_for_one",
            intensity=Intensity(restarts=10, period_s=60.0),
        )

    def _syncer(self) -> MetagraphSyncer:
        p, chain = self._p, self._chain
        forks = ForkFolder(p.folder / FORKS)
        return MetagraphSyncer(
            open_endpoints(chain, p.http, p.clock), self._subnets, chain, p.clock, p.rng, keep_fork=forks.keep
        )


def _tireless(name: str, start: Callable[[], Actor[Any] | Job]) -> ChildSpec:
    """Return a child that may fail any number of times without ending the proxy, which serves requests without it."""
    return ChildSpec(name, start, backoff=Backoff(1.0, 60.0), intensity=Intensity(1_000_000, 1.0), on_exceed="disable")


def _is_piped(log_format: str) -> bool:
    return log_format == "auto" and not sys.stderr.isatty()


def _signer(loaded: Loaded) -> Keypair | None:
    """Return the miner's key, which signs answers; None where they are not signed. May ask for a password."""
    answers = loaded.settings.answers
    if not answers.sign:
        return None
    path = Path(answers.hotkey_file)
    return wallet.read_private_hotkey_file(
        path, password_for(path, "", "answers.hotkey_file", os.environ, at_terminal())
    )


def _say_sources(loaded: Loaded) -> None:
    """Log where the settings came from: platforms set HOST and PORT for every program."""
    common = {VARIABLES[name] for name in COMMON}
    for key, where in sorted(loaded.origins.items()):
        if where.startswith(("environment", "env file")) or key in common:
            _log.info("setting_from", key=key, where=where)
    for note in loaded.notes:
        _log.warning("variable_replaced", reason=note)
    auth = loaded.settings.auth
    if not auth.chain_endpoint and not auth.allowed_senders:
        _log.warning("no_caller_passes", reason="auth.chain_endpoint and auth.allowed_senders are both empty")
