"""The process of a kit miner: `serve(miner)` until SIGTERM or Ctrl-C."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, TypeAlias, final

import structlog
from cyclopts import App as CommandLine
from cyclopts import Parameter

from actors import Backoff, ChildSpec, Intensity, SupervisorSpec
from config.errors import ConfigError
from config.model import ChainSettings, HttpSettings
from engram import crash_reports
from engram.chain import Subnets
from engram.chain.read.endpoints import http_url, open_endpoints
from engram.chain.sync.actor import MetagraphSyncer
from engram.http.client import HttpClient
from engram.http.listener import SLACK_S, Listener
from engram.kit.miner import Miner
from engram.kit.settings import MinerSettings
from engram.proxy.authorization import ChainView
from engram.proxy.chain_view import NoChain, SyncedChain
from engram.roles.process import EXIT_CANNOT_START, Process, begin, spare
from engram.roles.registration import network_shown, registering, require_registered
from engram.telemetry.loop_lag import loop_lag_job

MakeMiner: TypeAlias = Callable[[str | None, int | None], Miner]
"""Takes host and port where they are given, and returns the miner with its endpoints. Raises ConfigError."""

_log = structlog.get_logger("engram.kit")


def main(make: MakeMiner, argv: Sequence[str] | None = None) -> int:
    """Run `make(host, port)` as a program with the options below; return the exit status."""
    crash_reports.enable()
    line = CommandLine(help="Serve this miner until SIGTERM or Ctrl-C.", result_action="return_value")

    @line.default
    def serve(
        *,
        host: Annotated[str | None, Parameter(help="Address to listen at, in place of the settings file's.")] = None,
        port: Annotated[int | None, Parameter(help="Its port; 0 takes a free one.")] = None,
        allow: Annotated[
            tuple[str, ...], Parameter(help="Hotkey (SS58) that may call beside those of the settings.", negative="")
        ] = (),
        unregistered: Annotated[
            bool,
            Parameter(help="Serve also where the chain does not have the hotkey on the subnet.", negative=""),
        ] = False,
        log_level: Annotated[str, Parameter(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
        ready_fd: Annotated[int | None, Parameter(help="Descriptor that gets one JSON line once it serves.")] = None,
    ) -> int:
        begin(log_level, json_logs=not sys.stderr.isatty())
        try:
            miner = make(host, port)
            miner.allow(*allow)
        except ConfigError as error:
            print(f"miner cannot start: {error}", file=sys.stderr)
            return EXIT_CANNOT_START
        return run(miner, ready_fd, unregistered=unregistered)

    status = line(argv)
    return status if isinstance(status, int) else 0  # --help returns nothing


def run(miner: Miner, ready_fd: int | None = None, *, unregistered: bool = False) -> int:
    """Serve the miner until SIGTERM or Ctrl-C; return the exit status.

    Where the settings name a chain that answers, the miner's hotkey must be registered, or `unregistered` be True.
    """

    @contextmanager
    def claimed(process: Process) -> Iterator[_Program]:
        yield _Program(process, miner, unregistered)

    return Process("miner", (OSError, ValueError), ready_fd).live(claimed)


@final
class _Program:
    """The tree of one miner."""

    def __init__(self, process: Process, miner: Miner, unregistered: bool) -> None:
        self._process = process
        self._unregistered = unregistered
        self._miner = miner
        serve = miner.settings.serve
        self._listener = Listener(serve.host, serve.port, HttpSettings(), serve.drain_s)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SupervisorSpec]:
        http = HttpClient()
        try:
            await self._require_registered(http)
            yield self._tree(http)
        finally:
            await http.aclose()

    def started(self) -> None:
        """Log where it serves."""
        self._process.say_ready(miner_url=self._listener.url)

    def ended(self) -> None:
        """Log the end."""
        _log.info("stopped")

    async def _require_registered(self, http: HttpClient) -> None:
        followed = _chain_settings(self._miner.settings)
        if followed is None or self._unregistered:
            return
        at = self._miner.settings
        chain = network_shown(at.callers.chain_endpoint)
        command = registering(chain, at.miner.netuid, "--wallet.name W --wallet.hotkey H")
        remedy = f"{command}; --unregistered serves without"
        await require_registered(followed, chain, at.hotkey, remedy, http, self._process.clock)

    def _tree(self, http: HttpClient) -> SupervisorSpec:
        p, settings = self._process, self._miner.settings
        followed = _chain_settings(settings)
        view: ChainView = NoChain()
        chain = []
        if followed is not None:
            subnets = Subnets(p.clock, followed.netuids, followed.stall_after_s)
            view = SyncedChain(subnets, settings.miner.netuid)
            nodes = open_endpoints(followed, http, p.clock)
            chain = [spare("chain", lambda: MetagraphSyncer(nodes, subnets, followed, p.clock, p.rng))]
        elif not settings.callers.allowed and not settings.serve.behind_proxy:
            _log.warning("no_caller_passes", reason="callers.chain_endpoint and callers.allowed are both empty")
        return SupervisorSpec(
            "root",
            [
                spare("loop_lag", lambda: loop_lag_job(p.metrics)),
                *chain,
                ChildSpec(
                    "http",
                    lambda: self._listener.job(
                        lambda: self._miner.app(clock=p.clock, ids=p.ids, metrics=p.metrics, chain=view)
                    ),
                    shutdown=settings.serve.drain_s + SLACK_S,
                    backoff=Backoff(0.1, 5.0),
                ),
            ],
            strategy="one_for_one",
            intensity=Intensity(restarts=10, period_s=60.0),
        )


def _chain_settings(settings: MinerSettings) -> ChainSettings | None:
    if not (url := settings.callers.chain_endpoint):
        return None
    return ChainSettings(endpoints=(http_url(url),), netuids=(settings.miner.netuid,), network="miner")
