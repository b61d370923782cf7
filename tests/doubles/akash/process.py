"""The double as a process of its own, for tests whose gateway is one too."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).parents[3]
_ENDS_WITHIN_S: Final = 30.0


class DoubleProcess:
    """`python -m tests.doubles.akash`, ended with all it started when the block is left."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.doubles.akash", *arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._process.stdout.close()
        ready: dict[str, Any] = json.loads(line)
        self.endpoints: list[str] = ready["endpoints"]
        self.control: str = ready["control"]

    def state(self) -> dict[str, Any]:
        """Return what the double has seen."""
        return self._ask(self.control + "/state", None)

    def post(self, path: str, **values: Any) -> dict[str, Any]:
        """Do what `control` describes."""
        return self._ask(self.control + path, json.dumps(values).encode())

    def _ask(self, url: str, body: bytes | None) -> dict[str, Any]:
        with urllib.request.urlopen(url, body, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
