"""The few SCALE forms that are hashed or encrypted here, and that no metadata describes."""

from collections.abc import Sequence


def compact(number: int) -> bytes:
    """SCALE compact form of 0 <= number < 2**30."""
    width, mode = (1, 0) if number < 1 << 6 else (2, 1) if number < 1 << 14 else (4, 2)
    return (number << 2 | mode).to_bytes(width, "little")


def u16s(values: Sequence[int]) -> bytes:
    """A Vec<u16>."""
    return compact(len(values)) + b"".join(value.to_bytes(2, "little") for value in values)


def octets(value: bytes) -> bytes:
    """A Vec<u8>."""
    return compact(len(value)) + value
