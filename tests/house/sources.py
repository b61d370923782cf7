"""The source files of the product, and their trees without the collector's passes over what is only built up."""

import ast
import gc
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PRODUCT: Final = ("actors", "config", "engram")


def files(*roots: str) -> list[Path]:
    """Every module under these folders; without any, those of the product and run.py."""
    found = [path for root in roots or PRODUCT for path in sorted((ROOT / root).rglob("*.py"))]
    found = [path for path in found if "node_modules" not in path.parts]
    return found if roots else [*found, ROOT / "run.py"]


def trees(modules: Iterable[str]) -> list[ast.Module]:
    """Parse these modules."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return [ast.parse(module) for module in modules]
    finally:
        if collects:
            gc.enable()
