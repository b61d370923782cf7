"""An interpreter in which packages are not installed, as far as programs can tell: their import is blocked in it and in
every process that it starts."""

from pathlib import Path

_BLOCKER = """
import sys

class _Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, _Blocked)
"""


def without(folder: Path, *modules: str) -> str:
    """Write what blocks the modules into `folder` and return the value of PYTHONPATH that makes it so."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_BLOCKER.format(names=set(modules)))
    return str(folder)
