"""The image of the program: `python -m shipping.gateway_image FOLDER [--full]`, the packed folder and nothing else.

It is what the one-file form unpacks, at a fixed place, so it needs no unpacking; no shell, no package manager, a user
without a name. By default without what nodes need: in a container they run elsewhere (Docker, Akash).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engram.children import PROGRAM_FILE
from shipping import distributions, image, root_files, sbom
from shipping.entries import ContentsError, Layer, ordered
from shipping.folder import Variant, packed, placed
from shipping.oci import Image, Recipe
from shipping.sbom import Subject

HOME: Final = "/opt/engram"
BUNDLE: Final = "engram.tar"
SBOM: Final = "engram.cdx.json"
_PROGRAM: Final = f"{HOME}/{PROGRAM_FILE}"
_PORT: Final = 9_000


def recipe(version: str) -> Recipe:
    """Return how a container of the program runs: as a user of its own, its data in a volume."""
    return Recipe(
        name="engram:latest",
        entrypoint=(_PROGRAM,),
        command=("gateway", "--host", "0.0.0.0"),  # noqa: S104 -- a container's own network
        user=root_files.USER,
        environment={
            "PATH": HOME,
            "HOME": f"/{root_files.DATA}",
            "STATE_DIRECTORY": f"/{root_files.DATA}",
            "SSL_CERT_FILE": f"/{root_files.AUTHORITIES}",
        },
        port=_PORT,
        volume=f"/{root_files.DATA}",
        health=(_PROGRAM, "health"),
        labels={
            "org.opencontainers.image.title": "Engram",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "MIT",
        },
    )


def build(target: Path, variant: Variant) -> Image:
    """Write layout, bundle, SBOM and digest into the folder `target`, replacing what is there. Raises ContentsError."""
    staging, version = target / ".staging", distributions.version()
    shutil.rmtree(staging, ignore_errors=True)
    try:
        folder = packed(variant, staging)
        layers = (
            Layer(name="root", entries=ordered(root_files.entries())),
            Layer(name="engram", entries=ordered(placed(folder, HOME))),
        )
        built = image.write(target, recipe(version), layers, BUNDLE)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    subject = Subject(kind="container", reference="image", name="engram")
    document = sbom.document(built.digest, version, folder.packages, folder.libraries, subject, folder.app)
    (target / SBOM).write_bytes(sbom.encode(document))
    (target / image.DIGEST).write_text(f"{built.digest}\n", encoding="ascii")
    return built


def main(arguments: Sequence[str]) -> int:
    """Build into the folder that is named and print the digest; 2 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m shipping.gateway_image", description=__doc__)
    parser.add_argument("target", type=Path, help="the folder to write into")
    parser.add_argument("--full", action="store_true", help="with the libraries and models of nodes")
    given = parser.parse_args(arguments)
    try:
        built = build(given.target, Variant.FULL if given.full else Variant.GATEWAY)
    except ContentsError as error:
        print(f"the image cannot be built: {error}", file=sys.stderr)
        return 2
    print(f"{given.target / BUNDLE}: {built.size / 1e6:.0f} MB, load it by `docker load -i`", file=sys.stderr)
    print(built.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
