"""The binary, built once for all tests of a run that need it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(target: Path, *options: str) -> str:
    """Build the binary and return its SHA-256."""
    command = [sys.executable, "-m", "shipping.binary", str(target), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`engram` with everything; ENGRAM_BINARY_UNDER_TEST names one that is built already."""
    if named := os.environ.get("ENGRAM_BINARY_UNDER_TEST"):
        yield Path(named)
        return
    target = tmp_path_factory.mktemp("dist") / "engram"
    build(target)
    yield target
    target.unlink()


@pytest.fixture(scope="session")
def unpacked(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the binary of this run is unpacked, once: ENGRAM_UNPACK_DIR of its tests."""
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run([str(binary), "--version"], env={"ENGRAM_UNPACK_DIR": str(folder)}, check=True, capture_output=True)
    return folder
