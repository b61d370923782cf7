"""How a node starts and ends as a process, by either way it is started."""

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engram.nodes import launch
from tests.miner.nodes import ROOT, NodeProcess

WAYS = pytest.mark.parametrize("program", [("-m", "engram.miner"), ("run.py", "miner")])


@WAYS
def test_a_node_whose_port_is_taken_says_so_and_exits_with_status_2(tmp_path: Path, program: tuple[str, ...]) -> None:
    made = NodeProcess(tmp_path, log_file=None)
    launch.write(made.launch_file, made.launch)
    with socket.create_server(("127.0.0.1", made.port)):
        command = [sys.executable, *program, "--config", str(made.launch_file)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("this node cannot start: [Errno 98] cannot listen on")


@WAYS
def test_a_node_ends_with_status_0_and_what_it_wrote_is_its_owners_alone(
    tmp_path: Path, program: tuple[str, ...]
) -> None:
    made = NodeProcess(tmp_path, is_warm=False)
    made.entry = list(program)
    made.start()
    assert made.terminate() == 0
    open_to_others = [
        str(path)
        for path in (tmp_path / "data").rglob("*")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert open_to_others == []


def test_a_miner_runs_alone_and_from_a_launch_file() -> None:
    command = [sys.executable, "run.py", "miner", "gateway"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "a node runs alone, from its launch file" in ran.stderr
