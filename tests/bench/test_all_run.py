"""Every benchmark runs to its figures: none is broken unnoticed by a change of what it measures."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.__main__ import names

pytestmark = [pytest.mark.heavy, pytest.mark.nightly, pytest.mark.serial]
ROOT = Path(__file__).parents[2]
WITHIN_S = 900


class Line(msgspec.Struct):
    """The line that a benchmark ends with."""

    bench: str
    figures: dict[str, float | None]


@pytest.mark.parametrize("name", names())
def test_a_short_run_ends_with_its_figures(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", "--quick"],
        cwd=ROOT,
        env=os.environ | {"TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4_000:]
    line = msgspec.json.decode(ran.stdout.splitlines()[-1], type=Line)
    assert line.bench
    assert line.figures
