"""Generates the tables of endpoints in the documentation from the rows.

`python -m engram.api.tables` writes them between the two marks of each page; a test checks that they are current.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from engram.api import gateway, node, node_model, proxy
from engram.api.route import Route

BEGIN: Final = "<!-- endpoints: written by python -m engram.api.tables -->"
END: Final = "<!-- end of endpoints -->"
DOCS: Final = Path(__file__).parents[2] / "docs"
PAGES: Final[dict[str, Sequence[Route[Any, Any]]]] = {
    "api.md": gateway.ROUTES,
    "miner.md": node.ROUTES,
    "proxy.md": proxy.ROUTES,
}
_SIGNING: Final = frozenset(node_model.Named.__struct_fields__)
"""Fields of every call that is signed in its body; the page describes them once."""


def table(routes: Sequence[Route[Any, Any]]) -> str:
    """Return the rows as a Markdown table: request, callers, success, other statuses.

    The last two columns are left out where they are the same for all rows.
    """
    rows = [_cells(route) for route in routes]
    kept = 6 if len({tuple(row[4:]) for row in rows}) > 1 else 4
    lines = [["method", "path", "signed", "", "success", "else"], ["---"] * 6, *rows]
    return "\n".join(_line(line[:kept]) for line in lines)


def _cells(route: Route[Any, Any]) -> list[str]:
    own = [each for each in route.parameters if not (route.signed_as and each.name in _SIGNING)]
    query = "&".join(f"{each.name}=…" for each in own if each.where == "query")
    path = f"{route.plain_path}?{query}" if query else route.plain_path
    schemes = [f"by {caller}" for caller in route.callers]
    signed = " or ".join(schemes) or (f"as `{route.signed_as}`" if route.signed_as else "no")
    success = f"{route.success.status}: {route.success.description}"
    besides = ", ".join(sorted(str(other.status or "any") for other in route.others))
    return [route.method, f"`{path}`", signed, route.summary, success, besides]


def _line(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table.

    >>> _line(["---", "---"]), _line(["GET", ""])
    ('|---|---|', '| GET | |')
    """
    if cells[0] == "---":
        return f"|{'|'.join(cells)}|"
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def insert(page: str, made: str) -> str:
    """Return the page with the table between its marks. Raises ValueError when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks to write the endpoints between")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def main() -> None:
    """Write the tables into their pages."""
    for name, routes in PAGES.items():
        page = DOCS / name
        page.write_text(insert(page.read_text(encoding="utf-8"), table(routes)), encoding="utf-8")


if __name__ == "__main__":
    main()
