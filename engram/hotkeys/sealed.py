"""Secrets sealed to a node's box key: X25519 and XSalsa20-Poly1305, libsodium's sealed box.

A sealed box says nothing of its sender; the certificate that comes with it names its hash.
"""

import hashlib
from typing import Final, NoReturn, final

from nacl.bindings import crypto_scalarmult
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

BOX_KEY_BYTES: Final = 32
_ANY_SCALAR: Final = b"\1" * 32
"""Every scalar takes a point of small order to zero."""


@final
class BoxKey:
    """A private key that opens what was sealed to its public half. It lives in this process's memory alone."""

    __slots__ = ("__private", "public")

    def __init__(self) -> None:
        self.__private = PrivateKey.generate()
        self.public = bytes(self.__private.public_key)

    def opened(self, content: bytes) -> bytes:
        """Return what was sealed. Raises ValueError when it was not sealed to this key."""
        try:
            return SealedBox(self.__private).decrypt(content)
        except CryptoError:
            raise ValueError("the content is not sealed to this key") from None

    def __repr__(self) -> str:
        return f"<BoxKey {self.public.hex()[:16]}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a BoxKey is never pickled or copied")


def is_box_key(key: bytes) -> bool:
    """Return whether something can be sealed to this key: not to one of the few points of small order, whose secret
    everybody knows (RFC 7748, section 6.1)."""
    try:
        return len(key) == BOX_KEY_BYTES and bool(crypto_scalarmult(_ANY_SCALAR, key))
    except CryptoError:
        return False


def seal(box_key: bytes, content: bytes) -> bytes:
    """Return the content, sealed to the owner of a box key. Raises ValueError when it is no box key."""
    if not is_box_key(box_key):
        raise ValueError(f"{box_key.hex()[:80] or 'nothing'} is no box key: 32 bytes, an X25519 public key")
    return SealedBox(PublicKey(box_key)).encrypt(content)


def digest(content: bytes) -> str:
    """Return the SHA-256 (hex) of sealed content, by which a certificate names it; empty for none."""
    return hashlib.sha256(content).hexdigest() if content else ""
