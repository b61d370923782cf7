"""Addresses of the chain: bech32 of RIPEMD-160 of SHA-256 of the public key."""

import hashlib
from typing import Final

from Crypto.Hash import RIPEMD160

PREFIX: Final = "akash"
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def of_public_key(key: bytes) -> str:
    """Return the address of a compressed secp256k1 key (33 bytes)."""
    return encode(RIPEMD160.new(hashlib.sha256(key).digest()).digest())


def of_name(name: str) -> str:
    """Return an address whose key no one has: of a module, or of a scripted provider."""
    return encode(hashlib.sha256(name.encode()).digest()[:20])


def encode(data: bytes) -> str:
    """Return the address of 20 bytes."""
    number, bits = int.from_bytes(data, "big"), len(data) * 8
    words = [(number >> shift) & 31 for shift in range(bits - 5, -1, -5)]
    checksum = _polymod([*_expanded(), *words, *[0] * 6]) ^ 1
    words += [(checksum >> 5 * (5 - index)) & 31 for index in range(6)]
    return f"{PREFIX}1{''.join(_ALPHABET[word] for word in words)}"


def is_valid(address: str) -> bool:
    """Return whether prefix, length and checksum are right."""
    prefix, _, rest = address.rpartition("1")
    if prefix != PREFIX or len(rest) != 38 or not set(rest) <= set(_ALPHABET):
        return False
    return _polymod([*_expanded(), *(_ALPHABET.index(letter) for letter in rest)]) == 1


def _expanded() -> list[int]:
    return [*(ord(letter) >> 5 for letter in PREFIX), 0, *(ord(letter) & 31 for letter in PREFIX)]


def _polymod(words: list[int]) -> int:
    check = 1
    for word in words:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ word
        for index, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if (top >> index) & 1 else 0
    return check
