"""`engram run ROLE …` and its short forms: load and check the settings, then hand over to the composition root."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

import config
import run as composition
from config.keys import nearest
from config.model import Settings, WorkerSettings
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SOURCES, Flags, Sources
from engram.hotkeys import HotkeyError
from engram.http.sockets import given_hosts, hand_down

ROLES: Final = ("gateway", "miner", "validator", "facilitator", "proxy", "xeris", "worker")
"""As they are listed; composition.ROLES says where each is."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where the process listens and logs."""

    host: Annotated[str | None, Parameter(help="Address to listen on.")] = None
    port: Annotated[int | None, Parameter(converter=whole, help="Port to listen on; 0 takes a free one.")] = None
    ops_port: Annotated[int | None, Parameter(converter=whole, help="Port of /status and /metrics, on loopback.")] = (
        None
    )
    log_level: Annotated[str | None, Parameter(help="DEBUG, INFO, WARNING or ERROR.")] = None
    ready_fd: Annotated[
        int | None,
        Parameter(converter=whole, help="File descriptor that gets a JSON line with the URL once the process serves."),
    ] = None

    def flags(self, role: str) -> Flags:
        """Return these options as settings of the role's surface."""
        surface: Flags = {f"{role}.host": self.host, f"{role}.port": self.port} if role in _SURFACES else {}
        return surface | {"ops.port": self.ops_port, "log.level": self.log_level}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Registering:
    """Whether a worker's hotkey is registered before it starts."""

    register: Annotated[
        bool,
        Parameter(
            help="Register the worker's hotkey on worker.netuid if it is not, with its wallet's coldkey; needs "
            "--max-cost.",
            negative="",
        ),
    ] = False
    max_cost: Annotated[float | None, Parameter(help="Pay at most this many TAO for it.")] = None
    coldkey_password_file: Annotated[
        Path | None, Parameter(help="File of mode 0600 with the password of an encrypted coldkey, for --register.")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Several:
    """Whether it is several gateways behind one port, or one of those."""

    workers: Annotated[
        int | None,
        Parameter(converter=whole, help="Run so many gateways behind one port; ledger.url names their PostgreSQL."),
    ] = None
    worker: Annotated[int | None, Parameter(converter=whole, show=False)] = None
    socket: Annotated[tuple[str, ...], Parameter(show=False, negative="")] = ()


REGISTERING = Registering()
SEVERAL = Several()
_SURFACES: Final = ("gateway", "facilitator", "xeris")
LISTENING = Listening()


def run(
    *roles: Annotated[str, Parameter(help=f"{', '.join(ROLES)}; together in one process.")],
    sources: Sources = SOURCES,
    listening: Listening = LISTENING,
    registering: Registering = REGISTERING,
    several: Several = SEVERAL,
) -> int:
    """Start roles in one process: one ledger, one loop. Ctrl-C or SIGTERM stops them.

    --host and --port are those of the first role named. A .json file given by --config is a node's launch file.
    """
    if not roles:
        raise CommandFailed(f"name at least one role: {', '.join(ROLES)}", Exit.USAGE)
    check_roles(roles)
    return _start(roles, sources, listening, registering, several)


def gateway(*, sources: Sources = SOURCES, listening: Listening = LISTENING, several: Several = SEVERAL) -> int:
    """Start the gateway: it sells sessions, runs and watches the nodes. Ctrl-C or SIGTERM stops it."""
    return _start(("gateway",), sources, listening, several=several)


def _start_workers(count: int, sources: Sources, listening: Listening) -> int:
    from engram.roles import workers as parent

    if not 1 <= count <= parent.MOST:
        raise CommandFailed(f"--workers {count}: give 1 to {parent.MOST}", Exit.USAGE)
    loaded = sources.load(listening.flags("gateway"))
    _check(loaded.settings, ("gateway",))
    if not loaded.settings.ledger.url:
        raise CommandFailed(
            "--workers needs a ledger that several processes can share: set ledger.url to a PostgreSQL server "
            "(engram ledger migrate --to moves a file there)",
            Exit.USAGE,
        )
    _check_descriptor(listening.ready_fd)
    given = {"--log-level": listening.log_level, "--host": listening.host}
    words = [word for name, value in given.items() if value is not None for word in (name, value)]
    return parent.main(loaded, count, [*sources.words(), *words], listening.ready_fd)


def miner(*, sources: Sources = SOURCES, listening: Listening = LISTENING) -> int:
    """Start a memory miner. Its launch file (.json) is given by --config."""
    return _start(("miner",), sources, listening)


def facilitator(*, sources: Sources = SOURCES, listening: Listening = LISTENING) -> int:
    """Start the play-money facilitator as a process of its own; for `local` alone."""
    return _start(("facilitator",), sources, listening)


def check_roles(roles: Sequence[str]) -> None:
    """Raise CommandFailed for an unknown role."""
    for role in roles:
        if role not in ROLES:
            raise CommandFailed(f"there is no role {role!r}, only {', '.join(ROLES)}{nearest(role, ROLES)}", Exit.USAGE)


def _start(
    roles: Sequence[str],
    sources: Sources,
    listening: Listening,
    registering: Registering = REGISTERING,
    several: Several = SEVERAL,
) -> int:
    if several.workers is not None:
        if tuple(roles) != ("gateway",):
            raise CommandFailed("--workers starts gateways, and no other role with them", Exit.USAGE)
        return _start_workers(several.workers, sources, listening)
    for handed in several.socket:
        name, _, descriptor = handed.partition(":")
        hand_down(name, int(descriptor))
    launch = _launch_file(sources.config)
    if "miner" in roles and (len(roles) > 1 or launch is None):
        raise CommandFailed("a node runs alone, from its launch file: engram miner --config launch.json", Exit.USAGE)
    if roles[0] == "proxy" and (listening.host is not None or listening.port is not None):
        raise CommandFailed("the proxy listens where server.host and server.port say, or HOST and PORT", Exit.USAGE)
    load = partial(sources.load, listening.flags(roles[0]))
    loaded = load()
    _check(loaded.settings, roles)
    _check_descriptor(listening.ready_fd)
    _register(roles, loaded.settings.worker, registering)
    return composition.main(roles, loaded, ready_fd=listening.ready_fd, launch=launch, load=load, worker=several.worker)


def _check(settings: Settings, roles: Sequence[str]) -> None:
    """Hold the settings, and the sockets of this process, against the rules of the environment. Raises ConfigError."""
    config.check(settings, roles)
    try:
        given = given_hosts(os.environ)
    except (OSError, ValueError) as error:
        raise CommandFailed(str(error), Exit.USAGE) from None
    config.check_sockets(settings, given)


def _register(roles: Sequence[str], at: WorkerSettings, registering: Registering) -> None:
    """Register the worker's hotkey where that was asked for. Raises CommandFailed."""
    if not registering.register:
        if registering.max_cost is not None:
            raise CommandFailed("--max-cost says what --register may pay at most: give both, or neither", Exit.USAGE)
        return
    if "worker" not in roles:
        raise CommandFailed("--register registers a worker's hotkey: engram run worker --register", Exit.USAGE)
    if registering.max_cost is None:
        raise CommandFailed("--register pays TAO: say how much at most by --max-cost", Exit.USAGE)
    if not at.network:
        raise CommandFailed("--register needs worker.network, where the hotkey is to be registered", Exit.USAGE)
    from engram.cli.chain.common import ChainOptions, WalletOptions, public_hotkey_of
    from engram.cli.chain.registering import register_if_needed
    from engram.roles.worker import hotkey_of

    wallet = WalletOptions(
        name=at.wallet_name,
        hotkey=at.hotkey_name,
        coldkey_password_file=registering.coldkey_password_file,
        hotkey_password_file=Path(at.hotkey_password_file) if at.hotkey_password_file else None,
    )
    try:
        hotkey = hotkey_of(at).public_key if at.hotkey_file else public_hotkey_of(wallet)
    except (HotkeyError, OSError) as error:
        raise CommandFailed(str(error)) from None
    register_if_needed(ChainOptions(netuid=at.netuid, network=at.network), wallet, hotkey, registering.max_cost)


def _check_descriptor(descriptor: int | None) -> None:
    if descriptor is None:
        return
    try:
        os.set_inheritable(descriptor, False)  # no node holds it, or its end would never be seen
    except (OSError, OverflowError):
        raise CommandFailed(
            f"--ready-fd {descriptor} is not an open file descriptor of this process", Exit.USAGE
        ) from None


def _launch_file(files: Sequence[Path]) -> Path | None:
    launch = [path for path in files if path.suffix == ".json"]
    if len(launch) > 1:
        raise CommandFailed(f"a node has one launch file, not {len(launch)}", Exit.USAGE)
    return launch[0] if launch else None


def demo(
    *,
    backend: Annotated[
        Literal["local", "docker", "akash"],
        Parameter(
            help="Where the node runs; docker: in this machine's engine; akash: on a double of Akash, in a checkout of "
            "the repository."
        ),
    ] = "local",
) -> int:
    """Demonstrate the service on this machine: buy a node with play money, store and find texts, stop it."""
    from engram import demo as main_job

    return main_job.main(backend)
