"""Padded sizes and delayed times of private answers, so that neither reveals what they hold."""

from __future__ import annotations

import math

SIZES = (1_024, 4_096, 16_384, 65_536)
"""Sizes in bytes to which a private answer is padded; a larger one is rounded up as Padmé does (at most 6.2 % more)."""


def padded_size(size: int) -> int:
    """Return the number of bytes to which an answer of `size` bytes is padded.

    >>> [padded_size(n) for n in (0, 1_024, 1_025, 65_537, 100_000)]
    [1024, 1024, 4096, 67584, 100352]
    """
    for allowed in SIZES:
        if size <= allowed:
            return allowed
    exponent = size.bit_length() - 1
    free_bits = exponent - exponent.bit_length()
    return (size + (1 << free_bits) - 1) >> free_bits << free_bits


def answer_at(arrived_s: float, now_s: float, bucket_s: float) -> float:
    """Return when to answer: the end of the bucket, counted from the arrival, in which `now_s` lies.

    An answer that took longer goes out at the end of a later bucket, so that its time reveals only a number of buckets.
    `bucket_s` is above 0.

    >>> answer_at(5.0, 5.01, 0.1), round(answer_at(5.0, 5.13, 0.1), 6)
    (5.1, 5.2)
    """
    return arrived_s + bucket_s * max(1, math.ceil((now_s - arrived_s) / bucket_s))
