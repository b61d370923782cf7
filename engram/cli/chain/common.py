"""Options shared by the chain's commands: network, wallet, output format; and the translation of its errors."""

import math
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import msgspec
from cyclopts import Parameter

from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.hotkeys import HotkeyError, Keypair, PublicKey, WalletEncrypted, ss58
from engram.hotkeys.errors import InvalidWalletName
from engram.hotkeys.passwords import Role, at_terminal, given, password_for
from engram.hotkeys.wallet import is_private, read_private_hotkey_file
from engram.hotkeys.wallet_folder import ROOT, WalletFolder, read_public_file

if TYPE_CHECKING:
    from engram.chain.errors import EndpointsForked

T = TypeVar("T")
_DEBUG: Final = "Log each call to the chain, with its duration, to standard error."
_INFO: Final = "Accepted for older command lines; this much is always shown."
_FILE: Final = "File of mode 0600 with the password of an encrypted {}."
_DESCRIPTOR: Final = "Open file descriptor whose next line is the password of an encrypted {}."
Form = Literal["upstream", "table", "json"]
DEFAULT_NETWORK: Final = "finney"


def in_seconds(type_: object, value: float) -> None:
    """Validate a time for cyclopts. Raises ValueError here, not after something was sent."""
    del type_  # cyclopts hands it in
    if not 0 < value < math.inf:
        raise ValueError(f"a time is more than 0 seconds, not {value:g}")


NETWORKS: Final = ("finney", "test", "archive", "local", "recorded")


def _is_url(network: str | None) -> bool:
    return network is not None and "://" in network


def is_network(type_: object, value: str | None) -> None:
    """Validate a network for cyclopts. Raises ValueError."""
    del type_  # cyclopts hands it in
    if value is not None and not _is_url(value) and value not in NETWORKS:
        raise ValueError(f"{value!r} is neither one of {', '.join(NETWORKS)} nor a URL such as wss://host:443")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ChainOptions:
    """Which subnet of which network."""

    netuid: Annotated[int, Parameter(converter=whole, help="The subnet.")] = 11
    network: Annotated[
        str | None,
        Parameter(
            name=["--network", "--subtensor.network"],
            help="finney (the mainnet, the default), test, archive (the mainnet with its old blocks), "
            "local (your own node), recorded (read only), or an endpoint's URL (ws, wss, http, https).",
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
        Literal["core", "substrate-interface"], Parameter(help="Library that composes the extrinsics.")
    ] = "core"
    logging_debug: Annotated[bool, Parameter(name="--logging.debug", help=_DEBUG, negative="")] = False
    logging_trace: Annotated[bool, Parameter(name="--logging.trace", help="As --logging.debug.", negative="")] = False
    logging_info: Annotated[bool, Parameter(name="--logging.info", help=_INFO, negative="")] = False

    @property
    def network_name(self) -> str | None:
        """The name of the network; None when none was given, or a URL in its place."""
        return None if _is_url(self.network) else self.network

    @property
    def urls(self) -> tuple[str, ...]:
        """The endpoints that were given, a URL in place of a network first."""
        return (self.network, *self.endpoint) if self.network and _is_url(self.network) else self.endpoint

    @property
    def debug(self) -> bool:
        """Whether to log each call to the chain."""
        return self.logging_debug or self.logging_trace

    @property
    def named(self) -> str:
        """The network's name, or else the endpoints, for output. Raises CommandFailed as `check`."""
        return self.network_name or ", ".join(self.check()) or DEFAULT_NETWORK

    def check(self) -> list[str]:
        """Return the given endpoints without credentials. Raises CommandFailed when one is malformed."""
        from engram.chain.read.endpoints import http_url
        from engram.chain.read.rpc import name_of

        try:
            return [name_of(http_url(url)) for url in self.urls]
        except ValueError as error:
            option = "--endpoint" if self.network_name == self.network else "--network or --endpoint"
            raise CommandFailed(f"{option}: {error}", Exit.USAGE) from None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WalletOptions:
    """Which keys."""

    name: Annotated[str, Parameter(name="--wallet.name", help="The wallet, named as its coldkey.")] = "default"
    hotkey: Annotated[str, Parameter(name="--wallet.hotkey", help="The hotkey's name in the wallet.")] = "default"
    path: Annotated[Path, Parameter(name="--wallet.path", help="Folder of the wallets.")] = ROOT
    coldkey_password_file: Annotated[Path | None, Parameter(help=_FILE.format("coldkey"))] = None
    coldkey_password_fd: Annotated[int | None, Parameter(converter=whole, help=_DESCRIPTOR.format("coldkey"))] = None
    hotkey_password_file: Annotated[Path | None, Parameter(help=_FILE.format("hotkey"))] = None
    hotkey_password_fd: Annotated[int | None, Parameter(converter=whole, help=_DESCRIPTOR.format("hotkey"))] = None

    @property
    def folder(self) -> WalletFolder:
        """The wallet's folder. Raises CommandFailed for an invalid name."""
        try:
            return WalletFolder(self.name, self.hotkey, self.path)
        except InvalidWalletName as error:
            raise CommandFailed(str(error), Exit.USAGE) from None

    def key_path(self, role: Role) -> Path:
        """Return the path of the secret key. Raises CommandFailed as `folder`."""
        return self.folder.coldkey_path if role == "coldkey" else self.folder.hotkey_path

    def password(self, role: Role) -> str | None:
        """Return the password of the key file, prompting for it; None when not encrypted. Raises CommandFailed."""
        file, descriptor = self._password_options(role)
        path = self.key_path(role)
        return _read(
            lambda: password_for(
                path, file, f"--{role}-password-file", os.environ, at_terminal(), role=role, descriptor=descriptor
            )
        )

    def given_password(self, role: Role, path: Path | None = None) -> str | None:
        """Return the password given for the key file (or for `path`), which need not exist; never prompts.

        Raises CommandFailed.
        """
        file, descriptor = self._password_options(role)
        path = path or self.key_path(role)
        return _read(lambda: given(path, file, f"--{role}-password-file", os.environ, role, descriptor))

    def _password_options(self, role: Role) -> tuple[str, int | None]:
        file, descriptor = (
            (self.coldkey_password_file, self.coldkey_password_fd)
            if role == "coldkey"
            else (self.hotkey_password_file, self.hotkey_password_fd)
        )
        if file is not None and descriptor is not None:
            raise CommandFailed(f"give --{role}-password-file or --{role}-password-fd, not both", Exit.USAGE)
        return ("" if file is None else str(file.expanduser())), descriptor


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """How answers are shown."""

    format: Annotated[
        Form | None, Parameter(help="Default: a table on a terminal, upstream's own lines on a pipe.")
    ] = None

    @property
    def form(self) -> Form:
        """The format, which depends on where the output goes."""
        return self.format or ("table" if sys.stdout.isatty() else "upstream")


CHAIN = ChainOptions()
WALLET = WalletOptions()
SHOWN = FormatOptions()


def run(command: Callable[[], Awaitable[T]]) -> T:
    """Run an asynchronous command. Raises CommandFailed, see `failing`."""
    import trio

    with failing():
        return trio.run(command)


@contextmanager
def failing() -> Iterator[None]:
    """Turn what the chain refuses into a CommandFailed with its exit code."""
    from engram.chain.errors import (
        ChainError,
        EndpointsForked,
        EndpointUnreachable,
        NotReadBack,
        OutcomeUnknown,
        RevealAwaited,
        RevealFailed,
    )

    try:
        yield
    except EndpointsForked as forked:
        raise CommandFailed(fork_in_words(forked), Exit.FORKED) from None
    except (NotReadBack, OutcomeUnknown) as error:
        raise CommandFailed(str(error), Exit.UNKNOWN) from None
    except (RevealAwaited, RevealFailed) as error:
        exit_code = Exit.UNKNOWN if isinstance(error, RevealAwaited) else Exit.FAILED
        raise CommandFailed(f"{error} (`engram subnet status` shows the last update)", exit_code) from None
    except EndpointUnreachable as error:
        lines = [*getattr(error, "__notes__", ()), f"{error}; --endpoint or --network asks another endpoint"]
        raise CommandFailed("\n".join(lines)) from None
    except (ChainError, HotkeyError) as error:
        raise CommandFailed(str(error)) from None
    except msgspec.ValidationError as error:
        raise CommandFailed(f"the chain's answer has an unknown form: {error}") from None
    except BaseExceptionGroup as group:
        # Ctrl-C while several miners are asked arrives in the group of their tasks.
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from None
        raise


def fork_in_words(forked: "EndpointsForked") -> str:
    """Return the message, and on a second line the headers of both endpoints as evidence."""
    return f"{forked}; nothing was sent\nevidence: {msgspec.json.encode(forked.fork).decode()}"


class PublicHotkey(msgspec.Struct, frozen=True):
    """A hotkey without its secret, for dry runs."""

    public_key: PublicKey

    @property
    def ss58(self) -> str:
        """The address."""
        return ss58.encode(self.public_key)


def hotkey_of(wallet: WalletOptions) -> Keypair:
    """Return the wallet's hotkey for signing, prompting for a password if it is encrypted. Raises CommandFailed."""
    return _opened(wallet, "hotkey")


def coldkey_of(wallet: WalletOptions) -> Keypair:
    """Return the wallet's coldkey for signing, prompting for its password. Raises CommandFailed."""
    return _opened(wallet, "coldkey")


def hotkey_to(wallet: WalletOptions, *, sign: bool) -> Keypair | PublicHotkey:
    """Return the wallet's hotkey, with its secret only if it will `sign`. Raises CommandFailed."""
    return hotkey_of(wallet) if sign else PublicHotkey(public_hotkey_of(wallet))


def public_hotkey_of(wallet: WalletOptions) -> PublicKey:
    """Return the wallet's public hotkey, from its `…pub.txt` if there is one.

    The secret is opened only without a public file. Raises CommandFailed, also when other users can read the secret.
    """
    folder = wallet.folder
    there = folder.hotkey_path.exists()
    if folder.hotkey_public_path.exists() and not (there and _is_open_to_others(folder.hotkey_path)):
        try:
            return folder.hotkey_public()
        except HotkeyError as error:
            if not there:
                raise CommandFailed(str(error)) from None
    return hotkey_of(wallet).public_key


def public_coldkey_of(wallet: WalletOptions) -> PublicKey | None:
    """Return the public coldkey, None when the wallet has no public file. Reads no secret."""
    try:
        return wallet.folder.coldkey_public()
    except HotkeyError:
        return None


def _is_open_to_others(path: Path) -> bool:
    try:
        return not is_private(path)
    except OSError:
        return False


def _opened(wallet: WalletOptions, role: Role) -> Keypair:
    path = wallet.key_path(role)
    try:
        keypair = read_private_hotkey_file(path)
    except WalletEncrypted:
        password = wallet.password(role)
        keypair = _read(lambda: read_private_hotkey_file(path, password))
    except HotkeyError as error:
        hint = "" if path.exists() else "; --wallet.path, --wallet.name and --wallet.hotkey name another"
        raise CommandFailed(f"{error}{hint}") from None
    public = path.with_name(f"{path.name}pub.txt")
    if public.exists() and _read(lambda: read_public_file(public)) != keypair.public_key:
        raise CommandFailed(f"{public} does not match the key in {path}, which is {keypair.ss58}; nothing was sent")
    return keypair


def _read(read: Callable[[], T]) -> T:
    try:
        return read()
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
