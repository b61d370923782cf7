"""Quantities of an SDL as the whole numbers that the chain takes; rounded down, as Go does it."""

import re
from decimal import Decimal
from typing import Final

from engram.provisioning.akash.cosmos import DECIMALS, DecCoin, Duration
from engram.provisioning.akash.errors import InvalidSdl

_CPU: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m?)", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:([kKMGTPE])(i?))?", re.ASCII)
_COUNT: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_AMOUNT: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_WINDOW: Final = re.compile(r"([1-9][0-9]{0,6})([smh])", re.ASCII)
_POWERS: Final = {letter: power for power, letter in enumerate("kmgtpe", 1)}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


def millicpu(units: float | str) -> int:
    """Return thousandths of a processor. Raises InvalidSdl.

    >>> millicpu("100m"), millicpu(0.5), millicpu("0.01"), millicpu(2)
    (100, 500, 10, 2000)
    """
    number, thousandths = _matched(_CPU, units, "processors, as 0.5 or 500m").groups()
    return int(Decimal(number) * (1 if thousandths else 1000))


def size(text: str) -> int:
    """Return bytes. Raises InvalidSdl.

    >>> size("128Mi"), size("1.5k"), size("7")
    (134217728, 1500, 7)
    """
    number, letter, binary = _matched(_SIZE, text, "bytes, as 512Mi or 2G").groups()
    base = 1024 if binary else 1000
    return int(Decimal(number) * (base ** _POWERS[letter.lower()] if letter else 1))


def count(number: int | str) -> int:
    """Return a whole number of things. Raises InvalidSdl.

    >>> count("2")
    2
    """
    return int(_matched(_COUNT, number, "a whole number from 0")[0])


def price(denom: str, amount: float | str) -> DecCoin:
    """Return a price a block. Raises InvalidSdl.

    >>> price("uact", 8.65).amount
    '8650000000000000000'
    """
    number = _matched(_AMOUNT, amount, "a price a block, as 30 or 8.65")[0]
    return DecCoin(denom, str(int(Decimal(number) * DECIMALS)))


def window(text: str) -> Duration:
    """Return a reclamation window. Raises InvalidSdl.

    >>> window("24h").seconds
    86400
    """
    number, unit = _matched(_WINDOW, text, "a window of time above 0, as 90s, 30m or 24h").groups()
    return Duration(int(number) * _SECONDS[unit])


def _matched(pattern: re.Pattern[str], value: float | str, wanted: str) -> re.Match[str]:
    text = value if isinstance(value, str) else format(Decimal(str(value)), "f")
    found = pattern.fullmatch(text)
    if found is None:
        raise InvalidSdl(f"{value!r} is not {wanted}")
    return found
