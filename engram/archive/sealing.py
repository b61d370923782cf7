"""Sealing: padded to few sizes, AES-256-GCM under a key of its own, named by the hash of what comes out.

    sealed = salt (32) || nonce (12) || ciphertext || tag (16)
    key    = HKDF-SHA256(epoch key, salt, what it is for)
    plain  = length (4, big-endian) || content || zeros up to one of SIZES

The salt is random, so every sealed part has a key of its own, and no counter exists that a place could set back. What
the part is for (archive, epoch, kind) is authenticated: a part of one archive cannot stand in another.
"""

import hashlib
import secrets
from bisect import bisect_left
from typing import Final

import msgspec
import nacl.bindings
import nacl.exceptions
import nacl.public
from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

from engram import wire
from engram.archive.errors import Damaged, Foreign, Locked
from engram.archive.model import SealedKey

SIZES: Final = tuple(1 << shift for shift in (14, 16, 18, 20, 22, 24))
"""Sizes of the plaintext: an observer learns one of six, not how much was written."""
ROWS_BYTES: Final = SIZES[-2] - 65_536
"""A segment is closed before its content passes this; one row of a larger size has a segment of its own."""
MOST_CONTENT: Final = SIZES[-1] - 4
KEY_BYTES: Final = 32
_SALT: Final = 32
_NONCE: Final = 12
_TAG: Final = 16
_LEAST: Final = _SALT + _NONCE + _TAG
_decode_key = wire.msgpack_decoder(SealedKey).decode


def purpose(archive_id: bytes, epoch: int, what: str) -> bytes:
    """Return what a sealed part is bound to."""
    return b"engram archive 1\0" + archive_id + epoch.to_bytes(8, "big") + what.encode()


def seal(key: bytes, bound_to: bytes, content: bytes) -> bytes:
    """Return the sealed content. Raises ValueError above MOST_CONTENT bytes."""
    if len(content) > MOST_CONTENT:
        raise ValueError(f"{len(content)} bytes are sealed at once; the most is {MOST_CONTENT}")
    size = SIZES[bisect_left(SIZES, len(content) + 4)]
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    plain = b"".join((len(content).to_bytes(4, "big"), content, bytes(size - 4 - len(content))))
    return b"".join((salt, nonce, _GCM.encrypt(_key(key, salt, bound_to), nonce, bound_to, plain)))


def unseal(key: bytes, bound_to: bytes, sealed: bytes) -> bytes:
    """Return what was sealed. Raises Damaged for other bytes, another key, or a part that was sealed for elsewhere."""
    if len(sealed) - _LEAST not in SIZES:
        raise Damaged(f"it has {len(sealed)} bytes, which no sealed part has")
    salt, nonce = sealed[:_SALT], sealed[_SALT : _SALT + _NONCE]
    try:
        plain = _GCM.decrypt(_key(key, salt, bound_to), nonce, bound_to, sealed[_SALT + _NONCE :])
    except (ValueError, nacl.exceptions.CryptoError):
        raise Damaged("it does not open: other bytes were written, or with another key") from None
    length = int.from_bytes(plain[:4], "big")
    if length > len(plain) - 4:
        raise Damaged("its length is beyond its end")
    return plain[4 : 4 + length]


class Sodium:
    """AES-256-GCM of libsodium: three times as fast, on processors that have instructions for it."""

    @staticmethod
    def encrypt(key: bytes, nonce: bytes, bound_to: bytes, plain: bytes) -> bytes:
        """Return the ciphertext and its tag."""
        return nacl.bindings.crypto_aead_aes256gcm_encrypt(plain, bound_to, nonce, key)

    @staticmethod
    def decrypt(key: bytes, nonce: bytes, bound_to: bytes, sealed: bytes) -> bytes:
        """Return the plaintext. Raises CryptoError."""
        return nacl.bindings.crypto_aead_aes256gcm_decrypt(sealed, bound_to, nonce, key)


class Portable:
    """The same on every processor."""

    @staticmethod
    def encrypt(key: bytes, nonce: bytes, bound_to: bytes, plain: bytes) -> bytes:
        """Return the ciphertext and its tag."""
        cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
        cipher.update(bound_to)
        return b"".join(cipher.encrypt_and_digest(plain))

    @staticmethod
    def decrypt(key: bytes, nonce: bytes, bound_to: bytes, sealed: bytes) -> bytes:
        """Return the plaintext. Raises ValueError."""
        cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
        cipher.update(bound_to)
        return cipher.decrypt_and_verify(memoryview(sealed)[:-_TAG], sealed[-_TAG:])


def _fastest() -> type[Sodium | Portable]:
    try:
        Sodium.encrypt(bytes(KEY_BYTES), bytes(_NONCE), b"", b"")
    except nacl.exceptions.UnavailableError:
        return Portable
    return Sodium


_GCM: Final = _fastest()


def name_of(sealed: bytes) -> str:
    """Return the name of a sealed part."""
    return hashlib.sha256(sealed).hexdigest()


def wrap(archive_key: bytes, archive_id: bytes, epoch: int, key: bytes) -> bytes:
    """Seal an epoch's key to the owner (X25519): who wraps it cannot open it again."""
    content = msgspec.msgpack.encode(SealedKey(archive_id, epoch, key))
    return nacl.public.SealedBox(nacl.public.PublicKey(archive_key)).encrypt(content)


def unwrap(secret: bytes, archive_id: bytes, epoch: int, wrapped: bytes) -> bytes:
    """Return an epoch's key. Raises Locked when `secret` is not the archive's, Foreign for a key of elsewhere."""
    try:
        content = nacl.public.SealedBox(nacl.public.PrivateKey(secret)).decrypt(wrapped)
    except (nacl.exceptions.CryptoError, ValueError):
        raise Locked("the key given does not open this archive") from None
    found = _decode_key(content)
    if (found.archive_id, found.epoch) != (archive_id, epoch) or len(found.key) != KEY_BYTES:
        raise Foreign(f"the key of epoch {epoch} was made for another archive or epoch")
    return found.key


def _key(key: bytes, salt: bytes, bound_to: bytes) -> bytes:
    derived = HKDF(key, KEY_BYTES, salt, SHA256, context=bound_to)
    assert isinstance(derived, bytes)
    return derived
