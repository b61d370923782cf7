"""Optional noise on private vectors, off by default, and how little it protects.

A stored vector becomes normalise(x / |x| + N(0, sigma^2)). As a mechanism of differential privacy (analytic Gaussian,
Balle and Wang 2018; two unit vectors differ by at most 2) it has the epsilon that `epsilon` gives. Search needs a
sigma below about 0.02 (measured: recall@10 is 0.98 at 0.005, 0.92 at 0.02, 0.63 at 0.1, 0.003 at 1.2), whose epsilon
is in the thousands: it blurs vectors but gives no privacy. An epsilon of 8 needs a sigma of 1.2.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from engram.memory.rules import unpack_vector

DELTA = 1e-5
SENSITIVITY = 2.0


def blurred(embedding: bytes, sigma: float, gauss: Callable[[float, float], float]) -> bytes:
    """Return the vector plus noise as a unit vector (f32 little-endian); `gauss(mean, sigma)` draws the noise."""
    numbers = unpack_vector(embedding)
    norm = math.hypot(*numbers)
    moved = [number / norm + gauss(0.0, sigma) for number in numbers]
    length = math.hypot(*moved)
    return struct.pack(f"<{len(moved)}f", *(number / length for number in moved))


def epsilon(sigma: float, delta: float = DELTA, sensitivity: float = SENSITIVITY) -> float:
    """Return the smallest epsilon for which noise of this sigma is (epsilon, delta)-private, within a millionth.

    `sigma` is above 0.

    >>> [round(epsilon(sigma), 4) for sigma in (14.063653, 7.461263, 2.162324, 1.200458)]
    [0.5, 1.0, 4.0, 8.0]
    >>> round(epsilon(0.02))
    5426
    """
    low, high = 0.0, 1.0
    while _delta(high, sigma, sensitivity) > delta:
        low, high = high, 2 * high
    while high - low > 1e-7 * max(1.0, high):
        middle = (low + high) / 2
        if _delta(middle, sigma, sensitivity) > delta:
            low = middle
        else:
            high = middle
    return high


def _delta(eps: float, sigma: float, sensitivity: float) -> float:
    """Theorem 8: Phi(a) - e^eps Phi(-b) with b^2 - a^2 = 2 eps, which is used to keep e^eps from overflowing."""
    half, shift = sensitivity / (2 * sigma), eps * sigma / sensitivity
    a, b = half - shift, half + shift
    return math.erfc(-a / math.sqrt(2)) / 2 - math.exp(-a * a / 2) * _scaled_erfc(b / math.sqrt(2)) / 2


def _scaled_erfc(x: float) -> float:
    """exp(x^2) erfc(x) for x >= 0; asymptotic where erfc has no digits left."""
    if x < 20.0:
        return math.exp(x * x) * math.erfc(x)
    square = 2 * x * x
    return (1 - 1 / square + 3 / square**2) / (x * math.sqrt(math.pi))
