"""The line of JSON that a benchmark ends with."""

import json
from collections.abc import Mapping
from typing import Any


def print_line(
    bench: str,
    figures: Mapping[str, Any],
    peers: Mapping[str, Mapping[str, Any]],
    ratios: Mapping[str, float | None],
    wanted: Mapping[str, str],
    **more: object,
) -> None:
    """Print what was measured.

    `wanted` gives figures and ratios a bound, as `<= 4` or `>= 0.6`; `missed` are those that do not reach it. What
    could not be measured (None, or not there) misses nothing.
    """
    known = {**figures, **ratios}
    line = {
        "bench": bench,
        "figures": _rounded(figures),
        "peers": {name: _rounded(peer) for name, peer in peers.items()},
        "ratios": _rounded(ratios),
        "wanted": wanted,
        "missed": [name for name, bound in wanted.items() if not _reaches(known.get(name), bound)],
        **more,
    }
    print(json.dumps(line))


def _reaches(value: float | None, bound: str) -> bool:
    sign, limit = bound.split(" ")
    return value is None or (value <= float(limit) if sign == "<=" else value >= float(limit))


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
