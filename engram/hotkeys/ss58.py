"""SS58 addresses and public keys: one text for one key.

The 32-byte public key is the identity everywhere inside; texts exist only at the edge. Decoding is strict (prefix 42,
canonical text), because lenient decoders give one key many names, which defeats limits and replay guards keyed by text.

An address is base58 (Bitcoin's alphabet) of prefix byte, public key and the first two bytes of
blake2b-512("SS58PRE" + prefix + key).
"""

import re
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

from engram.hotkeys.errors import MalformedHotkey

PublicKey: TypeAlias = bytes

PREFIX = 42
"""Network prefix of Bittensor and of generic Substrate addresses."""

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}
_ADDRESS = re.compile(rf"[{_ALPHABET}]{{46,48}}\Z")
_HEX = re.compile(r"(?:0x)?([0-9a-fA-F]{64})\Z")
_IDENTITY = bytes(32)


@lru_cache(maxsize=4_096)
def encode(public_key: PublicKey, prefix: int = PREFIX) -> str:
    """Return the SS58 address of a 32-byte public key; `prefix` 0 to 63 is the network's.

    Raises MalformedHotkey unless the key has 32 bytes, ValueError for another prefix. Takes 9 µs, and 0.1 µs for a key
    of late.

    >>> encode(bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"))
    '5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY'
    """
    if len(public_key) != 32:
        raise MalformedHotkey(f"a public key has 32 bytes, not {len(public_key)}")
    if not 0 <= prefix <= 63:
        raise ValueError(f"prefix {prefix} is not of one byte")
    payload = bytes([prefix]) + public_key
    binary = payload + _checksum(payload)
    number = int.from_bytes(binary, "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return _ALPHABET[0] * (len(binary) - len(binary.lstrip(b"\0"))) + text


@lru_cache(maxsize=1024)
def decode(address: str) -> PublicKey:
    """Return the 32-byte public key of an SS58 address with prefix 42.

    Raises MalformedHotkey for any other prefix, a wrong checksum, any text that is not the canonical one, and for
    the neutral element of the group, for which anyone can sign. Takes 5 µs, and 0.1 µs for an address of late.
    """
    if _ADDRESS.match(address) is None:
        raise MalformedHotkey("not an SS58 address")
    number = 0
    for character in address:
        number = number * 58 + _DIGITS[character]
    if number.bit_length() > 35 * 8:
        raise MalformedHotkey("not an SS58 address: too long")
    binary = number.to_bytes(35, "big")
    if binary[0] != PREFIX or address[0] == _ALPHABET[0]:
        raise MalformedHotkey(f"not an SS58 address of prefix {PREFIX}")
    if _checksum(binary[:33]) != binary[33:]:
        raise MalformedHotkey("not an SS58 address: the checksum is wrong")
    return _usable(binary[1:33])


def key_of_any_prefix(address: str) -> PublicKey | None:
    """Return the key in an address of any network, for comparison with a known key; None when malformed."""
    if not 46 <= len(address) <= 52 or not set(address) <= _DIGITS.keys():
        return None
    number = 0
    for character in address:
        number = number * 58 + _DIGITS[character]
    binary = number.to_bytes(40, "big")
    if _checksum(binary[-35:-2]) == binary[-2:] or _checksum(binary[-36:-2]) == binary[-2:]:
        return binary[-34:-2]
    return None


def parse_hotkey(text: str) -> PublicKey:
    """Return the public key named by an SS58 address (prefix 42) or by 64 hex digits, with or without 0x.

    Raises MalformedHotkey.
    """
    if (digits := _HEX.match(text)) is not None:
        return _usable(bytes.fromhex(digits.group(1)))
    return decode(text)


def _checksum(payload: bytes) -> bytes:
    return blake2b(b"SS58PRE" + payload).digest()[:2]


def _usable(public_key: PublicKey) -> PublicKey:
    if public_key == _IDENTITY:
        raise MalformedHotkey("the all-zero key belongs to nobody")
    return public_key
