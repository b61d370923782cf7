"""`engram wallet import`: a key from words, a seed, a keystore of polkadot-js, or the public part alone.

A secret is typed at a hidden prompt, or comes from a file or a descriptor; never from an argument, which other users
can read.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.chain.common import WALLET, WalletOptions
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, Show
from engram.cli.wallet.passwords import new_password, typed
from engram.hotkeys import (
    HotkeyError,
    Keypair,
    MalformedHotkey,
    PublicKey,
    key_content,
    key_files,
    parse_hotkey,
    restoring,
    ss58,
    wallet_folder,
)
from engram.hotkeys.passwords import Role, line_of_descriptor, line_of_file
from engram.hotkeys.wallet import read_key_bytes

app = App(
    name="import",
    help="Import a key into a wallet: words, a seed, a keystore of polkadot-js, or a public key.",
    help_epilogue="Example: `engram wallet import words --as coldkey --wallet.name W`",
)
As = Annotated[Role, Parameter(name="--as", help="The key of the wallet that it becomes.")]
Address = Annotated[str | None, Parameter(help="Write nothing unless the key has this address.")]
Encrypt = Annotated[
    bool | None,
    Parameter(help="Encrypt the file; a coldkey is, a hotkey is not, unless this says otherwise."),
]
Never = Annotated[str, Parameter(show=False)]
Derive = Annotated[str, Parameter(help="Derivation path, such as //hard/soft.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Secret:
    """Where the words or the seed come from; by default a hidden prompt on the terminal."""

    secret_file: Annotated[Path | None, Parameter(help="File of mode 0600 with the secret in one line.")] = None
    secret_fd: Annotated[
        int | None, Parameter(converter=whole, help="Open file descriptor whose next line is the secret.")
    ] = None

    def read(self, what: str) -> str:
        """Return the secret. Raises CommandFailed."""
        return _line(self.secret_file, self.secret_fd, "secret", what)


SECRET: Final = Secret()


class Imported(msgspec.Struct, frozen=True):
    """A key that was imported."""

    key: str
    address: str
    public_key: str
    """64 hex digits."""
    file: str
    encrypted: bool


@app.command(name="words", help_epilogue="Example: `engram wallet import words --as coldkey --wallet.name W`")
def words(
    *arguments: Never,
    role: As,
    secret: Secret = SECRET,
    derive: Derive = "",
    address: Address = None,
    encrypt: Encrypt = None,
    wallet: WalletOptions = WALLET,
    show: Show = SHOW,
) -> None:
    """Restore a key from its 12 or 24 words, typed at a hidden prompt; `//path` and `///password` may follow them."""
    _refuse_arguments(arguments)
    _refuse_taken(wallet, role)
    restored = _restored(restoring.from_words, secret, "the 12 or 24 words (hidden): ", derive)
    _write(wallet, role, restored, address, encrypt, show)


@app.command(name="seed", help_epilogue="Example: `engram wallet import seed --as hotkey --secret-file seed`")
def seed(
    *arguments: Never,
    role: As,
    secret: Secret = SECRET,
    derive: Derive = "",
    address: Address = None,
    encrypt: Encrypt = None,
    wallet: WalletOptions = WALLET,
    show: Show = SHOW,
) -> None:
    """Restore a key from its seed, 64 hex digits typed at a prompt; `//path` and `///password` may follow them."""
    _refuse_arguments(arguments)
    _refuse_taken(wallet, role)
    restored = _restored(restoring.from_seed, secret, "the seed, 64 hex digits (hidden): ", derive)
    _write(wallet, role, restored, address, encrypt, show)


@app.command(name="keystore", help_epilogue="Example: `engram wallet import keystore 5F….json --as coldkey`")
def keystore(
    file: Annotated[Path, Parameter(help="The JSON file.")],
    *,
    role: As,
    keystore_password_file: Annotated[Path | None, Parameter(help="File of mode 0600 with its password.")] = None,
    keystore_password_fd: Annotated[
        int | None, Parameter(converter=whole, help="Descriptor whose next line is its password.")
    ] = None,
    address: Address = None,
    encrypt: Encrypt = None,
    wallet: WalletOptions = WALLET,
    show: Show = SHOW,
) -> None:
    """Import a keystore as polkadot-js exports it: the JSON file of one sr25519 key."""
    from engram.hotkeys import polkadot_keystore

    _refuse_taken(wallet, role)
    try:
        content = read_key_bytes(file.expanduser())
        password = None
        if polkadot_keystore.is_encrypted(content):
            question = f"password of the keystore {file}: "
            password = keystore_password(keystore_password_file, keystore_password_fd, question)
        pair = polkadot_keystore.read(content, password)
    except HotkeyError as error:
        raise CommandFailed(f"{file}: {error}") from None
    _write(wallet, role, restoring.Restored(pair, key_content.content_of(pair)), address, encrypt, show)


@app.command(name="public", help_epilogue="Example: `engram wallet import public 5F… --as coldkey --wallet.name W`")
def public(
    key: Annotated[str, Parameter(help="Address, 64 hex digits, or a …pub.txt file.")],
    *,
    role: As,
    wallet: WalletOptions = WALLET,
    show: Show = SHOW,
) -> None:
    """Import only the public key: enough for every command that does not sign with it."""
    try:
        public_key = parse_hotkey(key)
    except MalformedHotkey as error:
        path = Path(key).expanduser()
        if not path.exists():
            raise CommandFailed(f"KEY is neither a file nor a key: {error}", Exit.USAGE) from None
        try:
            public_key = wallet_folder.read_public_file(path)
        except HotkeyError as refused:
            raise CommandFailed(str(refused)) from None
    place = _public_path(wallet, role)
    try:
        key_files.create_public(place, public_key)
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    _show(role, public_key, place, encrypted=False, show=show)


def keystore_password(file: Path | None, descriptor: int | None, question: str) -> str:
    """Return the password of a keystore, prompting if none is given. Raises CommandFailed."""
    return _line(file, descriptor, "keystore-password", question)


def _restored(
    restore: Callable[[str, str], restoring.Restored], secret: Secret, question: str, derive: str
) -> restoring.Restored:
    """Ask for the secret once the derivation path is known to be well formed. Raises CommandFailed."""
    try:
        restoring.check_derivation(derive)
        return restore(secret.read(question), derive)
    except MalformedHotkey as error:
        raise CommandFailed(str(error)) from None


def _refuse_arguments(arguments: tuple[str, ...]) -> None:
    if arguments:
        raise CommandFailed(
            "a secret is never an argument: other users can read those, and shells keep them. It is typed unseen, or "
            "given by --secret-file or --secret-fd",
            Exit.USAGE,
        )


def _refuse_taken(wallet: WalletOptions, role: Role) -> None:
    path = wallet.key_path(role)
    if os.path.lexists(path):
        raise CommandFailed(f"{path} exists already, and no key file is replaced; choose another name")


def _write(
    wallet: WalletOptions,
    role: Role,
    restored: restoring.Restored,
    address: str | None,
    encrypt: bool | None,
    show: Show,
) -> None:
    path, place = wallet.key_path(role), _public_path(wallet, role)
    pair = restored.keypair
    _expect(pair, address, place)
    encrypting = role == "coldkey" if encrypt is None else encrypt
    password = new_password(wallet, role) if encrypting else None
    try:
        # The public file first: a command that is interrupted here can be given again.
        key_files.create_public(place, pair.public_key)
        wallet_folder.write_content(path, restored.content, pair, password)
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    _show(role, pair.public_key, path, encrypted=encrypting, show=show)


def _expect(pair: Keypair, address: str | None, place: Path) -> None:
    try:
        wanted = None if address is None else parse_hotkey(address)
        there = wallet_folder.read_public_file(place) if place.exists() else None
    except MalformedHotkey as error:
        raise CommandFailed(f"--address: {error}", Exit.USAGE) from None
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    for expected, where in ((wanted, "--address is"), (there, f"{place} names")):
        if expected not in (None, pair.public_key):
            raise CommandFailed(f"the key is {pair.ss58}, and {where} {ss58.encode(expected)}; nothing was written")


def _public_path(wallet: WalletOptions, role: Role) -> Path:
    folder = wallet.folder
    return folder.coldkey_public_path if role == "coldkey" else folder.hotkey_public_path


def _line(file: Path | None, descriptor: int | None, option: str, question: str) -> str:
    if file is not None and descriptor is not None:
        raise CommandFailed(f"give --{option}-file or --{option}-fd, not both", Exit.USAGE)
    what = option.replace("-", " ")
    try:
        if file is not None:
            return line_of_file(file.expanduser(), f"--{option}-file", what)
        if descriptor is not None:
            return line_of_descriptor(descriptor, f"--{option}-fd", what)
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    return typed(question, f"there is no terminal to prompt on: give --{option}-file or --{option}-fd")


def _show(role: Role, key: PublicKey, path: Path, *, encrypted: bool, show: Show) -> None:
    output.record(Imported(role, ss58.encode(key), key.hex(), str(path), encrypted), json=show.json)
