"""The site of the documentation: complete, without a broken link, and asking no other host for anything."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MKDOCS = ROOT / ".venv-docs" / "bin" / "python"


class Loaded(HTMLParser):
    """What a browser loads by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.addresses.append(found.get("src") or "")
        if tag == "link":
            self.addresses.append(found.get("href") or "")


def test_the_generated_pages_have_every_row_of_the_tables_and_every_child_of_the_trees(tmp_path: Path) -> None:
    target = tmp_path / "docs"
    subprocess.run([sys.executable, "scripts/docs_pages.py", str(target)], cwd=ROOT, check=True)
    states = (target / "states.md").read_text()
    assert "| `settling` | `unclear` | `unknown` |" in states
    assert "| `active` | `degrade` | `degraded` |" in states
    trees = (target / "trees.md").read_text()
    assert all(f">{name}</text>" in trees for name in ("payment_verifier", "rest_for_one", "embedder", "rounds"))
    assert (target / "commands.md").read_text().startswith("# engram\n")
    assert "](../" not in "".join(page.read_text() for page in target.glob("*.md"))
    nav = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in target.glob("*.md") if not re.search(rf"\b{re.escape(page.name)}\b", nav)] == []


@pytest.mark.heavy
@pytest.mark.external
@pytest.mark.skipif(not MKDOCS.exists(), reason="needs .venv-docs; make docs makes it")
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere() -> None:
    done = subprocess.run(["scripts/docs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((ROOT / "build" / "site").rglob("*.html"))
    assert len(pages) > 25
    elsewhere = set()
    for page in pages:
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        elsewhere |= {address for address in parser.addresses if re.match(r"(https?:)?//", address)}
    assert elsewhere == set()
    styles = "".join(sheet.read_text(encoding="utf-8") for sheet in (ROOT / "build" / "site").rglob("*.css"))
    assert not re.search(r"url\(['\"]?(https?:)?//|@import", styles)
