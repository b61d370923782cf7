"""What the commands about the chain share: which network, which wallet, and how answers are shown."""

import getpass
import math
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import msgspec
from cyclopts import Parameter

from engram.cli.failures import CommandFailed, Exit
from engram.hotkeys import HotkeyError, Keypair, PublicKey, WalletEncrypted
from engram.hotkeys.passwords import PASSWORD_VARIABLE
from engram.hotkeys.wallet_folder import ROOT, WalletFolder

if TYPE_CHECKING:
    from engram.chain.errors import EndpointsForked

T = TypeVar("T")
_DEBUG: Final = "Tell on standard error what is asked of the chain, and how long it took."
_INFO: Final = "Accepted, so that older command lines go on working; that much is told anyway."
Form = Literal["upstream", "table", "json"]
DEFAULT_NETWORK: Final = "finney"


def in_seconds(type_: object, value: float) -> None:
    """For cyclopts. Raises ValueError: what is no time to wait would be found out after something was sent."""
    del type_  # cyclopts hands it in
    if not 0 < value < math.inf:
        raise ValueError(f"a time is more than 0 seconds, not {value:g}")


NETWORKS: Final = ("finney", "test", "archive", "local", "recorded")


def _is_url(network: str | None) -> bool:
    return network is not None and "://" in network


def is_network(type_: object, value: str | None) -> None:
    """For cyclopts. Raises ValueError."""
    del type_  # cyclopts hands it in
    if value is not None and not _is_url(value) and value not in NETWORKS:
        raise ValueError(f"{value!r} is none of {', '.join(NETWORKS)}, and no URL such as wss://host:443")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Chain:
    """Which subnet of which network."""

    netuid: Annotated[int, Parameter(help="The subnet.")] = 11
    network: Annotated[
        str | None,
        Parameter(
            name=["--network", "--subtensor.network"],
            help="finney (the mainnet, meant when nothing is named), test, archive (the mainnet with its old blocks), "
            "local (a node of your own), recorded (read only), or an endpoint's URL (ws, wss, http, https).",
            validator=is_network,
        ),
    ] = None
    endpoint: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--endpoint", "--subtensor.chain_endpoint"],
            help="JSON-RPC URL in place of the network's public ones; repeatable, tried in order.",
            negative="",
        ),
    ] = ()
    timeout: Annotated[float, Parameter(help="Seconds for one request to the chain.", validator=in_seconds)] = 15.0
    composer: Annotated[
        Literal["core", "substrate-interface"], Parameter(help="The library that composes what is signed.")
    ] = "core"
    debug: Annotated[bool, Parameter(name=["--logging.debug", "--logging.trace"], help=_DEBUG, negative="")] = False
    logging_info: Annotated[bool, Parameter(name="--logging.info", help=_INFO, negative="")] = False

    @property
    def network_name(self) -> str | None:
        """The network that was named; None when none was, or an endpoint in its place."""
        return None if _is_url(self.network) else self.network

    @property
    def urls(self) -> tuple[str, ...]:
        """The endpoints that were given, one in the place of a network first."""
        return (self.network, *self.endpoint) if self.network and _is_url(self.network) else self.endpoint

    @property
    def named(self) -> str:
        """The network as it is shown: what was named, else the endpoints. Raises CommandFailed as `check`."""
        return self.network_name or ", ".join(self.check()) or DEFAULT_NETWORK

    def check(self) -> list[str]:
        """The endpoints that were given, as they may be shown. Raises CommandFailed when one is none."""
        from engram.chain.endpoints import http_url
        from engram.chain.rpc import name_of

        try:
            return [name_of(http_url(url)) for url in self.urls]
        except ValueError as error:
            option = "--endpoint" if self.network_name == self.network else "--network or --endpoint"
            raise CommandFailed(f"{option}: {error}", Exit.USAGE) from None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wallet:
    """Which keys."""

    name: Annotated[str, Parameter(name="--wallet.name", help="The wallet, named as its coldkey.")] = "default"
    hotkey: Annotated[str, Parameter(name="--wallet.hotkey", help="The hotkey's name in the wallet.")] = "default"
    path: Annotated[Path, Parameter(name="--wallet.path", help="Folder of the wallets.")] = ROOT

    @property
    def folder(self) -> WalletFolder:
        """Where the files lie."""
        return WalletFolder(self.name, self.hotkey, self.path)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Shown:
    """How answers are shown."""

    format: Annotated[
        Form | None, Parameter(help="Default: a table on a terminal, upstream's own lines on a pipe.")
    ] = None

    @property
    def form(self) -> Form:
        """What to show, now that it is known where it goes."""
        return self.format or ("table" if sys.stdout.isatty() else "upstream")


CHAIN = Chain()
WALLET = Wallet()
SHOWN = Shown()


def run(command: Callable[[], Awaitable[T]]) -> T:
    """Runs an asynchronous command; what the chain refuses is a CommandFailed with the exit code that it means."""
    import trio

    from engram.chain import ChainError
    from engram.chain.errors import EndpointsForked, EndpointUnreachable, NotReadBack, OutcomeUnknown

    try:
        return trio.run(command)
    except EndpointsForked as forked:
        raise CommandFailed(fork_in_words(forked), Exit.FORKED) from None
    except (NotReadBack, OutcomeUnknown) as error:
        raise CommandFailed(str(error), Exit.UNKNOWN) from None
    except EndpointUnreachable as error:
        lines = [*getattr(error, "__notes__", ()), f"{error}; --endpoint or --network asks another endpoint"]
        raise CommandFailed("\n".join(lines)) from None
    except (ChainError, HotkeyError) as error:
        raise CommandFailed(str(error)) from None
    except msgspec.ValidationError as error:
        raise CommandFailed(f"the chain holds something of no known form: {error}") from None
    except BaseExceptionGroup as group:
        # Ctrl-C while several miners are asked arrives in the group of their tasks.
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from None
        raise


def fork_in_words(forked: "EndpointsForked") -> str:
    """The message, and on a second line the headers of both endpoints: the evidence."""
    return f"{forked}; nothing was sent\nevidence: {msgspec.json.encode(forked.fork).decode()}"


def hotkey_of(wallet: Wallet) -> Keypair:
    """The wallet's hotkey; asks for a password when there is one. Raises CommandFailed."""
    return _opened(wallet.folder.hotkey, wallet.folder.hotkey_path)


def coldkey_of(wallet: Wallet) -> Keypair:
    """The wallet's coldkey; asks for its password. Raises CommandFailed."""
    return _opened(wallet.folder.coldkey, wallet.folder.coldkey_path)


def public_hotkey_of(wallet: Wallet) -> PublicKey:
    """The wallet's hotkey, for whoever signs nothing: a `…pub.txt` stands in for a file that is encrypted or elsewhere.

    Raises CommandFailed.
    """
    folder = wallet.folder
    try:
        return folder.hotkey().public_key if folder.hotkey_path.exists() else folder.hotkey_public()
    except WalletEncrypted:
        if folder.hotkey_public_path.exists():
            return _read(folder.hotkey_public)
    except HotkeyError:
        pass  # Told again below, by the file that is wanted first.
    return hotkey_of(wallet).public_key


def public_coldkey_of(wallet: Wallet) -> PublicKey | None:
    """What is public of the coldkey; None when the wallet does not say. Reads no secret."""
    try:
        return wallet.folder.coldkey_public()
    except HotkeyError:
        return None


def _opened(read: Callable[[str | None], Keypair], path: Path) -> Keypair:
    try:
        return read(None)
    except WalletEncrypted as encrypted:
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            if not sys.stdin.isatty():
                raise CommandFailed(f"{encrypted} (in {PASSWORD_VARIABLE}, as there is no terminal)") from None
            password = getpass.getpass(f"password of the key file {path}: ")
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    return _read(lambda: read(password))


def _read(read: Callable[[], T]) -> T:
    try:
        return read()
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
