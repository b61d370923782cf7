"""`make demo-validator`, as a user runs it."""

import subprocess
import sys

import pytest

from tests.miner.nodes import ROOT


@pytest.mark.nightly
@pytest.mark.heavy
def test_it_shows_both_scores_and_the_weights_that_the_chain_has() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/demo_validator.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    honest = next(row for row in rows if row[:2] == ["7", "stores"])
    cheat = next(row for row in rows if row[:2] == ["9", "serves"])
    recall, proofs, average, weight = map(float, honest[-4:])
    assert (recall, proofs, weight) == (1.0, 1.0, 1.0)
    assert average > 0.7  # a loaded machine costs it of its latency
    recall, proofs, average, weight = map(float, cheat[-4:])
    assert (proofs, weight) == (0.0, 0.0)
    assert recall <= 0.5
    assert average <= 0.6
