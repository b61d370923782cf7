"""The image itself: built twice it is one, and a node lives in it with no other file of the machine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.hotkeys import Keypair
from shipping import image, interpreter

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("image")]

RUN = """
ip link set lo up 2>/dev/null
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"
mount -t tmpfs none "$1/dev" && mknod -m 666 "$1/dev/null" c 1 3 && mknod -m 666 "$1/dev/urandom" c 1 9
mount -t proc none "$1/proc" && mount -t tmpfs none "$1/data" && chown 65532:65532 "$1/data"
set -- "$(command -v chroot)" --userspec=65532:65532 "$1" "$2" -P -m
"$@" engram.miner &
node=$!
for _ in $(seq 300); do
    "$@" engram.miner.container_health && healthy=yes && break
    sleep 0.1
done
kill -TERM "$node"; wait "$node"; status=$?
echo "healthy=$healthy status=$status"
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("image")
    build(folder)
    yield folder
    shutil.rmtree(folder)


def build(folder: Path) -> str:
    command = [sys.executable, "-m", "shipping", str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=600)
    return done.stdout.strip()


def document(folder: Path, digest: str) -> Any:
    return json.loads((folder / "oci" / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes())


def test_two_builds_have_one_digest(built: Path, tmp_path: Path) -> None:
    digest = build(tmp_path)
    assert digest == (built / image.DIGEST).read_text().strip()
    for name in (image.BUNDLE, image.SBOM):
        hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (built, tmp_path)]
        assert hashes[0] == hashes[1]
    shutil.rmtree(tmp_path)


def test_every_blob_is_what_its_name_says(built: Path) -> None:
    for blob in (built / "oci" / "blobs" / "sha256").iterdir():
        with blob.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == blob.name
    index = json.loads((built / "oci" / "index.json").read_bytes())
    manifest = document(built, index["manifests"][0]["digest"])
    config = document(built, manifest["config"]["digest"])
    assert config["config"]["User"] == "65532:65532"
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"])


def test_the_bill_of_materials_names_packages_libraries_and_weights(built: Path) -> None:
    bill = json.loads((built / image.SBOM).read_bytes())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    names = {component["name"] for component in bill["components"]}
    assert {"cpython", "trio", "onnxruntime", "libc.so.6", "libssl.so.3"} <= names
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(references) == len(set(references))
    assert not [name for name in names if "readline" in name or "gdbm" in name]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare for a bare root")
def test_a_node_becomes_healthy_on_a_root_that_cannot_be_written_and_ends_cleanly(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o755)
    index = json.loads((built / "oci" / "index.json").read_bytes())
    manifest = document(built, index["manifests"][0]["digest"])
    for layer in manifest["layers"]:
        with tarfile.open(built / "oci" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")) as tar:
            tar.extractall(root, filter="fully_trusted")
    config = document(built, manifest["config"]["digest"])["config"]
    told = dict(variable.split("=", 1) for variable in config["Env"]) | {
        "ENGRAM_NODE_SESSION_ID": "s1",
        "ENGRAM_NODE_LAUNCH_TOKEN": "t1",
        "ENGRAM_NODE_HOTKEY": Keypair.from_uri("//Charlie").ss58,
        "ENGRAM_NODE_CONTROLLER_PUBLIC_KEY": Keypair.from_uri("//Dave").ss58,
        "PATH": f"{os.environ['PATH']}:/opt/engram/bin",
    }
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "-nm", "bash", "-c", RUN, "bash", str(root), f"/{interpreter.PROGRAM}"],
        env=told,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "healthy=yes status=0" in done.stdout, done.stderr[-2_000:]
    assert time.monotonic() - began < 60
    shutil.rmtree(root)
