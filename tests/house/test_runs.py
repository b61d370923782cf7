"""A run of the suite ends, whatever a test does to its process."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "test"
KILLS_ITS_WORKER = """
import os, signal
import pytest

@pytest.mark.parametrize("number", range(60))
def test_it(number):
    if number in (7, 23):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.heavy
def test_a_run_whose_workers_die_again_and_again_ends_and_names_the_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(KILLS_ITS_WORKER)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "ENGRAM"))}
    command = [str(SCRIPT), "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    for number in (7, 23):
        assert re.search(rf"crashed while running '\S*test_it\.py::test_it\[{number}\]'", ended.stdout)
