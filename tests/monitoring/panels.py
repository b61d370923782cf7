"""Which panels of the dashboards have data when everything that fits on one machine runs beside a real Prometheus."""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

from deploy.dashboards.boards import BOARDS

Panel = tuple[str, str]
"""Dashboard and title."""
_RESTARTS: Final = "shows crashes of actors alone, of which there are none"
_EARNED: Final = "what was earned on Akash is worked out each minute, and nothing was at the first look"
EMPTY: Final[dict[Panel, str]] = {
    ("gateway-and-money", "Restarts of actors"): _RESTARTS,
    ("memory-node", "Restarts of actors"): _RESTARTS,
    ("fleet", "Margin, 7 days"): _EARNED,
}
"""Panels that stay empty there, and why: what a panel of this list comes to show, it leaves."""


async def filled(ask: Callable[[str], Awaitable[Any]]) -> dict[Panel, bool]:
    """Put each query of each panel to a Prometheus; return whether one has a value, which is a number.

    `ask` takes the path of its API and returns the data. What has five minutes in the dashboards has one here.
    """
    found: dict[Panel, bool] = {}
    for board in BOARDS:
        for panel in (panel for row in board.rows for panel in row.panels):
            has = False
            for query in panel.queries:
                expression = query.expression.replace("$instance", ".*").replace("[5m]", "[1m]")
                answered = await ask(f"query?query={quote(expression)}")
                has = has or any(not math.isnan(float(each["value"][1])) for each in answered["result"])
            found[board.name, panel.title] = found.get((board.name, panel.title), False) or has
    return found


def surprises(found: dict[Panel, bool]) -> list[str]:
    """Return what is not as EMPTY has it."""
    empty = {panel for panel, has in found.items() if not has}
    lines = [f"{board}: {title} is empty" for board, title in sorted(empty - EMPTY.keys())]
    lines += [f"{board}: {title} has data: take it off the list" for board, title in sorted(EMPTY.keys() - empty)]
    return lines
