"""The image of a node: its layers, from what changes least to what changes most, and how it runs."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

import msgspec

from engram.nodes import environment
from shipping import archive, bytecode, distributions, interpreter, libraries, oci, root_files, sbom
from shipping.entries import ContentsError, Entry, Layer, ordered
from shipping.libraries import Library
from shipping.oci import Image, Recipe

BUNDLE: Final = "engram-node.tar"
SBOM: Final = "engram-node.cdx.json"
DIGEST: Final = "digest"
LAYOUT: Final = "oci"
_PYTHON: Final = f"/{interpreter.PROGRAM}"


class Contents(msgspec.Struct, frozen=True):
    """What goes into an image, before it is packed."""

    layers: tuple[Layer, ...]
    packages: tuple[Distribution, ...]
    libraries: tuple[Library, ...]


def recipe(version: str) -> Recipe:
    """Return how a node's container runs: by its environment alone, as a user of its own."""
    return Recipe(
        name="engram-node:latest",
        entrypoint=(_PYTHON, "-P", "-m", "engram.miner"),
        user=root_files.USER,
        environment={
            "PATH": f"/{interpreter.HOME}/bin",
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"/{distributions.OURS}:/{distributions.PACKAGES}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SSL_CERT_FILE": f"/{root_files.AUTHORITIES}",
            "HOME": environment.DATA_DIR,
        },
        port=environment.PORT,
        volume=environment.DATA_DIR,
        health=(_PYTHON, "-P", "-m", "engram.miner.container_health"),
        labels={
            "org.opencontainers.image.title": "Engram node",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "MIT",
        },
    )


def contents(staging: Path) -> Contents:
    """Collect the files; byte code is compiled into `staging`. Raises ContentsError."""
    packages = tuple(distributions.chosen())
    python = [*interpreter.entries(), *root_files.entries()]
    weights = tuple(each for each in packages if distributions.normalized(each.name) == distributions.WEIGHTS)
    installed = list(distributions.entries(each for each in packages if each not in weights))
    own = list(distributions.own_entries())
    found = tuple(libraries.needed(_binaries([*python, *installed]), _inside()))
    layers = (
        Layer(name="interpreter", entries=_compiled([*python, *libraries.entries(found)], staging)),
        Layer(name="weights", entries=ordered(distributions.entries(weights))),
        Layer(name="packages", entries=_compiled(installed, staging)),
        Layer(name="engram", entries=_compiled(own, staging)),
    )
    return Contents(layers, packages, found)


def write(target: Path, recipe: Recipe, layers: Sequence[Layer], bundle: str) -> Image:
    """Write a layout and a bundle of that name into the folder `target`, replacing what is there."""
    layout = target / LAYOUT
    shutil.rmtree(layout, ignore_errors=True)
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    image = oci.write(layout, recipe, [(layer.name, archive.pack(layer.entries, blobs)) for layer in layers])
    oci.bundle(layout, image, target / bundle)
    return image


def build(target: Path) -> Image:
    """Write layout, bundle, SBOM and digest into the folder `target`, replacing what is there. Raises ContentsError."""
    staging, version = target / ".staging", distributions.version()
    shutil.rmtree(staging, ignore_errors=True)
    try:
        made = contents(staging)
        image = write(target, recipe(version), made.layers, BUNDLE)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    (target / SBOM).write_bytes(sbom.encode(sbom.document(image.digest, version, made.packages, made.libraries)))
    (target / DIGEST).write_text(f"{image.digest}\n", encoding="ascii")
    return image


def main(arguments: Sequence[str]) -> int:
    """Build into the folder that is named and print the digest; 2 when something is missing."""
    if len(arguments) != 1:
        print("usage: python -m shipping FOLDER", file=sys.stderr)
        return 2
    target = Path(arguments[0])
    try:
        image = build(target)
    except ContentsError as error:
        print(f"the image cannot be built: {error}", file=sys.stderr)
        return 2
    print(
        f"{target / BUNDLE}: {os.path.getsize(target / BUNDLE) / 1e6:.0f} MB, load it by `docker load -i`",
        file=sys.stderr,
    )
    print(image.digest)
    return 0


def _compiled(entries: Sequence[Entry], staging: Path) -> tuple[Entry, ...]:
    return ordered([*entries, *bytecode.entries(sorted(entries, key=lambda entry: entry.path), staging)])


def _binaries(entries: Sequence[Entry]) -> list[Path]:
    return [
        entry.source
        for entry in entries
        if entry.source is not None and (".so" in entry.source.suffixes or entry.path == interpreter.PROGRAM)
    ]


def _inside() -> tuple[Path, ...]:
    """Return where packages bring libraries of their own, which are found beside them in the image as well."""
    return (Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib")))
