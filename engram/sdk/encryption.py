"""Encryption of memories before they leave the client, in the wire forms of the original.

    NamespaceCipher   base64url(iv12 || ciphertext || tag16): AES-256-GCM under PBKDF2-SHA256(key, salt = namespace)
    HybridCipher      base64url(ephemeral public 32 || iv12 || ciphertext || tag16): X25519, HKDF-SHA256

Both carry the JSON of `{"text", "metadata"}` and travel as the metadata `_enc`. What the wire forms do not give: a
ciphertext is not bound to the record it stands in, and the recipient's key is long-lived, so there is no forward
secrecy. The embedding of an encrypted text is not encrypted: it is what makes the text findable.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping
from typing import Final, Protocol, final

import msgspec
from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key, key_agreement
from Crypto.Protocol.KDF import HKDF
from Crypto.PublicKey import ECC

from engram import wire
from engram.hotkeys.python_json import JsonValue
from engram.sdk.errors import SdkError

FIELD: Final = "_enc"
"""The metadata key that holds a ciphertext."""
_INFO: Final = b"engram-hybrid-v1"
_ROUNDS: Final = 100_000
_IV: Final = 12
_TAG: Final = 16
_KEY: Final = 32
_LEAST_KEY_CHARS: Final = 16


@final
class Undecryptable(SdkError):
    """The ciphertext is damaged, or was made for another key."""


class Memory(msgspec.Struct, frozen=True):
    """The encrypted parts of a memory."""

    text: str
    metadata: dict[str, object] = {}


class Cipher(Protocol):
    """Encrypts bytes so that only the holder of a key can read them."""

    def encrypt_raw(self, plain: bytes) -> bytes:
        """Return the ciphertext, a different one each time."""
        ...

    def decrypt_raw(self, sealed: bytes) -> bytes:
        """Return what was encrypted. Raises Undecryptable."""
        ...


@final
class NamespaceCipher:
    """Symmetric encryption under the namespace's key. Deriving the key takes about 40 ms, once."""

    def __init__(self, namespace: str, namespace_key: str) -> None:
        """Raise ValueError for a key of fewer than 16 characters."""
        if len(namespace_key) < _LEAST_KEY_CHARS:
            raise ValueError(f"the namespace's key must have at least {_LEAST_KEY_CHARS} characters")
        self._key = hashlib.pbkdf2_hmac("sha256", namespace_key.encode(), namespace.encode(), _ROUNDS)

    def encrypt_raw(self, plain: bytes) -> bytes:
        """Return iv || ciphertext || tag."""
        return _seal(self._key, plain)

    def decrypt_raw(self, sealed: bytes) -> bytes:
        """Return what was encrypted. Raises Undecryptable."""
        return _open(self._key, sealed)


@final
class HybridCipher:
    """Hybrid encryption for one recipient: the public key encrypts, only the private key decrypts."""

    def __init__(self, public_key: bytes, private_key: bytes | None = None) -> None:
        """Take keys of 32 raw bytes (X25519). Raises ValueError for bytes that are not a key."""
        self._public = import_x25519_public_key(public_key)
        self._private = None if private_key is None else import_x25519_private_key(private_key)

    @classmethod
    def generate(cls) -> tuple["HybridCipher", bytes, bytes]:
        """Return a new cipher with its public and its private key (32 bytes each); keep the private one."""
        made = ECC.generate(curve="Curve25519")
        public, private = _raw(made), bytes(made.seed)
        return cls(public, private), public, private

    def encrypt_raw(self, plain: bytes) -> bytes:
        """Return ephemeral public key || iv || ciphertext || tag."""
        ephemeral = ECC.generate(curve="Curve25519")
        public = _raw(ephemeral)
        return public + _seal(_agreed(ephemeral, self._public, public), plain)

    def decrypt_raw(self, sealed: bytes) -> bytes:
        """Return what was encrypted. Raises Undecryptable, also without the private key."""
        if self._private is None:
            raise Undecryptable("the private key is needed to read")
        public = sealed[:_KEY]
        try:
            ephemeral = import_x25519_public_key(public)
            key = _agreed(self._private, ephemeral, public)
        except ValueError as error:
            raise Undecryptable("the ciphertext does not begin with a public key") from error
        return _open(key, sealed[_KEY:])


def encrypt(cipher: Cipher, text: str, metadata: Mapping[str, JsonValue]) -> str:
    """Return the `_enc` of a memory."""
    plain = msgspec.json.encode({"text": text, "metadata": dict(metadata)})
    return base64.urlsafe_b64encode(cipher.encrypt_raw(plain)).decode()


def decrypt(cipher: Cipher, encrypted: str) -> Memory:
    """Return the memory in an `_enc`. Raises Undecryptable."""
    try:
        sealed = base64.b64decode(encrypted + "=" * (-len(encrypted) % 4), altchars=b"-_", validate=True)
        return wire.decode(cipher.decrypt_raw(sealed), Memory)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError) as error:
        raise Undecryptable("this is no encrypted memory") from error


def _seal(key: bytes, plain: bytes) -> bytes:
    iv = secrets.token_bytes(_IV)
    ciphertext, tag = AES.new(key, AES.MODE_GCM, nonce=iv).encrypt_and_digest(plain)
    return iv + ciphertext + tag


def _open(key: bytes, sealed: bytes) -> bytes:
    if len(sealed) < _IV + _TAG:
        raise Undecryptable("the ciphertext is too short")
    try:
        cipher = AES.new(key, AES.MODE_GCM, nonce=sealed[:_IV])
        return bytes(cipher.decrypt_and_verify(sealed[_IV:-_TAG], sealed[-_TAG:]))
    except ValueError as error:
        raise Undecryptable("the ciphertext is damaged, or was made for another key") from error


def _agreed(private: ECC.EccKey, public: ECC.EccKey, ephemeral_public: bytes) -> bytes:
    shared = key_agreement(static_priv=private, static_pub=public, kdf=lambda secret: secret)
    key = HKDF(bytes(shared), _KEY, ephemeral_public, SHA256, context=_INFO)
    assert isinstance(key, bytes)
    return key


def _raw(key: ECC.EccKey) -> bytes:
    return bytes(key.public_key().export_key(format="raw"))
