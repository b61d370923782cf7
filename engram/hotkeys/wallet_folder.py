"""A Bittensor wallet's folder: `ROOT/NAME/{coldkey, coldkeypub.txt, hotkeys/HOTKEY}`, as btcli lays it out."""

from pathlib import Path
from typing import Final

import msgspec

from engram.hotkeys import key_content, key_files, wallet
from engram.hotkeys.bittensor_core import encipher, is_legacy, key_file_of
from engram.hotkeys.errors import InvalidWalletName, WalletFileError
from engram.hotkeys.keypair import Keypair
from engram.hotkeys.ss58 import PublicKey, encode

_PUBLIC: Final = "pub.txt"
ROOT: Final = Path("~/.bittensor/wallets")


class WalletFolder(msgspec.Struct, frozen=True):
    """Where the keys of one wallet lie. Raises InvalidWalletName when a name leaves the folder that it is in."""

    name: str
    hotkey_name: str
    root: Path = ROOT

    def __post_init__(self) -> None:
        _check_name("wallet", self.name)
        _check_name("hotkey", self.hotkey_name)

    @property
    def folder(self) -> Path:
        """The wallet's own folder."""
        return self.root.expanduser() / self.name

    @property
    def hotkey_path(self) -> Path:
        """The hotkey's file."""
        return self.folder / "hotkeys" / self.hotkey_name

    @property
    def hotkey_public_path(self) -> Path:
        """What is public of the hotkey."""
        return self.folder / "hotkeys" / f"{self.hotkey_name}{_PUBLIC}"

    @property
    def coldkey_path(self) -> Path:
        """The coldkey's file, encrypted as a rule."""
        return self.folder / "coldkey"

    @property
    def coldkey_public_path(self) -> Path:
        """What is public of the coldkey."""
        return self.folder / "coldkeypub.txt"

    def hotkey(self, password: str | None = None) -> Keypair:
        """Return the hotkey's key pair; blocks, for seconds when it is encrypted.

        Raises WalletFileError (missing, damaged, open to others), WalletEncrypted, WrongPassword.
        """
        return wallet.read_private_hotkey_file(self.hotkey_path, password)

    def coldkey(self, password: str | None = None) -> Keypair:
        """Return the coldkey's key pair; as `hotkey`."""
        return wallet.read_private_hotkey_file(self.coldkey_path, password)

    def hotkey_public(self) -> PublicKey:
        """Return the hotkey's public key, by its `…pub.txt`; no secret is touched. Raises WalletFileError."""
        return read_public_file(self.hotkey_public_path)

    def coldkey_public(self) -> PublicKey:
        """Return the coldkey's public key; no secret is touched. Raises WalletFileError."""
        return read_public_file(self.coldkey_public_path)


def _check_name(what: str, name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\0" in name or name.endswith(_PUBLIC):
        raise InvalidWalletName(
            f"{name!r} is no name of a {what}: it must be the name of one file, not a path, and not end in {_PUBLIC}"
        )


def read_public_file(path: Path) -> PublicKey:
    """Return the key that a `…pub.txt` file names. Raises WalletFileError."""
    return key_content.public_key(path, wallet.read_key_bytes(path))


def write_new(path: Path, mnemonic: str, password: str | None) -> Keypair:
    """Write the key of a mnemonic, encrypted when there is a password (8 s of CPU); never over a file that is there.

    Raises WalletFileError, MalformedHotkey.
    """
    keypair = Keypair.from_uri(mnemonic)
    write_content(path, key_file_of(mnemonic), keypair, password)
    return keypair


def write_content(path: Path, content: bytes, keypair: Keypair, password: str | None) -> None:
    """Write the plain content of a key file, encrypted when there is a password; as `write_new`."""
    if path.exists():
        raise WalletFileError(f"the key file {path} exists already; choose another name")
    written = content if password is None else encipher(content, password)
    key_files.create(path, written, keypair.public_key, password)


def write_public(path: Path, keypair: Keypair) -> None:
    """Write the `…pub.txt` of a key, unless it is there. Raises WalletFileError, also when it names another key."""
    key_files.create_public(path, keypair.public_key)


def convert(path: Path, password: str) -> Path | None:
    """Encrypt a key file of an older form again in the current one; 8 s of CPU.

    Returns where the old file is kept; None when it needs no conversion. Nothing is changed unless the file holds the
    key that it names, and that its `…pub.txt` names if there is one. Raises WalletFileError, WrongPassword.
    """
    before = wallet.read_key_bytes(path)
    if not is_legacy(before):
        return None
    try:
        content = key_content.plain(path, before, password)
        key = key_content.keypair(path, content).public_key
        public = path.with_name(f"{path.name}{_PUBLIC}")
        if public.exists() and read_public_file(public) != key:
            raise WalletFileError(f"the key file {path} is of {encode(key)}, and {public} names another key")
    except WalletFileError as error:
        raise WalletFileError(f"{error}; nothing was changed") from None
    return key_files.replace(path, before, encipher(content, password), key, password)
