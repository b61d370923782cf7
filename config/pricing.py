"""Converts the operator's prices in dollars to what a buyer signs: whole micro-dollars, the atomic units of USDC.

The arithmetic is exact: a number counts as the decimal that was written, and only the result is rounded (half up).
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

TENTHS: Final[Mapping[str, int]] = MappingProxyType({"lite": 10, "standard": 20, "pro": 36})
"""Price of an hour of each tier, in tenths of an hour of lite."""

MOST_UNITS: Final = 10**15
"""The maximum price of a session, a billion dollars, so that sums of prices stay below 2**63."""


def units_of(usd: float) -> int:
    """Return dollars (finite) in atomic units.

    >>> units_of(0.1), units_of(0.0000005), units_of(1e-7)
    (100000, 1, 0)
    """
    return _round(Fraction(repr(float(usd))) * 1_000_000)


def hour_units(lite_usd_per_hour: float, tier: str) -> int:
    """Return what an hour of a tier costs, in atomic units.

    >>> [hour_units(0.10, tier) for tier in TENTHS]
    [100000, 200000, 360000]
    """
    return _round(Fraction(units_of(lite_usd_per_hour) * TENTHS[tier], 10))


def price_units(units_per_hour: int, hours: float) -> int:
    """Return the price of a number of hours (finite), in atomic units.

    >>> price_units(1, 0.5), price_units(1, 0.4)
    (1, 0)
    """
    return _round(units_per_hour * Fraction(repr(float(hours))))


def price_range(lite_usd_per_hour: float, min_hours: float, max_hours: float) -> tuple[int, int]:
    """Return the lowest and the highest price of a session, in atomic units.

    >>> price_range(0.10, 0.5, 720.0)
    (50000, 259200000)
    """
    hourly = [hour_units(lite_usd_per_hour, tier) for tier in TENTHS]
    return price_units(min(hourly), min_hours), price_units(max(hourly), max_hours)


def _round(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))
