"""Shamir's secret sharing byte by byte over GF(2^8) with the polynomial 0x11b, as the original's shares are made.

Shares carry no checksum: too few of them, or a wrong one, give bytes that look like any secret. Compare a hash.
"""

import secrets
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

import msgspec

_REDUCTION: Final = 0x11B
MOST_SHARES: Final = 255


class Share(msgspec.Struct, frozen=True):
    """One share: its number (1 to 255) and as many bytes as the secret. Shown nowhere by its repr."""

    index: int
    data: bytes

    def __repr__(self) -> str:
        return f"Share(index={self.index})"


def split(
    secret: bytes, threshold: int, total: int, *, random_bytes: Callable[[int], bytes] = secrets.token_bytes
) -> list[Share]:
    """Return `total` shares of which any `threshold` give the secret, and fewer reveal nothing but its length.

    Raises ValueError for an empty secret, or unless 2 <= threshold <= total <= 255.
    """
    if not secret:
        raise ValueError("there is nothing to share")
    if not 2 <= threshold <= total <= MOST_SHARES:
        raise ValueError("the threshold must be from 2 to the number of shares, which is at most 255")
    coefficients = [secret, *(random_bytes(len(secret)) for _ in range(threshold - 1))]
    return [Share(index, _at(coefficients, index)) for index in range(1, total + 1)]


def completed(
    secret: bytes,
    kept: Sequence[Share],
    threshold: int,
    total: int,
    *,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> list[Share]:
    """Return `total` shares of a split that `kept` belong to: at most one less than the threshold, or as many that give
    the secret.

    The rest is random, so fewer than the threshold still reveal nothing. Raises ValueError as `split`
    does, and for shares that are not of this secret.
    """
    fresh = split(secret, threshold, total, random_bytes=random_bytes)
    if any(len(share.data) != len(secret) for share in kept):
        raise ValueError("shares have as many bytes as their secret")
    if len(kept) >= threshold:
        basis = list(kept[:threshold])
        if combine(basis) != secret:
            raise ValueError("the shares are not of this secret")
        return [Share(index, value_at(basis, index)) for index in range(1, total + 1)]
    taken = {share.index for share in kept}
    points = [*kept, *[share for share in fresh if share.index not in taken][: threshold - 1 - len(kept)]]
    return [Share(index, _through(secret, points, index)) for index in range(1, total + 1)]


def combine(shares: Sequence[Share]) -> bytes:
    """Return the value that the shares give, which is the secret if they are correct and reach the threshold.

    Raises ValueError for no shares, for two of one number and for shares of different lengths.
    """
    return value_at(shares, 0)


def value_at(shares: Sequence[Share], x: int) -> bytes:
    """Return what the polynomial through the shares is at x (0 to 255): the secret at 0, share number x elsewhere.

    Raises ValueError as `combine` does.
    """
    indexes = [share.index for share in shares]
    if not shares or len(set(indexes)) != len(indexes) or not all(1 <= each <= MOST_SHARES for each in indexes):
        raise ValueError("shares must have different numbers from 1 to 255")
    length = len(shares[0].data)
    if any(len(share.data) != length for share in shares):
        raise ValueError("shares of one secret have the same length")
    value = 0
    for share in shares:
        if share.index == x:
            return share.data
        value ^= int.from_bytes(share.data.translate(_times(_weight(share.index, indexes, x))), "little")
    return value.to_bytes(length, "little")


def _through(secret: bytes, points: Sequence[Share], x: int) -> bytes:
    indexes = [0, *(point.index for point in points)]
    value = 0
    for index, content in zip(indexes, [secret, *(point.data for point in points)], strict=True):
        if index == x:
            return content
        value ^= int.from_bytes(content.translate(_times(_weight(index, indexes, x))), "little")
    return value.to_bytes(len(secret), "little")


def _at(coefficients: Sequence[bytes], x: int) -> bytes:
    """Return the polynomials of all bytes at x (Horner)."""
    length, times_x, result = len(coefficients[0]), _times(x), 0
    for coefficient in reversed(coefficients):
        multiplied = result.to_bytes(length, "little").translate(times_x)
        result = int.from_bytes(multiplied, "little") ^ int.from_bytes(coefficient, "little")
    return result.to_bytes(length, "little")


def _weight(index: int, indexes: Sequence[int], x: int) -> int:
    """Return the Lagrange coefficient of a share at x, which is not a share's number; subtraction is XOR."""
    log = sum(_LOG[x ^ other] - _LOG[index ^ other] for other in indexes if other != index)
    return _EXP[log % 255]


@cache
def _times(factor: int) -> bytes:
    """Return the table that multiplies each byte by a factor."""
    return bytes(_EXP[_LOG[factor] + _LOG[byte]] if factor and byte else 0 for byte in range(256))


def _tables() -> tuple[list[int], list[int]]:
    exp, log = [0] * 510, [0] * 256
    value = 1
    for power in range(255):
        exp[power] = exp[power + 255] = value
        log[value] = power
        doubled = value << 1 ^ (_REDUCTION if value & 0x80 else 0)
        value ^= doubled  # times 3, which generates the field
    return exp, log


_EXP, _LOG = _tables()
