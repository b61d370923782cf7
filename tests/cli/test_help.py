"""Every command is listed, explained and has an example; the help is quick."""

import resource
import subprocess
import sys

import pytest
from cyclopts import App

from engram.cli.app import app
from tests.cli.conftest import Run


def commands(node: App, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group below `node`."""
    found: list[tuple[str, ...]] = [path] if path else []
    for name in node:
        if not name.startswith("-"):
            found += commands(node[name], (*path, name))
    return found


@pytest.mark.parametrize("path", commands(app), ids=" ".join)
def test_help_explains_the_command_and_has_an_example(path: tuple[str, ...], run: Run) -> None:
    ran = run(*path, "--help")
    assert ran.code == 0
    assert f"Usage: engram {' '.join(path)}" in ran.out
    assert "Example: engram " in ran.out
    assert not [empty for empty in ("()", '""', "None", "False") if f"[default: {empty}]" in ran.out]


def test_the_commands_of_the_operator_are_there() -> None:
    there = {" ".join(path) for path in commands(app)}
    assert there >= {
        "run",
        "gateway",
        "miner",
        "facilitator",
        "demo",
        "config show",
        "config check",
        "hotkeys new",
        "hotkeys show",
        "hotkeys pool add",
        "hotkeys pool list",
        "hotkeys pool retire",
        "akash sdl",
        "akash wallet new",
        "akash wallet import",
        "akash wallet address",
        "akash wallet balance",
        "sessions list",
        "sessions show",
        "sessions stop",
        "payments list",
        "payments show",
        "payments export",
        "selling on",
        "selling off",
        "ledger backup",
        "ledger restore",
        "ledger check",
        "miner ingest",
        "miner query",
        "miner stats",
        "miner verify",
        "miner backup",
        "miner restore",
        "miner repair",
        "miner export",
        "miner erase",
        "miner reindex",
        "miner push",
        "relay dlq list",
        "relay dlq show",
        "relay dlq retry",
        "relay dlq discard",
    }


def test_help_lists_the_commands(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    assert all(f"│ {name} " in ran.out for name in ("gateway", "sessions", "payments", "ledger", "config"))


def test_help_is_quick() -> None:
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", "from engram.cli import main; main(['--help'])"], check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_seconds() for _ in range(5)) < 0.5  # 0.25 on two idle cores


@pytest.mark.parametrize("module", ["trio", "sqlalchemy", "quart", "engram.gateway", "engram.http"])
def test_help_loads_nothing_heavy(module: str) -> None:
    code = f"import sys; from engram.cli import main; main(['--help']); sys.exit({module!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["sesions"], "Did you mean"),
        (["sessions", "lst"], "Did you mean"),
        (["sessions", "list", "--jsn"], "--jsn"),
        (["gateway", "--port", "many"], "--port"),
        (["run"], "name at least one role"),
        (["run", "gatway"], "did you mean 'gateway'"),
        (["relay", "dlq", "retry"], "--all"),
        (["relay", "dlq", "retry", "1", "--all"], "--all"),
        (["config", "show", "gatway"], "did you mean 'gateway'"),
        (["config", "show", "nonsense"], "engram config show` lists them all"),
        (["config", "check", "gatway"], "there is no role 'gatway'"),
        (["gateway", "--ready-fd", "77"], "--ready-fd 77 is not an open file descriptor"),
        (["payments", "refunded", "p", "--part", "1", "--transaction", "0x12"], "--transaction 0x12 is not 0x and 64"),
        (["payments", "refunded", "p", "--part", "0", "--transaction", "0x" + "0" * 64], "--part 0"),
        (["miner"], "engram miner --config launch.json"),
        (["run", "gateway", "miner", "--config", "launch.json"], "a node runs alone"),
        (["miner", "--config", "a.json", "--config", "b.json"], "one launch file"),
        (["registry"], "engram registry needs --address; other commands of engram registry: check, read, register"),
        (["registry", "chek"], "Unknown command 'chek'. Commands of engram registry: check, read, register."),
        (
            ["registry", "register"],
            "engram registry register needs --address\nengram: see engram registry register --help",
        ),
        (["registry", "check", "--bogus"], "see engram registry check --help"),
        (["subnet", "set-weights", "3"], "'3' is not UID=WEIGHT, such as 3=0.7"),
        (["subnet", "set-weights", "3=1", "--file", "x"], "not both"),
    ],
)
def test_wrong_usage_is_told_in_a_line(argv: list[str], told: str, run: Run) -> None:
    ran = run(*argv)
    assert ran.code == 2
    assert ran.out == ""
    assert told in ran.err
    assert "Traceback" not in ran.err
