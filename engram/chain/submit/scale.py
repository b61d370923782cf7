"""The few SCALE encodings that no metadata describes: they are hashed or encrypted here."""

from collections.abc import Sequence


def compact(number: int) -> bytes:
    """Return the SCALE compact form of 0 <= number < 2**30."""
    width, mode = (1, 0) if number < 1 << 6 else (2, 1) if number < 1 << 14 else (4, 2)
    return (number << 2 | mode).to_bytes(width, "little")


def u16s(values: Sequence[int]) -> bytes:
    """Return the values as a Vec<u16>."""
    return compact(len(values)) + b"".join(value.to_bytes(2, "little") for value in values)


def octets(value: bytes) -> bytes:
    """Return the bytes as a Vec<u8>."""
    return compact(len(value)) + value
