"""The account that pays on Akash: its key, read from a file that only its owner may read, and never shown.

The key file holds a BIP-39 mnemonic (from which the key is derived by m/44'/118'/0'/0/0, as every Cosmos wallet does)
or the key itself as 64 hex digits.
"""

import hashlib
import hmac
import os
import re
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, final

from coincurve import PrivateKey, PublicKey
from Crypto.Hash import RIPEMD160

from engram import files
from engram.hotkeys.bittensor_core import is_mnemonic, new_mnemonic
from engram.provisioning.akash import bech32
from engram.provisioning.akash.errors import UnusableKey

MNEMONIC_WORDS: Final = 24
"""Of a new account."""
_KEY_BYTES: Final = 32
MAX_KEY_FILE_BYTES: Final = 4096
_HARDENED: Final = 1 << 31
_PATH: Final = (44 | _HARDENED, 118 | _HARDENED, _HARDENED, 0, 0)
_SECRET: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{64})", re.ASCII)


@final
class Signer:
    """Signs for one account. The key stays inside: it has no attribute, no repr, no copy and no pickle."""

    __slots__ = ("_sign", "address", "public_key")

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 bytes. Raises UnusableKey when it is no secp256k1 key."""
        self._sign, self.public_key = _signing(secret)
        self.address = address_of(self.public_key)

    public_key: bytes
    """33 bytes."""
    address: str

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signer is neither copied nor pickled: its key stays inside")

    def sign(self, message: bytes) -> bytes:
        """Return r and s (64 bytes, low s, RFC 6979) over the SHA-256 of the message."""
        return self._sign(message)


def _signing(secret: bytes) -> tuple[Callable[[bytes], bytes], bytes]:
    try:
        if len(secret) != _KEY_BYTES:
            raise ValueError("a shorter key would be padded")
        key = PrivateKey(secret)
    except ValueError:
        raise UnusableKey("the account's key is no secp256k1 key") from None

    def sign(message: bytes) -> bytes:
        signature: bytes = key.sign_recoverable(message)[:64]
        return signature

    return sign, key.public_key.format(compressed=True)


def verify(signature: bytes, message: bytes, public_key: bytes) -> bool:
    """Return whether these 64 bytes (low s only, as the chain takes them) are this key's signature of the message."""
    if len(signature) != 64 or int.from_bytes(signature[32:]) > _HALF_ORDER:
        return False
    try:
        return PublicKey(public_key).verify(_der(signature), message)
    except ValueError:
        return False


def address_of(public_key: bytes) -> str:
    """Return the address of a public key (33 bytes)."""
    return bech32.encode(RIPEMD160.new(hashlib.sha256(public_key).digest()).digest())


def secret_of(mnemonic: str) -> bytes:
    """Return the 32-byte key of a mnemonic (BIP-39 without passphrase, BIP-32). Raises UnusableKey."""
    words = " ".join(unicodedata.normalize("NFKD", mnemonic).lower().split())
    if not is_mnemonic(words):
        raise UnusableKey(
            f"these {len(words.split())} words are no English BIP-39 mnemonic: a word or the order is wrong"
        )
    seed = hashlib.pbkdf2_hmac("sha512", words.encode(), b"mnemonic", 2048)
    node = hmac.digest(b"Bitcoin seed", seed, "sha512")
    for step in _PATH:
        key = PrivateKey(node[:32])
        parent = b"\0" + node[:32] if step & _HARDENED else key.public_key.format(compressed=True)
        mixed = hmac.digest(node[32:], parent + step.to_bytes(4), "sha512")
        node = key.add(mixed[:32]).secret + mixed[32:]
    return node[:32]


def read_key_file(path: Path) -> Signer:
    """Read the account's key. Blocks. Raises UnusableKey, also when others may read the file."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe at this place would block
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnusableKey(f"{path} is no file")
            if status.st_mode & 0o077:
                raise UnusableKey(f"{path} can be read by others: chmod 600 it")
            text = file.read(MAX_KEY_FILE_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        # Never the text of a decoding error: it shows bytes of the key.
        why = (error.strerror or "no reason given") if isinstance(error, OSError) else "it is no text"
        raise UnusableKey(f"the account's key in {path} cannot be read: {why}") from None
    try:
        return Signer(secret_in(text))
    except UnusableKey as error:
        raise UnusableKey(f"{path}: {error}") from None


def secret_in(text: str) -> bytes:
    """Return the 32-byte key that a key file's text gives. Raises UnusableKey."""
    found = _SECRET.fullmatch(text.strip())
    return secret_of(text) if found is None else bytes.fromhex(found[1])


def write_key_file(path: Path, text: str) -> Signer:
    """Write a key file of mode 0600 (a mnemonic, or 64 hex digits), never over one that is there; return its signer.

    Blocks. Raises UnusableKey; nothing is written then.
    """
    signer = Signer(secret_in(text))

    def check(written: bytes) -> None:
        if Signer(secret_in(written.decode())).address != signer.address:
            raise UnusableKey(f"{path} could not be read back: nothing was written")

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableKey(f"cannot write {path}: its folder cannot be made ({error.strerror})") from None
    try:
        files.put(path, f"{text.strip()}\n".encode(), os.link, check)
    except FileExistsError:
        raise UnusableKey(f"{path} exists already; choose another name") from None
    except OSError as error:
        raise UnusableKey(f"cannot write {path}: {error.strerror}") from None
    return signer


def generate_mnemonic() -> str:
    """Return the words of a new account."""
    return new_mnemonic(MNEMONIC_WORDS)


_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HALF_ORDER: Final = _ORDER // 2


def _der(signature: bytes) -> bytes:
    """Return r and s in the form that libsecp256k1 reads (ASN.1)."""
    numbers = b""
    for part in (signature[:32], signature[32:]):
        number = part.lstrip(b"\0") or b"\0"
        number = b"\0" + number if number[0] & 0x80 else number
        numbers += bytes((2, len(number))) + number
    return bytes((0x30, len(numbers))) + numbers
