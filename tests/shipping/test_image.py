"""The image itself: built twice it is one, and a node lives in it with no other file of the machine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipping import image
from tests.shipping import bare_root

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("image")]


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


def test_every_blob_is_what_its_name_says(built: Path) -> None:
    for blob in (built / "oci" / "blobs" / "sha256").iterdir():
        with blob.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == blob.name
    manifest = bare_root.manifest(built)
    config = bare_root.document(built, manifest["config"]["digest"])
    assert config["config"]["User"] == "65532:65532"
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"])
    check = config["config"]["Healthcheck"]
    assert check["Test"][0] == "CMD"
    assert check["Test"][1:][-2:] == ["-m", "engram.miner.container_health"]
    assert check["Interval"] > check["Timeout"] > 0
    assert check["Retries"] > 0


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
    bare_root.unpack(built, root)
    seconds, status = bare_root.run(built, root)
    assert (status, seconds < 60) == (0, True)
    shutil.rmtree(root)


@pytest.mark.nightly
def test_two_builds_have_one_digest(built: Path, tmp_path: Path) -> None:
    digest = build(tmp_path)
    assert digest == (built / image.DIGEST).read_text().strip()
    for name in (image.BUNDLE, image.SBOM):
        hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (built, tmp_path)]
        assert hashes[0] == hashes[1]
    shutil.rmtree(tmp_path)
