"""Hotkey files of Bittensor wallets, as btcli and every miner keep them: reading, and making new ones.

`key_content` says what stands in them, `key_files` how they are written. Opening an encrypted one takes 3 to 6 s of
CPU, so call it before the loop runs or in a worker.
"""

import os
import stat
from pathlib import Path

from engram.hotkeys import key_content, key_files
from engram.hotkeys.bittensor_core import is_legacy
from engram.hotkeys.errors import WalletFileError
from engram.hotkeys.keypair import Keypair

_OF_OTHERS = 0o077


def read_hotkey_file(path: str | Path, password: str | None = None) -> Keypair:
    """Return the key pair of a wallet's hotkey file; blocks, for seconds when the file is encrypted.

    Raises WalletFileError (missing, damaged, not sr25519, address and key disagree), WalletEncrypted (a password is
    needed), WrongPassword.
    """
    path = Path(path)
    content, _ = _read(path)
    return _opened(path, content, password)


def _opened(path: Path, content: bytes, password: str | None) -> Keypair:
    return key_content.keypair(path, key_content.plain(path, content, password))


def read_private_hotkey_file(path: str | Path, password: str | None = None) -> Keypair:
    """Read a key to sign with, as `read_hotkey_file`, from a file that only its owner may read or write.

    Raises WalletFileError for one that is encrypted in an old form, too, naming the command that converts it.
    """
    path = Path(path)
    content, mode = _read(path)
    if mode & _OF_OTHERS:
        raise WalletFileError(f"the key file {path} is open to other users: chmod 600 {path}")
    if is_legacy(content):
        raise WalletFileError(f"the key file {path} is encrypted in an old form: engram wallet convert {path}")
    return _opened(path, content, password)


def read_key_bytes(path: Path) -> bytes:
    """Return the content of a key file, at most 64 KiB, without a byte order mark. Raises WalletFileError."""
    return _read(path)[0]


def write_hotkey_file(path: str | Path, keypair: Keypair) -> None:
    """Write `keypair` as an unencrypted wallet file of mode 0600, atomically and durably, never over one that is there.

    Missing folders are made with mode 0700. Raises WalletFileError, also for a file made since the caller looked.
    """
    key_files.create(Path(path), key_content.content_of(keypair), keypair.public_key)


def is_private(path: str | Path) -> bool:
    """Return whether only the owner may read or write the file."""
    return os.stat(path).st_mode & _OF_OTHERS == 0


def _read(path: Path) -> tuple[bytes, int]:
    """Return the file's bytes, and the mode of the very file that they were read from."""
    try:
        with open(path, "rb", opener=_open) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise WalletFileError(f"the key file {path} is no file")
            content = file.read(key_content.MAX_BYTES + 1)
    except FileNotFoundError:
        raise WalletFileError(f"there is no key file {path}") from None
    except OSError as error:
        raise WalletFileError(f"cannot read the key file {path}: {error.strerror}") from None
    if len(content) > key_content.MAX_BYTES:
        raise WalletFileError(f"the key file {path} is larger than any key file")
    return key_content.unmarked(content), mode


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # Opening a pipe that nobody writes to would last for ever.
