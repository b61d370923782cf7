"""The page of all metrics for the documentation, made from their table.

`python -m engram.telemetry.reference` writes it into docs/metrics.md, between the two marks; a test checks that it is
current.
"""

from itertools import groupby
from pathlib import Path
from typing import Final

from engram.telemetry.table import TABLE, Metric

BEGIN: Final = "<!-- metrics: written by python -m engram.telemetry.reference -->"
END: Final = "<!-- end of metrics -->"
PAGE: Final = Path(__file__).parents[2] / "docs" / "metrics.md"


def table() -> str:
    """Return the rows as a Markdown table, by name."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for row in sorted(TABLE, key=lambda row: row.name):
        shown = f"{row.name}_total" if row.kind == "counter" else row.name
        lines.append(f"| `{shown}` | {row.kind} | {_labels(row)} | {row.help} |")
    return "\n".join(lines)


def insert(page: str, made: str) -> str:
    """Return the page with the table between its marks. Raises ValueError when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks to write the metrics between")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def _labels(row: Metric) -> str:
    """Return the labels with their known values: `state` (due, refunded)."""
    shown = []
    for place, name in enumerate(row.labels):
        values = [value for value, _ in groupby(sorted(known[place] for known in row.known))]
        more = [] if row.only_known else ["…"]
        shown.append(f"`{name}` ({', '.join([*values, *more])})" if values else f"`{name}`")
    return ", ".join(shown)


def main() -> None:
    """Write the table into its page."""
    PAGE.write_text(insert(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")


if __name__ == "__main__":
    main()
