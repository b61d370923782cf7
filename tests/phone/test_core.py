"""The app's own tests, which need Node and no browser."""

import subprocess

import pytest

from tests.phone.browser import FOLDER

VITEST = FOLDER / "node_modules" / ".bin" / "vitest"


@pytest.mark.external
@pytest.mark.skipif(not VITEST.exists(), reason="needs Node: run make phone")
def test_the_apps_own_tests_pass() -> None:
    done = subprocess.run([VITEST, "run", "--reporter=dot"], cwd=FOLDER, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert "passed" in done.stdout
