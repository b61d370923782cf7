"""What a person reads is spelled the American way, as the field's own terms are."""

import re
from pathlib import Path

import pytest

from engram.cli.app import app
from tests.cli.conftest import Run, here, run
from tests.cli.test_help import commands

__all__ = ["here", "run"]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "changes").glob("*.md"))]
BRITISH = re.compile(
    r"\b(?:misspelt|spelt|learnt|whilst|catalogues?|artefacts?|judgement|grey|centre|licence|defence|(?:un)?labelled"
    r"|(?:behavi|col|fav|hon|neighb)our\w*"
    r"|(?:author|final|initial|normal|optim|organ|recogn|reorgan|serial|summar|synchron|token|util)is(?:e|ed|es|ing|ation)"
    r")\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_spelled_the_american_way(page: Path) -> None:
    assert BRITISH.findall(page.read_text(encoding="utf-8")) == []


def test_help_is_spelled_the_american_way(run: Run) -> None:
    assert BRITISH.findall("".join(run(*path, "--help").out for path in commands(app))) == []


def test_the_list_finds_british_words() -> None:
    assert BRITISH.findall("Authorisation, a catalogue and what was learnt; authorized, raised, exercise") == [
        "Authorisation",
        "catalogue",
        "learnt",
    ]
