"""Where the password of an encrypted key file comes from.

The first of these that is there: a file descriptor, a file, the environment, a terminal. In the environment, the first
of `ENGRAM_COLDKEY_PASSWORD` (of a hotkey: `ENGRAM_HOTKEY_PASSWORD`), the variable that bittensor-wallet reads for this
very file (`BT_PW_…`), and `ENGRAM_WALLET_PASSWORD`, which serves every key. Never an argument: others can read those.
"""

import base64
import binascii
import getpass
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from engram.hotkeys.bittensor_core import is_encrypted
from engram.hotkeys.errors import WalletEncrypted, WalletFileError
from engram.hotkeys.key_content import unmarked
from engram.hotkeys.wallet import is_private

Role = Literal["coldkey", "hotkey"]

PASSWORD_VARIABLE: Final = "ENGRAM_WALLET_PASSWORD"  # noqa: S105 - a variable's name
VARIABLES: Final[Mapping[Role, str]] = MappingProxyType(
    {"coldkey": "ENGRAM_COLDKEY_PASSWORD", "hotkey": "ENGRAM_HOTKEY_PASSWORD"}
)
_HEAD_BYTES: Final = 64
_MAX_BYTES: Final = 4_096

Ask = Callable[[str], str]
"""Shows a prompt and returns what is typed, without echo."""


def at_terminal() -> Ask | None:
    """Return a prompt on the terminal of this process; None when there is no terminal."""
    return getpass.getpass if sys.stdin is not None and sys.stdin.isatty() else None


def password_for(
    key_file: Path,
    password_file: str,
    setting: str,
    environ: Mapping[str, str] | None = os.environ,
    ask: Ask | None = None,
    role: Role = "hotkey",
    descriptor: int | None = None,
) -> str | None:
    """Return the password of this key file; None when it is not encrypted, or cannot be read (opening it reports why).

    Blocks while it asks. `setting` is what names `password_file` (empty: none is named) and `descriptor`; `environ` and
    `ask` may be no sources. Raises WalletEncrypted when there is no password anywhere, WalletFileError when its file is
    open to others, not readable, or not one line, when the descriptor gives no line, or the variable is malformed.
    """
    try:
        with key_file.open("rb") as file:
            head = unmarked(file.read(_HEAD_BYTES))
    except OSError:
        return None
    if not is_encrypted(head):
        return None
    found = given(key_file, password_file, setting, environ, role, descriptor)
    if found is not None:
        return found
    if ask is not None:
        return ask(f"password of the key file {key_file}: ")
    other = "" if environ is None else f", or set {PASSWORD_VARIABLE} or {VARIABLES[role]}"
    raise WalletEncrypted(
        f"the key file {key_file} is encrypted: name a file of mode 0600 with its password in {setting}{other}"
    )


def given(
    key_file: Path,
    password_file: str,
    setting: str,
    environ: Mapping[str, str] | None,
    role: Role,
    descriptor: int | None = None,
) -> str | None:
    """Return the password given for a key file, without a prompt; None when none is given.

    The file need not exist.

    As `password_for`. Raises WalletFileError.
    """
    if descriptor is not None:
        return line_of_descriptor(descriptor, setting)
    if password_file:
        return line_of_file(Path(password_file), setting)
    return None if environ is None else _from_environment(key_file, environ, role)


def line_of_file(path: Path, setting: str, what: str = "password") -> str:
    """Return the only line of a file of mode 0600. Raises WalletFileError, naming `what` it holds and its `setting`."""
    try:
        if not is_private(path):
            raise WalletFileError(f"the {what} file {path} ({setting}) is open to other users: chmod 600 {path}")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise WalletFileError(f"cannot read the {what} file {path} ({setting}): {error.strerror}") from None
    return _line(content, f"the {what} file {path} ({setting})", what)


def line_of_descriptor(descriptor: int, setting: str, what: str = "password") -> str:
    """Return the next line of an open descriptor, without reading beyond it. Blocks. Raises WalletFileError."""
    where = f"file descriptor {descriptor} ({setting})"
    content = b""
    try:
        if os.isatty(descriptor):
            raise WalletFileError(f"{where} is a terminal, which would show what is typed: leave the option out")
        while not content.endswith(b"\n") and len(content) <= _MAX_BYTES:
            byte = os.read(descriptor, 1)
            if not byte:
                break
            content += byte
    except OSError as error:
        raise WalletFileError(f"cannot read {where}: {error.strerror}") from None
    return _line(content, where, what)


def _line(content: bytes, where: str, what: str) -> str:
    try:
        text = unmarked(content).decode()
    except UnicodeDecodeError:
        raise WalletFileError(f"{where} is no UTF-8 text") from None
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or len(content) > _MAX_BYTES or "\n" in line:
        raise WalletFileError(f"{where} must hold one line, the {what}")
    return line


# the environment


def _from_environment(key_file: Path, environ: Mapping[str, str], role: Role) -> str | None:
    own = environ.get(VARIABLES[role])
    if own:
        return own
    for name in variables_of(key_file):
        if environ.get(name):
            return unscrambled(name, environ[name])
    return environ.get(PASSWORD_VARIABLE) or None


def variables_of(key_file: Path) -> Iterator[str]:
    """Return the names under which bittensor-wallet looks for the password of this key file: as written, and in full.

    >>> list(variables_of(Path("/srv/.bittensor/wallets/W/coldkey")))
    ['BT_PW__SRV__BITTENSOR_WALLETS_W_COLDKEY']
    """
    whole = key_file.expanduser().absolute()
    for path in dict.fromkeys((str(key_file), str(whole))):
        yield "BT_PW_" + path.replace("/", "_").replace(".", "_").upper()


def unscrambled(name: str, value: str) -> str:
    """Return the password in a variable of bittensor-wallet: base64 of its bytes, each XORed with one of the name's.

    Raises WalletFileError when the value is none of these.

    >>> unscrambled("BT_PW_W2_W_COLDKEY", "MiNyPzFyA1csIyx6bmyH9w==")
    'pw-of-Tests9! ü'
    """
    try:
        scrambled = base64.b64decode(value, validate=True)
        return bytes(byte ^ key for byte, key in zip(scrambled, itertools.cycle(name.encode()), strict=False)).decode()
    except (binascii.Error, ValueError):
        raise WalletFileError(
            f"{name} holds no password as bittensor-wallet writes it; "
            f"{VARIABLES['coldkey']} and {VARIABLES['hotkey']} take one as it is"
        ) from None
