"""What the pages for operators tell to copy: commands that the program takes, and settings that it reads."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import config
from engram.cli.failures import Exit
from engram.ledger import LEDGER_FILE, backup, open_inline
from tests.cli.conftest import Run
from tests.cli.test_upgrade import program

ROOT = Path(__file__).parents[2]
PAGES = ("index.md", "install.md", "operations.md", "tls.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OURS = re.compile(r"(?:sudo (?:-u engram )?)?(?:\./dist/engram|\./engram-new|engram|python run\.py) ")
SERVES = {"gateway", "demo", "run", "new", "miner-check"}
"""Commands that do not end, or that make a folder of their own; of the first it is asked whether they would start."""
ELSEWHERE = {
    "/var/lib/engram/ledger.sqlite3.schema-N": "backup-2026-11-20.db",
    "/etc/engram/engram.toml": "engram.toml",
    "/usr/bin/engram": "bin/engram",
    "./dist/engram": "./engram-new",
    "systemctl restart engram-gateway": "true",
}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for found, text in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
            if found == language:
                yield page, text


def commands() -> Iterator[list[str]]:
    for _, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r" && |; | \| | > ", line):
                if OURS.match(part):
                    yield shlex.split(OURS.sub("", part, count=1), comments=True)


COMMANDS = [words for words in commands() if words[0] not in SERVES]


@pytest.fixture
def operator(here: Path) -> Path:
    """A folder with a ledger, a backup, settings and a newer program, where the pages have theirs."""
    (here / "data").mkdir(mode=0o700)
    open_inline(here / "data" / LEDGER_FILE).close()
    backup.backup(here / "data" / LEDGER_FILE, here / "backup-2026-11-20.db")
    (here / "backups").mkdir()
    shutil.copy(here / "backup-2026-11-20.db", here / "backups" / "engram-20261120T000000Z.db")
    (here / "engram.toml").write_text("")
    (here / "bin").mkdir()
    program(here / "engram-new", "")
    return here


def test_there_is_something_to_run() -> None:
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_pages_is_taken(words: list[str], operator: Path, run: Run) -> None:
    for before, after in ELSEWHERE.items():
        words = [word.replace(before, after) for word in words]
    if words[:2] == ["ledger", "backup"]:
        (operator / words[2]).unlink(missing_ok=True)
    if words == ["ledger", "drill"]:
        words += ["--set", "backup.folder=backups"]
    ran = run(*words)
    assert ran.code in (Exit.DONE, Exit.FAILED, Exit.NOT_RUNNING), ran.err
    if words[0] in ("ledger", "upgrade", "config", "completion", "manual"):
        assert ran.code == Exit.DONE, ran.out + ran.err


@pytest.mark.parametrize("text", [text for _, text in blocks("toml")])
def test_settings_of_the_pages_are_read(text: str, here: Path) -> None:
    tomllib.loads(text)
    file = here / "engram.toml"
    file.write_text(text, encoding="utf-8")
    config.load(files=[file], environ={})
