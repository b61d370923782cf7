"""The Debian package: what is in it, and what its scripts do in a root of their own."""

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
SCRIPTS = Path(__file__).parents[2] / "deploy" / "debian"


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


def script(name: str, root: Path, version: str, *arguments: str) -> None:
    """Run a script of the package on folders below `root`, without users and services."""
    text = (SCRIPTS / name).read_text().replace("@VERSION@", version)
    text = text.replace("/usr/lib/engram", str(root / "lib")).replace("/run/systemd/system", str(root / "no-systemd"))
    text = text.replace("/var/lib/engram", str(root / "data"))
    stubs = root / "stubs"
    stubs.mkdir(exist_ok=True)
    for stub in ("getent", "useradd", "install"):
        (stubs / stub).write_text("#!/bin/sh\nexit 0\n")
        (stubs / stub).chmod(0o755)
    environ = {"PATH": f"{stubs}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", text, name, *arguments], env=environ, check=True)


def installed(root: Path, version: str) -> Path:
    """What dpkg puts there of a version."""
    home = root / "lib" / version
    home.mkdir(parents=True)
    (home / "build.json").write_text("{}")
    shutil.copy(shutil.which("sleep") or "/bin/sleep", home / "engram")
    return home


def upgraded(root: Path, old: str, new: str) -> None:
    """What dpkg does: prerm of the old version, files, postinst of the new one."""
    script("prerm", root, old, "upgrade", new)
    shutil.rmtree(root / "lib" / old)
    installed(root, new)
    script("postinst", root, new, "configure", old)


def test_a_version_stays_while_something_runs_from_it_and_one_for_the_way_back(tmp_path: Path) -> None:
    home = installed(tmp_path, "1.0.0")
    with subprocess.Popen([str(home / "engram"), "600"]) as node:
        upgraded(tmp_path, "1.0.0", "2.0.0")
        assert (home / "build.json").exists()
        upgraded(tmp_path, "2.0.0", "3.0.0")
        assert sorted(path.name for path in (tmp_path / "lib").iterdir()) == ["1.0.0", "2.0.0", "3.0.0"]
        node.kill()
    upgraded(tmp_path, "3.0.0", "4.0.0")
    assert sorted(path.name for path in (tmp_path / "lib").iterdir()) == ["3.0.0", "4.0.0"]


def test_the_same_version_again_keeps_one_folder(tmp_path: Path) -> None:
    installed(tmp_path, "1.0.0")
    upgraded(tmp_path, "1.0.0", "1.0.0")
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["1.0.0"]


def test_removing_the_package_leaves_the_data(tmp_path: Path) -> None:
    installed(tmp_path, "1.0.0")
    (tmp_path / "data").mkdir()
    script("prerm", tmp_path, "1.0.0", "remove")
    script("postrm", tmp_path, "1.0.0", "purge")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "stubs"]
