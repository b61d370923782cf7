"""What the Debian package's scripts do, in a root of their own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.shipping.test_units import UNITS

pytestmark = pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg")
SCRIPTS = Path(__file__).parents[2] / "deploy" / "debian"


def script(name: str, root: Path, version: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the package on folders below `root`, without users; services are those of a `systemctl` there."""
    text = (SCRIPTS / name).read_text().replace("@VERSION@", version)
    text = text.replace("/usr/lib/engram", str(root / "lib")).replace("/run/systemd/system", str(root / "systemd"))
    text = text.replace("/var/cache/engram", str(root / "cache")).replace("/etc/systemd", str(root / "etc"))
    text = text.replace("/var/lib/engram", str(root / "data")).replace("/lib/systemd/system", str(UNITS))
    stubs = root / "stubs"
    stubs.mkdir(exist_ok=True)
    for stub in ("getent", "useradd", "install"):
        (stubs / stub).write_text("#!/bin/sh\nexit 0\n")
        (stubs / stub).chmod(0o755)
    environ = {"PATH": f"{stubs}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-c", text, name, *arguments], env=environ, capture_output=True, text=True, check=name != "postinst"
    )


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
    assert script("postinst", root, new, "configure", old).returncode == 0


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


def test_on_the_way_back_the_next_stop_still_takes_the_controllers_back(tmp_path: Path) -> None:
    left = tmp_path / "systemd/engram-gateway.service.d/groups.conf"
    (tmp_path / "systemd").mkdir()
    installed(tmp_path, "2.0.0")
    script("prerm", tmp_path, "2.0.0", "upgrade", "3.0.0")
    assert not left.exists()
    script("prerm", tmp_path, "2.0.0", "upgrade", "1.0.0")
    lines = (UNITS / "engram-gateway.service").read_text().splitlines()
    assert left.read_text().splitlines() == [
        "[Service]",
        *(line for line in lines if line.startswith("ExecStopPost=")),
    ]


def test_removing_the_package_leaves_the_data(tmp_path: Path) -> None:
    installed(tmp_path, "1.0.0")
    (tmp_path / "data").mkdir()
    script("prerm", tmp_path, "1.0.0", "remove")
    script("postrm", tmp_path, "1.0.0", "purge")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "stubs"]


def test_a_version_that_nodes_run_from_outlives_the_package_and_is_named(tmp_path: Path) -> None:
    home = installed(tmp_path, "1.0.0")
    installed(tmp_path, "0.9.0")
    with subprocess.Popen([str(home / "engram"), "600"]) as node:
        script("prerm", tmp_path, "1.0.0", "remove")
        shutil.rmtree(home)  # as dpkg does
        said = script("postrm", tmp_path, "1.0.0", "remove").stderr
        left = sorted(str(path.relative_to(tmp_path / "lib")) for path in (tmp_path / "lib").rglob("*"))
        node.kill()
    assert f"nodes of sold sessions run from {home}, which stays" in said
    assert left == ["1.0.0", "1.0.0/build.json", "1.0.0/engram"]
    assert script("postrm", tmp_path, "1.0.0", "purge").stderr == ""
    assert not (tmp_path / "lib").exists()


def test_a_purge_disables_the_units(tmp_path: Path) -> None:
    wants = tmp_path / "etc/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for unit in ("engram-gateway.service", "engram-miner@a.service", "other.service"):
        (wants / unit).symlink_to("/nowhere")
    script("postrm", tmp_path, "1.0.0", "remove")
    assert len(list(wants.iterdir())) == 3
    script("postrm", tmp_path, "1.0.0", "purge")
    assert [path.name for path in wants.iterdir()] == ["other.service"]


def configured(root: Path, *, active: bool, accepts: bool, starts: bool) -> tuple[int, list[str], str]:
    """Exit status of postinst where systemd runs, what the program and systemd were asked for, and what it says."""
    (root / "systemd").mkdir()
    (root / "stubs").mkdir()
    calls = root / "calls"
    home = root / "lib" / "2.0.0"
    home.mkdir(parents=True)
    program, systemctl = home / "engram", root / "stubs" / "systemctl"
    program.write_text(f"#!/bin/sh\necho engram $1 $2 >> {calls}\nexit {int(not accepts)}\n")
    systemctl.write_text(
        f"#!/bin/sh\necho $1 >> {calls}\ncase $1 in\n"
        f"is-active) exit {3 * (not active)};;\nrestart) exit {int(not starts)};;\nesac\n"
    )
    for file in (program, systemctl):
        file.chmod(0o755)
    done = script("postinst", root, "2.0.0", "configure", "1.0.0")
    return done.returncode, calls.read_text().splitlines(), done.stderr


LOOKS = ["daemon-reload", "is-active", "engram upgrade --check"]


def test_a_service_that_runs_is_restarted_once_the_new_version_has_looked_at_its_ledger(tmp_path: Path) -> None:
    assert configured(tmp_path, active=True, accepts=True, starts=True) == (0, [*LOOKS, "restart"], "")


def test_a_version_that_refuses_the_ledger_is_not_started_and_the_package_says_so(tmp_path: Path) -> None:
    status, calls, said = configured(tmp_path, active=True, accepts=False, starts=True)
    assert (status, calls, "the version before still runs" in said) == (1, LOOKS, True)


def test_a_version_that_does_not_get_ready_is_told_with_the_way_back(tmp_path: Path) -> None:
    status, calls, said = configured(tmp_path, active=True, accepts=True, starts=False)
    assert (status, calls, "The way back" in said) == (1, [*LOOKS, "restart"], True)


def test_a_service_that_does_not_run_is_not_started(tmp_path: Path) -> None:
    assert configured(tmp_path, active=False, accepts=True, starts=True) == (0, LOOKS[:2], "")
