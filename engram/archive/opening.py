"""The archive's own key pair (X25519): from the owner's hotkey, from a passphrase, or from shares.

A node that archives by itself has the public half only; the secret half is derived again where a memory is restored.
"""

import hashlib
import hmac
import secrets
from typing import Final

import msgspec
import nacl.public
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

from engram.archive.errors import Forged, Locked
from engram.archive.model import Header, HotkeySource, PassphraseSource, SharesSource
from engram.hotkeys import Keypair

_CONTEXT: Final = b"engram archive key 1"
_PROOF_CONTEXT: Final = b"engram archive header proof 1"
_OPENED_BY: Final = {HotkeySource: "hotkey", PassphraseSource: "passphrase", SharesSource: "shares"}
_SCRYPT_N: Final = 1 << 15
_SCRYPT_MOST_N: Final = 1 << 18
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1
_SALT_BYTES: Final = 16
LEAST_PASSPHRASE: Final = 12
"""Characters. The wrapped keys may lie where others can read them and guess at leisure."""


def of_hotkey(owner: Keypair, archive_id: bytes) -> bytes:
    """Return the secret key of an archive, from its owner's hotkey: HKDF-SHA256, so words on a new phone are enough."""
    derived = HKDF(owner.private_key(), 32, archive_id, SHA256, context=_CONTEXT)
    assert isinstance(derived, bytes)
    return derived


def new_passphrase_source() -> PassphraseSource:
    """Return fresh parameters: 32 MiB and about 0.1 s a guess."""
    return PassphraseSource(secrets.token_bytes(_SALT_BYTES), _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)


def of_passphrase(passphrase: str, source: PassphraseSource) -> bytes:
    """Return the secret key of an archive. Raises Locked for parameters that would take too much memory."""
    if source.n > _SCRYPT_MOST_N or source.r > _SCRYPT_R or source.p > 4 or source.n & (source.n - 1) or source.n < 2:
        raise Locked(f"the header asks for scrypt with n={source.n}, r={source.r}, p={source.p}, which no archive has")
    most = 128 * source.n * source.r * 2
    return hashlib.scrypt(
        passphrase.encode(), salt=source.salt, n=source.n, r=source.r, p=source.p, maxmem=most, dklen=32
    )


def new_secret() -> bytes:
    """Return a random secret key, to be split into shares."""
    return secrets.token_bytes(32)


def public_of(secret: bytes) -> bytes:
    """Return the public half of an archive's key."""
    return bytes(nacl.public.PrivateKey(secret).public_key)


def proven(secret: bytes, header: Header) -> Header:
    """Return the header with the proof that its maker has the archive's secret key."""
    return msgspec.structs.replace(header, proof=_proof(secret, header))


def require(secret: bytes, header: Header) -> None:
    """Refuse a secret that is not the archive's, and a header that its holder did not make.

    An archive's public key can be copied into a header of another owner or with other writers; the proof cannot.
    Raises Locked, Forged.
    """
    if public_of(secret) != header.archive_key:
        raise Locked(f"this is not the archive's key: it is opened by its {_OPENED_BY[type(header.source)]}")
    if not hmac.compare_digest(_proof(secret, header), header.proof):
        raise Forged("the header was not made with the archive's key: its owner, writers or key were exchanged")


def _proof(secret: bytes, header: Header) -> bytes:
    key = HKDF(secret, 32, header.archive_id, SHA256, context=_PROOF_CONTEXT)
    assert isinstance(key, bytes)
    return hmac.digest(key, msgspec.msgpack.encode(msgspec.structs.replace(header, proof=b"")), "sha256")
