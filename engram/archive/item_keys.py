"""Keys that sign data items: Ethereum and Ed25519, both deterministic. They are keys of their own, never a hotkey's."""

from typing import Final, final

import coincurve
import nacl.bindings
import nacl.exceptions
from Crypto.Hash import keccak

from engram.archive.ans104 import ItemScheme
from engram.archive.errors import MalformedItem
from engram.payments import eip712
from engram.payments.model import Authorization
from engram.payments.networks import Network

ED25519: Final = 2
ETHEREUM: Final = 3
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_PREFIX: Final = b"\x19Ethereum Signed Message:\n48"


@final
class EthereumKey:
    """A secp256k1 key; its address pays a bundler, too."""

    signature_type = ETHEREUM

    def __init__(self, secret: bytes) -> None:
        self._key = coincurve.PrivateKey(secret)
        self.owner: bytes = self._key.public_key.format(compressed=False)

    @property
    def address(self) -> bytes:
        """Return the 20 bytes of the key's Ethereum address."""
        return keccak.new(digest_bits=256, data=self.owner[1:]).digest()[-20:]

    def sign(self, message: bytes) -> bytes:
        """Sign as a wallet does that is shown a message (EIP-191), by RFC 6979."""
        signature: bytes = self._key.sign_recoverable(_digest(message), hasher=None)
        return signature[:64] + bytes([27 + signature[64]])

    def authorize(self, authorization: Authorization, network: Network) -> bytes:
        """Sign a transfer of USDC from the key's address (EIP-3009): whoever holds it can have the money moved."""
        return eip712.sign(authorization, network, self._key)


@final
class Ed25519Key:
    """An Ed25519 key of 32 bytes of seed."""

    signature_type = ED25519

    def __init__(self, seed: bytes) -> None:
        self.owner, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        return nacl.bindings.crypto_sign(message, self._secret)[:64]


class _Ethereum:
    signature_bytes = 65
    owner_bytes = 65

    def check(self, owner: bytes, signature: bytes, message: bytes) -> None:
        recovery = signature[64]
        if recovery not in (27, 28):
            raise MalformedItem("recovery byte")
        if int.from_bytes(signature[32:64], "big") > _ORDER // 2:
            raise MalformedItem("high s")
        try:
            signed = signature[:64] + bytes([recovery - 27])
            found = coincurve.PublicKey.from_signature_and_message(signed, _digest(message), hasher=None)
        except ValueError:
            raise MalformedItem("signature") from None
        except Exception as refused:  # coincurve raises Exception itself where libsecp256k1 recovers no key
            if type(refused) is not Exception:
                raise
            raise MalformedItem("signature") from None
        if found.format(compressed=False) != owner:
            raise MalformedItem("signature")


class _Ed25519:
    signature_bytes = 64
    owner_bytes = 32

    def check(self, owner: bytes, signature: bytes, message: bytes) -> None:
        try:
            nacl.bindings.crypto_sign_open(signature + message, owner)
        except nacl.exceptions.BadSignatureError:
            raise MalformedItem("signature") from None


SCHEMES: Final[dict[int, ItemScheme]] = {ED25519: _Ed25519(), ETHEREUM: _Ethereum()}


def _digest(message: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=_PREFIX + message).digest()
