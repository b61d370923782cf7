"""Keystores of polkadot-js: the JSON that its extension and apps export, one sr25519 key each.

Version 3. `encoded` is base64 of: scrypt's salt (32 bytes) and parameters N, p, r (u32, little endian), a nonce (24
bytes), and a secretbox (XSalsa20-Poly1305) under the first 32 bytes that scrypt gives for the password. With the type
`none` it is the bare content. The content is PKCS8-like: a header, the secret (64 bytes, its scalar multiplied by the
cofactor 8), a divider, the public key. Source: @polkadot/keyring, pair/encode and pair/decode.
"""

import base64
import binascii
import hashlib
import secrets
from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from engram import wire
from engram.hotkeys import ss58
from engram.hotkeys.errors import MalformedHotkey, WalletEncrypted, WalletFileError, WrongPassword
from engram.hotkeys.keypair import Keypair

MAX_BYTES: Final = 65_536
_HEADER: Final = bytes([48, 83, 2, 1, 1, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32])
_DIVIDER: Final = bytes([161, 35, 3, 33, 0])
_CONTENT_BYTES: Final = len(_HEADER) + 64 + len(_DIVIDER) + 32
_SALT_BYTES, _NONCE_BYTES = 32, 24
_COFACTOR: Final = 8
_MAX_N: Final = 1 << 17
_MAX_COST: Final = 1 << 20
"""Of N * p * r: the most that polkadot-js itself writes or reads, 128 MiB of memory."""
_MEMORY_BYTES: Final = 160 << 20
_WRITTEN_N, _WRITTEN_P, _WRITTEN_R = 1 << 15, 1, 8
"""32 MiB: substrate-interface reads no keystore that takes more."""


class _Encoding(msgspec.Struct, frozen=True):
    content: list[str]
    type: list[str]
    version: str


class _Keystore(msgspec.Struct, frozen=True):
    encoded: str
    encoding: _Encoding
    address: str
    meta: dict[str, object] = {}

    def __repr__(self) -> str:
        return f"_Keystore({self.address})"


_KEYSTORE: Final = wire.decoder(_Keystore)


def is_encrypted(content: bytes) -> bool:
    """Return whether the keystore needs a password. Raises WalletFileError unless it is one of an sr25519 key."""
    return _parsed(content).encoding.type != ["none"]


def read(content: bytes, password: str | None) -> Keypair:
    """Return the key of a keystore. Takes a fifth of a second of CPU, and up to 128 MiB.

    Raises WalletFileError (no keystore, not sr25519, scrypt parameters out of bounds, damaged, the key is not of its
    address), WalletEncrypted (a password is needed), WrongPassword.
    """
    keystore = _parsed(content)
    try:
        encoded = base64.b64decode(keystore.encoded, validate=True)
    except (binascii.Error, ValueError):
        raise WalletFileError("the keystore is damaged: `encoded` is no base64") from None
    if keystore.encoding.type != ["none"]:
        if password is None:
            raise WalletEncrypted("the keystore is encrypted: give its password")
        encoded = _deciphered(encoded, password)
    pair = _pair(encoded)
    if not _is_address_of(keystore.address, pair):
        raise WalletFileError(f"the keystore is damaged: its address {keystore.address} is not its key's, {pair.ss58}")
    return pair


def write(pair: Keypair, password: str, name: str) -> bytes:
    """Return a keystore of the key, as polkadot-js exports it; `name` is what its list of accounts shows."""
    secret = pair.private_key()
    scalar = int.from_bytes(secret[:32], "little") * _COFACTOR
    content = _HEADER + scalar.to_bytes(32, "little") + secret[32:] + _DIVIDER + pair.public_key
    salt = secrets.token_bytes(_SALT_BYTES)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    box = SecretBox(_derived(password, salt, _WRITTEN_N, _WRITTEN_P, _WRITTEN_R))
    parameters = b"".join(number.to_bytes(4, "little") for number in (_WRITTEN_N, _WRITTEN_P, _WRITTEN_R))
    encoded = salt + parameters + nonce + box.encrypt(content, nonce).ciphertext
    encoding = _Encoding(content=["pkcs8", "sr25519"], type=["scrypt", "xsalsa20-poly1305"], version="3")
    return msgspec.json.encode(_Keystore(base64.b64encode(encoded).decode(), encoding, pair.ss58, {"name": name}))


def _parsed(content: bytes) -> _Keystore:
    try:
        keystore = _KEYSTORE.decode(content[: MAX_BYTES + 1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise WalletFileError("no keystore of one key, version 3, as polkadot-js exports it") from None
    encoding = keystore.encoding
    if encoding.version != "3" or encoding.type not in (["scrypt", "xsalsa20-poly1305"], ["none"]):
        raise WalletFileError(
            f"a keystore of version {encoding.version[:8]} and type {'+'.join(encoding.type)[:40]}: export it again "
            "from a polkadot-js of today (version 3)"
        )
    if encoding.content != ["pkcs8", "sr25519"]:
        raise WalletFileError(f"the keystore holds no sr25519 key ({'+'.join(encoding.content)[:40]})")
    return keystore


def _deciphered(encoded: bytes, password: str) -> bytes:
    salt, rest = encoded[:_SALT_BYTES], encoded[_SALT_BYTES:]
    n, p, r = (int.from_bytes(rest[at : at + 4], "little") for at in (0, 4, 8))
    nonce, ciphered = rest[12 : 12 + _NONCE_BYTES], rest[12 + _NONCE_BYTES :]
    if len(ciphered) != _CONTENT_BYTES + SecretBox.MACBYTES:
        raise WalletFileError(f"the keystore is damaged: its key is encrypted in {len(ciphered)} bytes")
    if n.bit_count() != 1 or not 2 <= n <= _MAX_N or p < 1 or r < 1 or n * p * r > _MAX_COST:
        raise WalletFileError(f"the keystore asks for scrypt with N {n}, p {p}, r {r}; N is at most {_MAX_N}")
    try:
        derived = _derived(password, salt, n, p, r)
    except UnicodeEncodeError:
        raise WrongPassword("the password is not valid Unicode") from None
    except ValueError:  # RFC 7914, section 2: N < 2^(128 * r / 8), and what OpenSSL bounds besides
        raise WalletFileError(f"the keystore asks for scrypt with N {n}, p {p}, r {r}, which is not possible") from None
    try:
        return SecretBox(derived).decrypt(ciphered, nonce)
    except CryptoError:
        raise WrongPassword("wrong password for the keystore") from None


def _derived(password: str, salt: bytes, n: int, p: int, r: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, p=p, r=r, maxmem=_MEMORY_BYTES, dklen=32)


def _pair(content: bytes) -> Keypair:
    secret_at, divider_at = len(_HEADER), len(_HEADER) + 64
    public_at = divider_at + len(_DIVIDER)
    if len(content) != _CONTENT_BYTES or content[:secret_at] != _HEADER or content[divider_at:public_at] != _DIVIDER:
        raise WalletFileError("the keystore is damaged: it holds no key in its known form")
    try:
        secret = content[secret_at:divider_at]
        scalar = int.from_bytes(secret[:32], "little") // _COFACTOR
        pair = Keypair(scalar.to_bytes(32, "little") + secret[32:])
    except (MalformedHotkey, ValueError):
        raise WalletFileError("the keystore holds no usable private key") from None
    if pair.public_key != content[public_at:]:
        raise WalletFileError("the keystore is damaged: its public key is not its private key's")
    return pair


def _is_address_of(address: str, pair: Keypair) -> bool:
    """Return the public key of a keystore's address, which has any network's prefix or is hex."""
    if address == "0x" + pair.public_key.hex():
        return True
    return ss58.key_of_any_prefix(address) == pair.public_key
