"""An image as an OCI layout (image-spec 1.1), and one tar file of it that Docker and Podman load."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shipping import archive
from shipping.archive import Blob

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
CREATED: Final = "1970-01-01T00:00:00Z"
"""Every build says the same, or no two would have one digest."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_NANOSECOND: Final = 1_000_000_000


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a container of the image runs."""

    name: str
    """Repository and tag, as engines show it."""
    entrypoint: tuple[str, ...]
    user: int
    environment: Mapping[str, str]
    port: int
    volume: str
    health: tuple[str, ...]
    """The command that says by its exit status whether the container works."""
    labels: Mapping[str, str]
    command: tuple[str, ...] = ()
    """Arguments of the entry point, where a container is started without any."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What was built."""

    digest: str
    """Of the manifest: what a deployment pins."""
    config: str
    size: int
    """Bytes of all blobs, compressed."""
    layers: tuple[Blob, ...]


def write(folder: Path, recipe: Recipe, layers: Sequence[tuple[str, Blob]]) -> Image:
    """Write the layout around the layers, whose blobs are there already; return the image."""
    blobs = folder / "blobs" / "sha256"
    config = archive.put(_json(_config(recipe, layers)), blobs)
    manifest = archive.put(_json(_manifest(config, [blob for _, blob in layers])), blobs)
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": MANIFEST,
                "digest": manifest.digest,
                "size": manifest.size,
                "platform": {"architecture": architecture(), "os": "linux"},
                # Podman names an image by the first, containerd (and Docker on it) by the second.
                "annotations": {
                    "org.opencontainers.image.ref.name": recipe.name,
                    "io.containerd.image.name": f"docker.io/library/{recipe.name}",
                },
            }
        ],
    }
    loaded = [{"Config": _place(config), "RepoTags": [recipe.name], "Layers": [_place(blob) for _, blob in layers]}]
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (folder / "index.json").write_bytes(_json(index))
    (folder / "manifest.json").write_bytes(_json(loaded))
    size = manifest.size + config.size + sum(blob.size for _, blob in layers)
    return Image(digest=manifest.digest, config=config.digest, size=size, layers=tuple(blob for _, blob in layers))


def bundle(folder: Path, image: Image, target: Path) -> None:
    """Write the layout as one tar file, for `docker load` (its manifest.json), `podman load` and `skopeo copy`."""
    blobs = [image.digest, image.config, *(blob.digest for blob in image.layers)]
    names = [f"blobs/sha256/{digest.removeprefix('sha256:')}" for digest in blobs]
    archive.bundle(folder, ["oci-layout", "index.json", "manifest.json", *names], target)


def architecture() -> str:
    """Return this machine's processor, as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def _config(recipe: Recipe, layers: Sequence[tuple[str, Blob]]) -> dict[str, object]:
    return {
        "created": CREATED,
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": f"{recipe.user}:{recipe.user}",
            "ExposedPorts": {f"{recipe.port}/tcp": {}},
            "Env": [f"{name}={value}" for name, value in sorted(recipe.environment.items())],
            "Entrypoint": list(recipe.entrypoint),
            **({"Cmd": list(recipe.command)} if recipe.command else {}),
            "Volumes": {recipe.volume: {}},
            "WorkingDir": recipe.volume,
            "Labels": dict(sorted(recipe.labels.items())),
            "StopSignal": "SIGTERM",
            # Not in the OCI specification, which allows more fields; engines with Docker's format read it.
            "Healthcheck": {
                "Test": ["CMD", *recipe.health],
                "Interval": 15 * _NANOSECOND,
                "Timeout": 5 * _NANOSECOND,
                "StartPeriod": 60 * _NANOSECOND,
                "Retries": 3,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for _, blob in layers]},
        "history": [{"created": CREATED, "created_by": f"shipping: {name}"} for name, _ in layers],
    }


def _manifest(config: Blob, layers: Sequence[Blob]) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": LAYER, "digest": blob.digest, "size": blob.size} for blob in layers],
    }


def _place(blob: Blob) -> str:
    return f"blobs/sha256/{blob.digest.removeprefix('sha256:')}"


def _json(document: object) -> bytes:
    return msgspec.json.encode(document)
