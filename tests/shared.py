"""What tests share: a port, a disk, and marks for what a machine may lack and no set-up can install (the folder of
reference material beside the checkout, ../shared; the right to mount a disk)."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ENGRAM_SHARED") or Path(__file__).parents[2] / "shared")

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared is absent")

NO_MOUNT = "this machine lets no test mount a disk of its own"


@contextmanager
def small_disk(tmp_path: Path, size: str) -> Iterator[Path]:
    """Mount a disk of its own of this size (`1m`); the test is skipped where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True).returncode:
        pytest.skip(NO_MOUNT)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def free_port() -> int:
    """Return a port of the loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
