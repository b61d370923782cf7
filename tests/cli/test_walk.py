"""Every command, given nothing, a wrong argument, an unknown option or a useless data folder, says what was wrong.

Nothing is started and nothing is reached: no process serves the folders here, and chain commands have an endpoint that
refuses connections.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from cyclopts import App
from cyclopts.argument import Argument

from engram.cli.app import app
from engram.cli.failures import Exit
from engram.cli.numbers import whole
from tests.cli.conftest import Ran, Run
from tests.cli.test_help import commands

PATHS = commands(app)
GROUPS = {shorter for shorter, longer in pairwise(sorted(PATHS)) if longer[: len(shorter)] == shorter}
LEAVES = [path for path in PATHS if path not in GROUPS]
STARTING = {("run",), ("gateway",), ("facilitator",), ("demo",)}
DOCUMENTED = {Exit.DONE, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING, Exit.UNKNOWN, Exit.FORKED}
WORD = "no-such-thing"


def arguments(path: tuple[str, ...]) -> Iterator[Argument]:
    """What the command (or the group, called without a command) takes."""
    node: App = app
    for name in path:
        node = node[name]
    if node.default_command is not None:
        yield from (found for found in node.assemble_argument_collection() if found.parse and found.show)


def offers(path: tuple[str, ...], option: str) -> bool:
    return any(option in argument.names for argument in arguments(path))


def offline(path: tuple[str, ...]) -> list[str]:
    return ["--endpoint", "http://127.0.0.1:1"] if offers(path, "--endpoint") else []


def holds(ran: Ran, *named: str) -> None:
    """What every end of a command has in common: a documented status, no traceback, and a reason that names things."""
    assert ran.code in DOCUMENTED
    for text in (ran.out, ran.err):
        assert "Traceback" not in text
        assert "Unused Tokens" not in text
        assert "[Errno" not in text
    if ran.code in (Exit.USAGE, Exit.NOT_RUNNING):
        assert ran.err.startswith("engram: ")
        assert all(name in ran.err for name in named), ran.err


@pytest.fixture(autouse=True)
def home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without wallets."""
    monkeypatch.setenv("HOME", str(here))
    return here


@pytest.mark.parametrize("path", [path for path in PATHS if path not in STARTING - {("run",)}], ids=" ".join)
def test_a_command_without_arguments_says_what_it_needs(path: tuple[str, ...], run: Run) -> None:
    ran = run(*path, *offline(path))
    holds(ran)
    assert ran.out or ran.err
    if ran.code == Exit.USAGE and "see engram" in ran.err:
        assert f"see engram {' '.join(path)}" in ran.err


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_an_unknown_option_is_named(path: tuple[str, ...], run: Run) -> None:
    ran = run(*path, f"--{WORD}")
    assert ran.code == Exit.USAGE
    holds(ran, f"Unknown option: --{WORD}", f"see engram {' '.join(path)} --help")


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_a_wrong_argument_is_named(path: tuple[str, ...], run: Run) -> None:
    holds(ran := run(*path, WORD, WORD + "2", WORD + "3", *offline(path)))
    if path in GROUPS or ran.code == Exit.USAGE:
        assert ran.code == Exit.USAGE
        assert WORD in ran.err or " needs " in ran.err


@pytest.mark.parametrize("path", [("run", "gateway"), ("gateway",), ("facilitator",)], ids=" ".join)
def test_nothing_starts_where_the_data_folder_is_a_file(path: tuple[str, ...], here: Path, run: Run) -> None:
    (here / "file").write_text("not a folder")
    ran = run(*path, "--data-dir", str(here / "file"))
    assert ran.code == Exit.USAGE
    assert f"{here / 'file'} is a file" in ran.err


NOT_OF_THE_FOLDER = (("akash",), ("proxy",), ("ledger", "drill"), ("ledger", "migrate"))
"""Commands that ask the chain, a listener, a backup or a server; they need settings of their own before they look."""


@pytest.mark.parametrize("kind", ["empty", "missing", "file"])
@pytest.mark.parametrize(
    "path",
    [
        path
        for path in LEAVES
        if path not in STARTING and not {path[:1], path} & set(NOT_OF_THE_FOLDER) and offers(path, "--data-dir")
    ],
    ids=" ".join,
)
def test_a_data_folder_that_no_process_serves_is_named(path: tuple[str, ...], kind: str, here: Path, run: Run) -> None:
    folder = here / kind
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("not a folder")
    given = [
        "1" if argument.hint is int else WORD
        for argument in arguments(path)
        if argument.required and argument.field_info.is_positional
    ]
    given += ["--json"] if offers(path, "--json") else []
    given += ["--part", "1", "--transaction", "0x" + "0" * 64] if offers(path, "--transaction") else []
    given += ["--all"] if offers(path, "--all") else []
    ran = run(*path, *(given if path[0] != "config" else []), "--data-dir", str(folder))
    holds(ran)
    assert ran.code != Exit.USAGE
    if ran.code == Exit.NOT_RUNNING:
        assert str(folder) in ran.err
        assert kind != "file" or f"{folder} is a file" in ran.err


def test_every_whole_number_is_read_strictly() -> None:
    numbers = [(path, found) for path in PATHS for found in arguments(path) if found.hint in (int, int | None)]
    assert len(numbers) > 50
    assert [(path, found.name) for path, found in numbers if found.parameter.converter is not whole] == []


@pytest.mark.parametrize("text", ["1.5", "0x10", "1e3", "nan", "٣", "", "1" * 30])
def test_a_whole_number_is_never_rounded_nor_guessed(text: str, run: Run) -> None:
    """--port 1.5 served port 2, and --netuid 1.5 meant the subnet 2."""
    ran = run("gateway", f"--port={text}")
    assert ran.code == Exit.USAGE
    assert f"for --port: {text!r} is not a whole number" in ran.err


def test_each_argument_and_option_is_explained() -> None:
    assert [(path, found.name) for path in PATHS for found in arguments(path) if not found.parameter.help] == []
