"""Completions and the manual, written from the commands."""

import shutil
import subprocess

import pytest

from engram.cli import manual
from engram.cli.app import app
from engram.cli.failures import Exit
from tests.cli.conftest import Run
from tests.cli.test_help import commands


def test_the_manual_has_every_command_with_its_options_and_every_exit_status(run: Run) -> None:
    page = run("manual").out
    leaves = [
        path
        for path in commands(app)
        if not any(other[: len(path)] == path for other in commands(app) if other != path)
    ]
    for path in leaves:
        assert f'.SS "engram {" ".join(path)}"' in page
    assert "\\fB\\-\\-keep\\fR\nTARGET is a folder" in page
    assert {status for status, _ in manual.EXIT_STATUSES} == {int(each) for each in Exit}


@pytest.mark.external
@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_manual_is_typeset_without_a_warning(run: Run) -> None:
    command = ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-P-c"]
    done = subprocess.run(command, input=run("manual").out, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "ENGRAM(1)" in done.stdout


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_completion_knows_the_commands(run: Run, shell: str) -> None:
    assert "drill" in run("completion", shell).out


def test_bash_completes_a_command(run: Run) -> None:
    script = run("completion", "bash").out + (
        "\nCOMP_WORDS=(engram ledger dr); COMP_CWORD=2; COMP_LINE='engram ledger dr'; COMP_POINT=${#COMP_LINE}\n"
        "$(complete -p engram | sed 's/.*-F \\([^ ]*\\).*/\\1/') engram dr ledger; echo \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", "--norc"], input=script, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["drill"], done.stderr


def test_text_that_roff_would_take_for_a_macro_is_kept() -> None:
    assert manual._text(".env is read") == "\\&.env is read"
    assert manual._text("a `--flag`\\n\n\nb") == "a \\fB\\-\\-flag\\fR\\en\n.PP\nb"
