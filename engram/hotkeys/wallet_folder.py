"""A Bittensor wallet's folder: `ROOT/NAME/{coldkey, coldkeypub.txt, hotkeys/HOTKEY}`, as btcli lays it out."""

from pathlib import Path
from typing import Final

import msgspec

from engram import wire
from engram.hotkeys import wallet
from engram.hotkeys.bittensor_core import decipher, encipher, is_legacy, key_file_of
from engram.hotkeys.errors import MalformedHotkey, WalletFileError
from engram.hotkeys.keypair import Keypair
from engram.hotkeys.ss58 import PublicKey, parse_hotkey

ROOT: Final = Path("~/.bittensor/wallets")
_MAX_BYTES: Final = 65_536


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
    def hotkey_public_path(self) -> Path:
        """What is public of the hotkey."""
        return self.folder / "hotkeys" / f"{self.hotkey_name}pub.txt"

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
        return wallet.read_private_hotkey_file(self.hotkey_path, password)

    def coldkey(self, password: str | None = None) -> Keypair:
        """The coldkey's key pair; as `hotkey`."""
        return wallet.read_private_hotkey_file(self.coldkey_path, password)

    def hotkey_public(self) -> PublicKey:
        """The hotkey's public key, by its `…pub.txt`; no secret is touched. Raises WalletFileError."""
        return read_public_file(self.hotkey_public_path)

    def coldkey_public(self) -> PublicKey:
        """The coldkey's public key; no secret is touched. Raises WalletFileError."""
        return read_public_file(self.coldkey_public_path)


def read_public_file(path: Path) -> PublicKey:
    """The key that a `…pub.txt` file names. Raises WalletFileError."""
    content = _content(path)
    try:
        fields = wire.decode(content, _PublicFile)
        return parse_hotkey(fields.address or fields.public_key or fields.account_id or "")
    except (msgspec.DecodeError, UnicodeDecodeError, MalformedHotkey):
        raise WalletFileError(f"the key file {path} names no public key") from None


def write_new(path: Path, mnemonic: str, password: str | None) -> Keypair:
    """Write the key of a mnemonic, encrypted when there is a password (5 s of CPU); never over a file that is there.

    Raises WalletFileError, MalformedHotkey.
    """
    if path.exists():
        raise WalletFileError(f"the key file {path} exists already; choose another name")
    content = key_file_of(mnemonic)
    wallet.write_new_key_bytes(path, content if password is None else encipher(content, password))
    return Keypair.from_uri(mnemonic)


def write_public(path: Path, keypair: Keypair) -> None:
    """Write the `…pub.txt` of a key. Raises WalletFileError."""
    public = "0x" + keypair.public_key.hex()
    fields = {"accountId": public, "publicKey": public, "ss58Address": keypair.ss58, "cryptoType": 1}
    wallet.write_key_bytes(path, msgspec.json.encode(fields))


def convert(path: Path, password: str) -> bool:
    """Encrypt a key file anew in the current form; 10 s of CPU. False when it needs none.

    Raises WalletFileError, WrongPassword.
    """
    content = _content(path)
    if not is_legacy(content):
        return False
    wallet.write_key_bytes(path, encipher(decipher(content, password), password))
    return True


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise WalletFileError(f"cannot read the key file {path}: {error.strerror}") from None
