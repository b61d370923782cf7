"""The stand-in for NVML, compiled once for a worker and loaded under NVML's own name."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def nvml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds libnvidia-ml.so.1: the stand-in."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (Debian: apt-get install gcc libc6-dev)")
    folder = tmp_path_factory.mktemp("nvml")
    library = folder / "libnvidia-ml.so.1"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run([*command, "-o", str(library), str(HERE / "stand_in.c")], check=True)
    return folder


@pytest.fixture
def machine(nvml_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Say which machine the stand-in is. It bears no name in itself, so that others still find no driver here."""
    import pynvml

    library = ctypes.CDLL(str(nvml_folder / "libnvidia-ml.so.1"))
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return lambda name: monkeypatch.setenv("ENGRAM_TEST_NVML", name)
