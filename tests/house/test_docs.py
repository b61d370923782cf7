"""The pages hang together: all are in the index, links lead somewhere, and what differs stands in one list."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINKED = re.compile(r"\]\(([^)\s]+)\)")
DIFFERS = re.compile(r"differ[^.:]*\bfrom the original", re.IGNORECASE)


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_link_within_the_documentation_leads_somewhere(page: Path) -> None:
    for link in LINKED.findall(prose(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page if not file else (page.parent / file).resolve()
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    linked = LINKED.findall((ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    assert sorted(link for link in linked if not link.startswith("../")) == [
        page.name for page in PAGES if page.name != "index.md"
    ]


def test_what_differs_from_the_original_stands_on_one_page_which_the_others_name() -> None:
    elsewhere = [
        page for page in PAGES if page.name not in ("differences.md", "index.md") and DIFFERS.search(prose(page))
    ]
    assert [page.name for page in elsewhere] == ["api.md", "miner.md"]
    for page in elsewhere:
        about = [part for part in prose(page).split("\n\n") if DIFFERS.search(part)]
        assert all("(differences.md)" in part or part.startswith("#") for part in about)


def original_surface() -> list[str]:
    lines = (ROOT / "tests" / "data" / "original-surface.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition("\t")[2] for line in lines if not line.startswith("#")]


def test_everything_that_the_original_names_has_its_replacement_named() -> None:
    page = (ROOT / "docs" / "from-the-original.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("|") and "---" not in line]
    before = {name for row in rows for name in re.findall(r"`([^`]+)`", row[0]) if row[1].strip()}
    assert [name for name in original_surface() if not any(each.startswith(name) for each in before)] == []
