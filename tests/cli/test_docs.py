"""What the documentation tells to type exists."""

import re
from pathlib import Path

import pytest

from engram.cli.app import app
from tests.cli.test_help import commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^|`|bin/|then `)engram ((?:[a-z][a-z-]* ?)+)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_documentation_exist(page: Path) -> None:
    there = {" ".join(path) for path in commands(app)}
    for words in COMMAND.findall(page.read_text(encoding="utf-8")):
        typed = words.split()
        known = next((length for length in range(len(typed), 0, -1) if " ".join(typed[:length]) in there), 0)
        group = any(name.startswith(" ".join([*typed[:known], ""])) for name in there)
        assert known == len(typed) or (known and not group), f"engram {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_makefile_has_what_the_readme_promises() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    promised = set(re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"demo", "test", "run"} <= promised <= targets


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index] == ["index.md"]
