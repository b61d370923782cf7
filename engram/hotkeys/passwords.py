"""Where the password of an encrypted key file comes from: a file, the environment, a terminal, in this order."""

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from engram.hotkeys.bittensor_core import is_encrypted
from engram.hotkeys.errors import WalletEncrypted, WalletFileError
from engram.hotkeys.wallet import is_private

PASSWORD_VARIABLE: Final = "ENGRAM_WALLET_PASSWORD"  # noqa: S105 - a variable's name
_HEAD_BYTES: Final = 64
_MAX_BYTES: Final = 4_096

Ask = Callable[[str], str]
"""Shows a question and returns what is typed, unseen."""


def at_terminal() -> Ask | None:
    """How to ask whoever started this process; None when nobody sits there."""
    return getpass.getpass if sys.stdin is not None and sys.stdin.isatty() else None


def password_for(
    key_file: Path,
    password_file: str,
    setting: str,
    environ: Mapping[str, str] | None = os.environ,
    ask: Ask | None = None,
) -> str | None:
    """The password of this key file; None when it is not encrypted, or cannot be read (its reading says why).

    Blocks while it asks. `setting` is what names `password_file` (empty: none is named); `environ` and `ask` may be no
    sources. Raises WalletEncrypted when there is no password anywhere, WalletFileError when its file is open to others,
    not readable, or not one line.
    """
    try:
        with key_file.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if not is_encrypted(head):
        return None
    if password_file:
        return _from_file(Path(password_file), setting)
    if environ is not None and environ.get(PASSWORD_VARIABLE):
        return environ[PASSWORD_VARIABLE]
    if ask is not None:
        return ask(f"password of the key file {key_file}: ")
    other = "" if environ is None else f", or set {PASSWORD_VARIABLE}"
    raise WalletEncrypted(
        f"the key file {key_file} is encrypted: name a file of mode 0600 with its password in {setting}{other}"
    )


def _from_file(path: Path, setting: str) -> str:
    try:
        if not is_private(path):
            raise WalletFileError(f"the password file {path} ({setting}) is open to other users: chmod 600 {path}")
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1).decode()
    except OSError as error:
        raise WalletFileError(f"cannot read the password file {path} ({setting}): {error.strerror}") from None
    except UnicodeDecodeError:
        raise WalletFileError(f"the password file {path} ({setting}) is no UTF-8 text") from None
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or len(text) > _MAX_BYTES or "\n" in password:
        raise WalletFileError(f"the password file {path} ({setting}) must hold one line, the password")
    return password
