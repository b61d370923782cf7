"""docs/miners.md as a newcomer follows it: its commands and its program, as they stand there."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from cyclopts import MissingArgumentError
from packaging.requirements import Requirement

from engram.cli.app import app
from engram.kit.scaffold import HOTKEY_FILE
from tests.kit.projects import ROOT, engram

PAGE = (ROOT / "docs" / "miners.md").read_text("utf-8")
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def block(language: str, about: str) -> str:
    """The page's block of that language that has a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = [each for each in blocks if about in each]
    return str(found)


@pytest.mark.heavy
def test_a_newcomer_gets_from_nothing_to_a_green_check_by_the_page_alone(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(tmp_path), "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    words = ["bash", "-euo", "pipefail", "-c", block("bash", "engram new miner")]
    walked = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert walked.returncode == 0, walked.stdout + walked.stderr
    assert "7 passed" in walked.stdout, "the page says so"
    assert "to do" not in walked.stdout
    folder = tmp_path / "my-miner"
    made = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert len([each for each in made if "__pycache__" not in each and each != HOTKEY_FILE]) == 9, "the page says so"
    assert (folder / HOTKEY_FILE).stat().st_mode & 0o777 == 0o600
    assert HOTKEY_FILE in (folder / ".gitignore").read_text().splitlines()

    (folder / "miner.py").write_text(block("python", "main(make)"))  # the page's own program in its place
    shown = engram("miner-check", "--local", folder=folder)
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_what_the_page_and_a_project_install_is_what_the_package_declares() -> None:
    (on_page,) = re.findall(r"^pip install '\.\[([a-z,]+)\]' pytest$", block("sh", "venv"), re.MULTILINE)
    listed = (ROOT / "engram" / "kit" / "project" / "requirements.txt.template").read_text().split()
    wanted = Requirement(listed[0])
    assert (wanted.name, wanted.extras, listed[1:]) == (DECLARED["name"], set(on_page.split(",")), ["pytest"])
    assert wanted.extras <= DECLARED["optional-dependencies"].keys()


PROGRAMS = {".", "$EDITOR", "cd", "curl", "pip", "podman", "python", "python3"}
"""What a newcomer has beside Engram. A project has no Makefile."""
FILLED_IN = {"{netuid}": "11", "{name}": "mine", "{port}": "8091", "…": "X", "URL": "https://miner.example.org"}


def commands_of(text: str) -> list[list[str]]:
    """Every command of a page's blocks, in words; what a person writes in is filled in."""
    for hole, word in FILLED_IN.items():
        text = text.replace(hole, word)
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found: list[list[str]] = [[]]
    for line in lines:
        for word in shlex.split(line.removeprefix("$ "), comments=True):
            if word in ("&&", "&"):
                found.append([])
            else:
                found[-1].append(word)
        found.append([])
    return [words for words in found if words]


def named_in(text: str) -> list[list[str]]:
    """Every command that a page's sentences name, in words."""
    for hole, word in FILLED_IN.items():
        text = text.replace(hole, word)
    sentences = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(each) for each in re.findall(r"`((?:engram|make|python|podman) [^`]+)`", sentences)]


PAGES = [ROOT / "docs" / "miners.md", ROOT / "docs" / "worker.md", ROOT / "engram/kit/project/README.md.template"]
TEXTS = [page.read_text("utf-8") for page in PAGES]
LINES = [pytest.param(words, id=" ".join(words)) for text in TEXTS for words in commands_of(text)]
NAMED = [pytest.param(words, id=" ".join(words)) for text in TEXTS for words in named_in(text)]


@pytest.mark.parametrize("words", LINES)
def test_each_command_of_the_pages_is_one_with_the_options_that_it_has(words: list[str]) -> None:
    if words[0] != "engram":
        assert words[0] in PROGRAMS, "a reader of this page has no such program"
        return
    command, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert callable(command)
    assert bound.signature is not None


@pytest.mark.parametrize("words", NAMED)
def test_each_command_that_a_sentence_names_is_there(words: list[str]) -> None:
    if words[0] == "engram":
        with suppress(MissingArgumentError):  # a sentence names the command alone
            command, _, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
            assert command is not None
    else:
        assert words[0] in PROGRAMS or words == ["make", "setup"], "a project has no Makefile"


def test_the_pages_have_commands() -> None:
    assert len(LINES) >= 20
    assert len(NAMED) >= 10
