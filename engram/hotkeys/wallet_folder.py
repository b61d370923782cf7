"""A Bittensor wallet's folder: `ROOT/NAME/{coldkey, coldkeypub.txt, hotkeys/HOTKEY}`, as btcli lays it out."""

from pathlib import Path
from typing import Final

import msgspec

from engram.hotkeys import wallet
from engram.hotkeys.errors import MalformedHotkey, WalletFileError
from engram.hotkeys.keypair import Keypair
from engram.hotkeys.ss58 import PublicKey, parse_hotkey

ROOT: Final = Path("~/.bittensor/wallets")
_MAX_PUBLIC_BYTES: Final = 65_536


class _PublicFile(msgspec.Struct, frozen=True):
    address: str | None = msgspec.field(default=None, name="ss58Address")
    public_key: str | None = msgspec.field(default=None, name="publicKey")
    account_id: str | None = msgspec.field(default=None, name="accountId")


class WalletFolder(msgspec.Struct, frozen=True):
    """Where the keys of one wallet lie."""

    name: str
    hotkey_name: str
    root: Path = ROOT

    @property
    def folder(self) -> Path:
        """The wallet's own folder."""
        return self.root.expanduser() / self.name

    @property
    def hotkey_path(self) -> Path:
        """The hotkey's file."""
        return self.folder / "hotkeys" / self.hotkey_name

    @property
    def coldkey_path(self) -> Path:
        """The coldkey's file, encrypted as a rule."""
        return self.folder / "coldkey"

    @property
    def coldkey_public_path(self) -> Path:
        """What is public of the coldkey."""
        return self.folder / "coldkeypub.txt"

    def hotkey(self, password: str | None = None) -> Keypair:
        """The hotkey's key pair; blocks, for seconds when it is encrypted.

        Raises WalletFileError (missing, damaged, open to others), WalletEncrypted, WrongPassword.
        """
        return _read_private(self.hotkey_path, password)

    def coldkey(self, password: str | None = None) -> Keypair:
        """The coldkey's key pair; as `hotkey`."""
        return _read_private(self.coldkey_path, password)

    def coldkey_public(self) -> PublicKey:
        """The coldkey's public key; no secret is touched. Raises WalletFileError."""
        return read_public_file(self.coldkey_public_path)


def read_public_file(path: Path) -> PublicKey:
    """The key that a `…pub.txt` file names. Raises WalletFileError."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_PUBLIC_BYTES)
        fields = msgspec.json.decode(content, type=_PublicFile)
        return parse_hotkey(fields.address or fields.public_key or fields.account_id or "")
    except OSError as error:
        raise WalletFileError(f"cannot read the key file {path}: {error.strerror}") from None
    except (msgspec.DecodeError, MalformedHotkey):
        raise WalletFileError(f"the key file {path} names no public key") from None


def _read_private(path: Path, password: str | None) -> Keypair:
    try:
        private = wallet.is_private(path)
    except OSError as error:
        raise WalletFileError(f"cannot read the key file {path}: {error.strerror}") from None
    if not private:
        raise WalletFileError(f"the key file {path} is open to other users: chmod 600 {path}")
    return wallet.read_hotkey_file(path, password)
