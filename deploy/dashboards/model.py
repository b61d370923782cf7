"""What a dashboard shows: rows of panels, each with its queries."""

from typing import Literal

import msgspec

Unit = Literal["short", "s", "bytes", "percentunit", "currencyUSD", "ops", "bool_yes_no", "blocks"]


class Query(msgspec.Struct, frozen=True):
    """One PromQL expression and how its series are named."""

    expression: str
    legend: str = "{{instance}}"


class Panel(msgspec.Struct, frozen=True):
    """One graph; with `is_number` the newest value instead."""

    title: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    description: str = ""
    is_number: bool = False


class Row(msgspec.Struct, frozen=True):
    """Panels side by side, under a title."""

    title: str
    panels: tuple[Panel, ...]


class Board(msgspec.Struct, frozen=True):
    """One dashboard; `name` is its file and identity."""

    name: str
    title: str
    rows: tuple[Row, ...]


def one(title: str, expression: str, legend: str = "{{instance}}", unit: Unit = "short", about: str = "") -> Panel:
    """Return a graph of one query."""
    return Panel(title, (Query(expression, legend),), unit, about)


def number(title: str, expression: str, unit: Unit = "short") -> Panel:
    """Return a panel that shows the newest value."""
    return Panel(title, (Query(expression),), unit, is_number=True)


def quantiles(title: str, histogram: str, by: str = "", about: str = "") -> Panel:
    """Return a graph of the median and the 95th and 99th percentile of a histogram, over 5 minutes."""
    kept = f"instance, {by}, le" if by else "instance, le"
    legend = f"{{{{{by}}}}} " if by else ""
    rate = f"sum by ({kept}) (rate({histogram}_bucket{{{SELECTED}}}[5m]))"
    shares = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    queries = tuple(Query(f"histogram_quantile({share}, {rate})", f"{legend}{name}") for share, name in shares)
    return Panel(title, queries, "s", about)


SELECTED = 'instance=~"$instance"'
"""The matcher of the targets that the reader has chosen."""
