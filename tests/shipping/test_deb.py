"""The Debian package: what is in it, and that its program runs at its place."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shipping import deb
from shipping.folder import Variant

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.heavy,
    pytest.mark.external,
    pytest.mark.xdist_group("binary"),
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deb.build(tmp_path_factory.mktemp("deb") / "engram.deb", Variant.GATEWAY)


def field(package: Path, name: str) -> str:
    command = ["dpkg-deb", "--field", str(package), name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_package_has_the_program_its_units_its_manual_and_its_completions(package: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=5) for line in listed.splitlines()]
    assert {(line[1], line[3], line[4]) for line in lines} == {("root/root", "1970-01-01", "00:00")}
    files = {line[5].removeprefix("./") for line in lines}
    version = field(package, "Version")
    assert f"usr/bin/engram -> ../lib/engram/{version}/engram" in files
    assert {
        f"usr/lib/engram/{version}/build.json",
        "lib/systemd/system/engram-gateway.service",
        "lib/systemd/system/engram-gateway.socket",
        "lib/systemd/system/engram-miner@.service",
        "usr/share/man/man1/engram.1.gz",
        "usr/share/bash-completion/completions/engram",
        "usr/share/zsh/vendor-completions/_engram",
        "usr/share/fish/vendor_completions.d/engram.fish",
        "etc/engram/engram.toml",
    } <= files
    assert (field(package, "Package"), field(package, "Depends")) == ("engram", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to put a folder at a fixed place")
def test_the_program_of_the_package_runs_at_its_place(package: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    subprocess.run(["dpkg-deb", "--extract", str(package), str(tree)], check=True)
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "usr").mkdir()
    shutil.move(tree / "usr" / "lib", root / "usr" / "lib")
    shutil.move(tree / "usr" / "bin", root / "usr" / "bin")
    run = 'mount -t proc none "$1/proc" && exec chroot "$1" /usr/bin/engram --version'
    command = ["unshare", "-m", "bash", "-c", run, "bash", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, field(package, "Version")), done.stderr
