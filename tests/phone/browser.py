"""The app in Chromium: steps of a person (phone/e2e/steps.mjs), each called from a test that runs the gateway.

These tests are in the group of those with a container engine: one that makes networks beside Chromium ends what it
loads.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import pytest

from engram.gateway import phone
from tests.browser.chromium import CHROMIUM

FOLDER = Path(__file__).parents[2] / "phone"
BUILT = (phone.FOLDER / "files.json").is_file()
_DRIVER = FOLDER / "node_modules" / "playwright-core"

needs_app = pytest.mark.skipif(
    CHROMIUM is None or not BUILT or not _DRIVER.is_dir(),
    reason="needs Chromium and the built app: apt-get install chromium; make phone",
)


class StepFailed(AssertionError):
    """A step did not come to its end; with what the page shows and wrote to its console."""


@final
class Browser:
    """Chromium with pages in profiles of their own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def do(self, step: str, argument: Any = None) -> Any:
        """Do a step and return its value. Raises StepFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"step": step, "argument": argument}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the driver has ended"
        outcome = json.loads(line)
        if "error" in outcome:
            raise StepFailed(f"{step} {argument!r}: {outcome['error']}")
        return outcome["value"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run Chromium while the block runs."""
    process = subprocess.Popen(
        ["node", "e2e/driver.mjs", json.dumps({"executable": CHROMIUM})],
        cwd=FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Browser(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
