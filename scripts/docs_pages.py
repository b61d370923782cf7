"""Collects the pages of the site into a folder, with those that are generated: `scripts/docs_pages.py FOLDER`."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import docs_trees  # beside this script

from engram.cli.app import app
from engram.payments import rules as payments
from engram.sessions import rules as sessions

ROOT: Final = Path(__file__).resolve().parents[1]
_MOVED: Final = {"../CONTRIBUTING.md": "contributing.md", "docs/": ""}
"""Links that lead elsewhere on the site than in the repository."""


def states() -> str:
    """Return the page of the state machines, from their tables."""
    of_payments = ((*key, transition.state) for key, transition in payments.TRANSITIONS.items())
    of_sessions = ((*key, after) for key, after in sessions.TRANSITIONS.items())
    return (
        "# States\n\nWritten from the tables that the program itself goes by.\n\n"
        f"## A payment\n\n{_table(of_payments)}\n"
        f"## A session\n\n{_table(of_sessions)}\n"
    )


def collect(target: Path) -> None:
    """Write all pages into `target`, replacing what is there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target)
    (target / "contributing.md").write_text((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), encoding="utf-8")
    for page in target.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for before, after in _MOVED.items():
            text = text.replace(f"]({before}", f"]({after}")
        page.write_text(text, encoding="utf-8")
    (target / "commands.md").write_text(app.generate_docs(), encoding="utf-8")
    (target / "states.md").write_text(states(), encoding="utf-8")
    (target / "trees.md").write_text(docs_trees.page(), encoding="utf-8")


def _table(rows: Iterable[tuple[object, object, object]]) -> str:
    lines = [f"| `{before}` | `{event}` | `{after}` |" for before, event, after in rows]
    return "\n".join(["| state | event | next |", "|---|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: scripts/docs_pages.py FOLDER")
    collect(Path(sys.argv[1]))
