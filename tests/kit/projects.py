"""Generated projects, and their miners as processes."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engram.kit.scaffold import Project, create
from tests.proxy.signing import BOB

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0


def project(folder: Path, *, port: int = 8091) -> Project:
    """A project of Bob's."""
    return create(folder, netuid=11, port=port, hotkey=BOB.ss58)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[str]:
    """The project's miner as its operator starts it; yields its URL, and ends it as systemd would."""
    reader, writer = os.pipe()
    command = [sys.executable, "miner.py", *options, "--ready-fd", str(writer)]
    with subprocess.Popen(command, cwd=folder, pass_fds=(writer,), stderr=subprocess.DEVNULL) as process:
        os.close(writer)
        try:
            yield _ready(reader)
        finally:
            os.close(reader)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def _ready(reader: int) -> str:
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([reader], [], [], READY_S)[0], "the miner does not serve"
        part = os.read(reader, 4_096)
        assert part, "the miner ended"
        line += part
    return str(json.loads(line)["miner_url"])


def engram(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of this checkout, in a folder."""
    return command(str(Path(sys.executable).with_name("engram")), *words, folder=folder)


def command(*words: str, folder: Path, more: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*words, *more], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
