"""Keccak-256 and the addresses derived from it."""

import re
from functools import lru_cache

from Crypto.Hash import keccak

from engram.payments.errors import MalformedAddress

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


def keccak256(data: bytes) -> bytes:
    """Ethereum's hash: Keccak with its original padding, not SHA3-256."""
    return keccak.new(digest_bits=256, data=data).digest()


@lru_cache(maxsize=1_024)
def checksummed(address: bytes) -> str:
    """Return the 20 bytes as EIP-55 text.

    >>> checksummed(bytes.fromhex("833589fcd6edb6e08f4c7c32d4f71b54bda02913"))
    '0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913'
    """
    text = address.hex()
    digest = keccak256(text.encode("ascii")).hex()
    return "0x" + "".join(
        letter.upper() if int(nibble, 16) >= 8 else letter for letter, nibble in zip(text, digest, strict=False)
    )


def parse_address(text: str) -> bytes:
    """Return the 20 bytes of an address as an operator writes it.

    All lower or all upper case is taken as it is; mixed case must be the EIP-55 checksum. Raises MalformedAddress.
    """
    if not _ADDRESS.fullmatch(text):
        raise MalformedAddress(f"{text[:64]!r} is no address: 0x and 40 hex digits are wanted")
    digits = text[2:]
    address = bytes.fromhex(digits)
    if digits not in (digits.lower(), digits.upper()) and checksummed(address) != text:
        raise MalformedAddress(f"{text} has a wrong checksum: a digit is mistyped (would be {checksummed(address)})")
    return address
