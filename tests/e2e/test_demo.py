"""`make demo`, as a newcomer runs it: real processes, the semantic embedder, and nothing left running."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engram.demo import ANSWER
from tests.e2e.gateway_process import ROOT


def demo(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "engram.demo", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_running(folder: Path) -> list[str]:
    """Command lines of processes that belong to a demo in the folder: by command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, environment = (
                    (entry / name).read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    for name in ("cmdline", "environ")
                )
            except OSError:
                continue
            if str(folder) in command or str(folder) in environment:
                found.append(command)
    return found


@pytest.mark.xdist_group("demo")
def test_the_demo_shows_its_steps_and_ends_in_one_json_object(tmp_path: Path) -> None:
    process = demo(tmp_path)
    out, _ = process.communicate(timeout=150)
    assert process.returncode == 0, out
    lines = out.splitlines()
    result = json.loads(lines[-1])
    assert list(result) == ["demo", "session_id", "time_to_active_s", "query_top_text", "stats", "stopped"]
    assert (result["demo"], result["query_top_text"], result["stopped"]) == ("ok", ANSWER, True)
    assert result["stats"]["vectors"] == 3
    assert isinstance(result["stats"]["block"], int)
    assert 0 < result["time_to_active_s"] < 120
    assert any(line.startswith("Waiting for the node") for line in lines)
    assert "\x1b" not in out
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_the_demo_buys_a_node_on_the_double_of_akash(tmp_path: Path) -> None:
    process = demo(tmp_path, "--backend", "akash")
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out
    result = json.loads(out.splitlines()[-1])
    assert (result["demo"], result["query_top_text"], result["stopped"]) == ("ok", ANSWER, True)
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_cannot_start_says_why_and_fails(tmp_path: Path) -> None:
    process = demo(tmp_path, CLOUD_PRICE_PER_HOUR_USD="much")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "CLOUD_PRICE_PER_HOUR_USD" in out
    assert json.loads(out.splitlines()[-1])["demo"] == "failed"
    assert left_running(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_interrupted_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Waiting for the node"):
            break
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "nothing is left running" in rest
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
