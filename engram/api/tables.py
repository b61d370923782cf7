"""The tables of endpoints in the documentation, made from the rows themselves.

`python -m engram.api.tables` writes them between the two marks of each page; a test holds them there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from engram.api import gateway
from engram.api.route import Route

BEGIN: Final = "<!-- endpoints: written by python -m engram.api.tables -->"
END: Final = "<!-- end of endpoints -->"
DOCS: Final = Path(__file__).parents[2] / "docs"
PAGES: Final[dict[str, Sequence[Route[Any, Any]]]] = {"api.md": gateway.ROUTES}


def table(routes: Sequence[Route[Any, Any]]) -> str:
    """Return the rows as Markdown: a request, who may send it, what a success is, which statuses there are besides."""
    lines = ["| method | path | signed | | success | else |", "|---|---|---|---|---|---|"]
    for route in routes:
        query = "&".join(f"{each.name}=…" for each in route.parameters if each.where == "query")
        path = f"{route.plain_path}?{query}" if query else route.plain_path
        signed = " or ".join(f"by {caller}" for caller in route.callers) or "no"
        success = f"{route.success.status}: {route.success.description}"
        besides = ", ".join(sorted(str(other.status or "any") for other in route.others))
        lines.append(f"| {route.method} | `{path}` | {signed} | {route.summary} | {success} | {besides} |")
    return "\n".join(lines)


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
