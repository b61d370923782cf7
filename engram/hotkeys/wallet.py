"""Hotkey files of Bittensor wallets, as btcli and every miner keep them.

A file is JSON with `publicKey`, `accountId`, `privateKey`, `secretPhrase`, `secretSeed`, `ss58Address`, `cryptoType`;
files of keys made from a URI carry neither phrase nor seed, so `privateKey` is what is read first. Encrypted files
start with `$NACL` (argon2i and secretbox); older forms are `$ANSIBLE_VAULT` and Fernet. Deciphering is left to
bittensor-core: it takes 3 to 6 s of CPU, so call it before the loop runs or in a worker.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from engram import files, wire
from engram.hotkeys.bittensor_core import decipher, is_encrypted, is_legacy
from engram.hotkeys.errors import MalformedHotkey, WalletEncrypted, WalletFileError, WrongPassword
from engram.hotkeys.keypair import Keypair

_MAX_FILE_BYTES = 65_536
_OF_OTHERS = 0o077


class _KeyFile(msgspec.Struct, frozen=True):
    private_key: str | None = msgspec.field(default=None, name="privateKey")
    secret_seed: str | None = msgspec.field(default=None, name="secretSeed")
    secret_phrase: str | None = msgspec.field(default=None, name="secretPhrase")
    address: str | None = msgspec.field(default=None, name="ss58Address")
    crypto_type: int = msgspec.field(default=1, name="cryptoType")


def read_hotkey_file(path: str | Path, password: str | None = None) -> Keypair:
    """Return the key pair of a wallet's hotkey file; blocks, for seconds when the file is encrypted.

    Raises WalletFileError (missing, damaged, not sr25519, address and key disagree), WalletEncrypted (a password is
    needed), WrongPassword.
    """
    path = Path(path)
    content, _ = _read(path)
    return _opened(path, content, password)


def _opened(path: Path, content: bytes, password: str | None) -> Keypair:
    if is_encrypted(content):
        if password is None:
            raise WalletEncrypted(f"the key file {path} is encrypted: give its password, or an unencrypted hotkey")
        try:
            content = decipher(content, password)
        except WrongPassword:
            raise WrongPassword(f"wrong password for the key file {path}") from None
        except WalletFileError as error:
            raise WalletFileError(f"{error}: {path}") from None
    return _parse(path, content)


def read_private_hotkey_file(path: str | Path, password: str | None = None) -> Keypair:
    """As `read_hotkey_file`, of a file that nobody but its owner may read or write; for whoever signs with it.

    Raises WalletFileError for one that is encrypted in an old form, too, naming the command that converts it.
    """
    path = Path(path)
    content, mode = _read(path)
    if mode & _OF_OTHERS:
        raise WalletFileError(f"the key file {path} is open to other users: chmod 600 {path}")
    if is_legacy(content):
        raise WalletFileError(f"the key file {path} is encrypted in an old form: engram wallet convert {path}")
    return _opened(path, content, password)


def write_hotkey_file(path: str | Path, keypair: Keypair) -> None:
    """Write `keypair` as an unencrypted wallet file of mode 0600, atomically and durably; replaces what is there.

    Missing folders are made with mode 0700. Raises WalletFileError.
    """
    write_key_bytes(Path(path), _content_of(keypair))


def write_new_hotkey_file(path: str | Path, keypair: Keypair) -> None:
    """As `write_hotkey_file`, but never over a file that is there: then it raises WalletFileError."""
    write_new_key_bytes(Path(path), _content_of(keypair))


def write_key_bytes(path: Path, content: bytes) -> None:
    """Write the bytes of a key file, of mode 0600, atomically and durably; replaces what is there.

    Missing folders are made with mode 0700. Raises WalletFileError.
    """
    _write(path, content, os.replace)


def write_new_key_bytes(path: Path, content: bytes) -> None:
    """As `write_key_bytes`, but never over a file that is there, not even one made since anybody looked.

    Raises WalletFileError.
    """
    _write(path, content, os.link)


def is_private(path: str | Path) -> bool:
    """Whether nobody but the owner may read or write the file."""
    return os.stat(path).st_mode & _OF_OTHERS == 0


def _content_of(keypair: Keypair) -> bytes:
    public_hex = "0x" + keypair.public_key.hex()
    return msgspec.json.encode(
        {
            "accountId": public_hex,
            "publicKey": public_hex,
            "privateKey": "0x" + keypair.private_key().hex(),
            "ss58Address": keypair.ss58,
            "cryptoType": 1,
        }
    )


def _write(path: Path, content: bytes, putting: Callable[[str, Path], None]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.put(path, content, putting)
    except FileExistsError:
        raise WalletFileError(f"the key file {path} exists already; choose another name") from None
    except OSError as error:
        raise WalletFileError(f"cannot write the key file {path}: {error.strerror}") from None


def _read(path: Path) -> tuple[bytes, int]:
    """The file's bytes, and the mode of the very file that they were read from."""
    try:
        with open(path, "rb", opener=_open) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise WalletFileError(f"the key file {path} is no file")
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise WalletFileError(f"cannot read the key file {path}: {error.strerror}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise WalletFileError(f"the key file {path} is larger than any key file")
    return content, mode


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # Opening a pipe that nobody writes to would last for ever.


def _parse(path: Path, content: bytes) -> Keypair:
    try:
        fields = wire.decode(content, _KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_bare_seed(path, content)
    if fields.crypto_type != 1:
        raise WalletFileError(f"the key file {path} holds no sr25519 key (cryptoType {fields.crypto_type})")
    try:
        keypair = _keypair(fields)
    except (MalformedHotkey, ValueError):
        raise WalletFileError(f"the key file {path} holds no usable private key") from None
    if keypair is None:
        raise WalletFileError(f"the key file {path} holds no private key; is it the public one (…pub.txt)?")
    if fields.address is not None and fields.address != keypair.ss58:
        raise WalletFileError(f"the key file {path} is damaged: its address {fields.address} is not its key's")
    return keypair


def _keypair(fields: _KeyFile) -> Keypair | None:
    if fields.private_key:
        return Keypair(_unhex(fields.private_key))
    if fields.secret_seed:
        return Keypair.from_seed(_unhex(fields.secret_seed))
    if fields.secret_phrase:
        return Keypair.from_uri(fields.secret_phrase)
    return None


def _parse_bare_seed(path: Path, content: bytes) -> Keypair:
    """The oldest form: the file is nothing but the hex of the seed."""
    try:
        return Keypair.from_seed(_unhex(content.decode("ascii").strip()))
    except (MalformedHotkey, ValueError):
        raise WalletFileError(f"the key file {path} is damaged: neither JSON nor a seed") from None


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
