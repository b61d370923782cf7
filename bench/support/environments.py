"""Environments of their own for what ours is measured against."""

import contextlib
import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "build" / "bench"


def environment(name: str, *requirements: str) -> Path | None:
    """The Python of an environment with these pinned packages, made when it is not there yet; None: cannot be made."""
    folder = _FOLDER / name
    python, done = folder / "bin" / "python", folder / "done"
    asked = "\n".join(requirements)
    if done.exists() and done.read_text() == asked:
        return python
    install = [str(python), "-m", "pip", "install", "--quiet", *requirements]
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=120)
        subprocess.run(install, check=True, timeout=600, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done.write_text(asked)
        return python
    return None
