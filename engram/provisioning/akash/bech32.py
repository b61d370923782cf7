"""Addresses as text: bech32 with its checksum (BIP-173), lower case only, as Cosmos writes them."""

from collections.abc import Iterable
from typing import Final

from engram.provisioning.akash.errors import MalformedAddress

PREFIX: Final = "akash"
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM: Final = 6
_SIZES: Final = (20, 32)
"""Bytes of an address: of a key, of a module or contract."""


def encode(content: bytes, prefix: str = PREFIX) -> str:
    """Return the address of these bytes."""
    values = list(_regrouped(content, 8, 5))
    sum_of = _polymod([*_expanded(prefix), *values, *[0] * _CHECKSUM]) ^ 1
    values += [(sum_of >> 5 * (_CHECKSUM - 1 - at)) & 31 for at in range(_CHECKSUM)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in values)}"


def decode(address: str, prefix: str = PREFIX) -> bytes:
    """Return the bytes of an address. Raises MalformedAddress."""
    start, _, text = address.rpartition("1")
    values = [_ALPHABET.find(character) for character in text]
    if start != prefix or -1 in values or len(values) <= _CHECKSUM:
        raise MalformedAddress(f"{address!r} is no address: it would be {prefix}1 and 38 more characters")
    if _polymod([*_expanded(prefix), *values]) != 1:
        raise MalformedAddress(f"{address!r} is mistyped: its checksum does not fit")
    content = bytes(_regrouped(values[:-_CHECKSUM], 5, 8))
    if len(content) not in _SIZES or encode(content, prefix) != address:
        raise MalformedAddress(f"{address!r} is no address: it holds {len(content)} bytes, not 20 or 32")
    return content


def _expanded(prefix: str) -> list[int]:
    return [ord(character) >> 5 for character in prefix] + [0] + [ord(character) & 31 for character in prefix]


def _polymod(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for at, generator in enumerate(_GENERATOR):
            state ^= generator if top >> at & 1 else 0
    return state


def _regrouped(values: Iterable[int], width: int, other: int) -> Iterable[int]:
    """Yield the same bits in groups of another width; what is left over is padded with zeros going to 5 bits only."""
    held = bits = 0
    for value in values:
        held = held << width | value
        bits += width
        while bits >= other:
            bits -= other
            yield held >> bits & (1 << other) - 1
        held &= (1 << bits) - 1
    if other < width and bits:
        yield held << other - bits & (1 << other) - 1
