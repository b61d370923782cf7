"""The package and its units on a Debian machine with a systemd of its own: installed, run, ended and removed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.buyer import Buyer
from tests.shared import free_port
from tests.shipping import machine
from tests.shipping.asking import Asking
from tests.shipping.machine import Machine

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.external,
    pytest.mark.nightly,
    pytest.mark.xdist_group("binary"),
    pytest.mark.skipif(not machine.POSSIBLE, reason="needs root, overlayfs and systemd (Debian: systemd)"),
]
SERVICE = "engram-gateway.service"
SETTINGS = """
[miner]
embedder = "hash"
[http]
requests_per_minute_per_ip = 0
requests_per_minute_per_hotkey = 0
[shutdown]
nodes = "keep"
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with everything; ENGRAM_DEB_UNDER_TEST names one that is built already."""
    if named := os.environ.get("ENGRAM_DEB_UNDER_TEST"):
        return Path(named)
    target = tmp_path_factory.mktemp("deb") / "engram.deb"
    subprocess.run([sys.executable, "-m", "shipping.deb", str(target)], check=True, cwd=Path(__file__).parents[2])
    return target


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which the package was installed and set up, by what docs/install.md says."""
    folder = tmp_path_factory.mktemp("machine") / "machine"
    with machine.started(folder) as there:
        (there.root / "run/engram.deb").write_bytes(package.read_bytes())
        there.run("dpkg", "-i", "/run/engram.deb")
        (there.root / "run/engram.deb").unlink()
        yield there


class Service:
    """The gateway's service on a port of this run."""

    def __init__(self, there: Machine) -> None:
        self.port, ops_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.there = there
        self.drop_in("engram-gateway.socket", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{self.port}\n")
        (there.root / "etc/engram/environment").write_text("ENGRAM_ENV=local\n")
        (there.root / "etc/engram/engram.toml").write_text(f"{SETTINGS}[ops]\nport = {ops_port}\n")
        there.run("systemctl", "daemon-reload")

    def drop_in(self, unit: str, text: str) -> None:
        folder = self.there.root / f"etc/systemd/system/{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(text)

    @property
    def pid(self) -> int:
        return int(self.there.shows(SERVICE, "MainPID"))

    def hotkey(self) -> str:
        """Of the gateway, as phones are shown it."""
        with urlopen(f"{self.url}/identity") as answer:
            return str(json.load(answer)["hotkey"])

    def nodes(self) -> list[int]:
        """The processes of nodes, as that machine counts."""
        shown = self.there.run("pgrep", "-f", "--", "--engram-child engram.miner$|engram.miner ", check=False)
        return sorted(map(int, shown.split()))

    def restarted_after(self, pid: int) -> int:
        """Wait for another main process that serves."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.pid not in (0, pid) and self.there.shows(SERVICE, "ActiveState") == "active":
                return self.pid
        raise AssertionError(self.there.run("journalctl", "-u", SERVICE, "--no-pager"))


@pytest.fixture(scope="module")
def service(installed: Machine) -> Service:
    found = Service(installed)
    installed.run("systemctl", "enable", "--now", "engram-gateway.socket", SERVICE)
    return found


def test_the_package_brings_program_user_units_manual_and_completions(installed: Machine, package: Path) -> None:
    version = subprocess.run(["dpkg-deb", "-f", str(package), "Version"], capture_output=True, text=True, check=True)
    assert installed.run("engram", "--version") == version.stdout.strip()
    assert installed.run("dpkg", "--verify", "engram") == ""
    assert installed.run("getent", "passwd", "engram").endswith(":/var/lib/engram:/usr/sbin/nologin")
    assert installed.run("stat", "-c", "%U %a", "/var/lib/engram") == "engram 700"
    verified = installed.run("systemd-analyze", "verify", SERVICE, "engram-gateway.socket", "engram-miner@a.service")
    assert [line for line in verified.splitlines() if "'DelegateSubgroup'" not in line] == []  # of systemd 254
    listed = installed.run("systemctl", "list-unit-files", "--no-legend", "--plain", "engram*")
    assert {line.split()[0] for line in listed.splitlines()} == {
        SERVICE,
        "engram-gateway.socket",
        "engram-miner@.service",
    }
    assert "engram" in installed.run("sh", "-c", "zcat /usr/share/man/man1/engram.1.gz | man -l -P cat - | head -20")
    complete = "source /usr/share/bash-completion/completions/engram; complete -p engram"
    assert installed.run("bash", "-c", complete).endswith(" engram")
    done = installed.run("runuser", "-u", "engram", "--", "env", "HOME=/var/lib/engram", "engram", "demo")
    assert '"demo":"ok"' in done.replace(" ", "").splitlines()[-1]


def test_it_is_started_when_it_serves_and_says_where(service: Service) -> None:
    assert service.there.shows(SERVICE, "ActiveState") == "active"
    assert service.there.shows(SERVICE, "StatusText").startswith("gateway http")
    assert "200" in service.there.run("engram", "health", "--config", "/etc/engram/engram.toml")


def test_it_runs_confined_as_its_own_user(service: Service) -> None:
    status = (Path("/proc") / str(service.there.outer(service.pid)) / "status").read_text()
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (found["Seccomp"], found["NoNewPrivs"], found["CapEff"]) == ("2", "1", "0" * 16)
    assert service.there.run("ps", "-o", "user=", "-p", str(service.pid)) == "engram"


def test_a_session_outlives_its_gateway_which_systemd_starts_again(service: Service) -> None:
    buyer = Buyer()
    buyer.quote(service.url)
    session = buyer.pay(service.url, timeout=60).body["session_id"]
    buyer.wait(service.url, session, "active", timeout=90)
    nodes, before = service.nodes(), service.pid
    assert len(nodes) == 1
    os.kill(service.there.outer(before), signal.SIGKILL)
    after = service.restarted_after(before)
    assert service.there.shows(SERVICE, "NRestarts") == "1"
    assert buyer.wait(service.url, session, "active", timeout=60)["status"] == "active"
    assert service.nodes() == nodes
    assert buyer.stop(service.url, session).status == 200
    buyer.wait(service.url, session, "stopped", timeout=60)
    assert (service.nodes(), service.pid) == ([], after)


def test_a_loop_that_hangs_is_restarted(service: Service) -> None:
    service.drop_in(SERVICE, "[Service]\nWatchdogSec=3s\n")
    service.there.run("systemctl", "daemon-reload")
    service.there.run("systemctl", "restart", SERVICE)
    before = service.pid
    os.kill(service.there.outer(before), signal.SIGSTOP)
    service.restarted_after(before)
    assert "Watchdog timeout (limit 3s)!" in service.there.run("journalctl", "-u", SERVICE, "--no-pager")


def test_restarts_refuse_and_lose_no_request(service: Service) -> None:
    askers = [Asking(service.port) for _ in range(4)]
    for asker in askers:
        asker.start()
    for _ in range(3):
        before = [asker.answers for asker in askers]
        service.there.run("systemctl", "restart", SERVICE)
        while any(asker.answers == count for asker, count in zip(askers, before, strict=True)):
            service.there.shows(SERVICE, "MainPID")
    for asker in askers:
        asker.stopped.set()
    for asker in askers:
        asker.join()
    assert [asker.failures for asker in askers] == [[], [], [], []]


def test_a_reload_keeps_the_process(service: Service) -> None:
    before = service.pid
    service.there.run("systemctl", "reload", SERVICE)
    assert (service.pid, service.there.shows(SERVICE, "ActiveState")) == (before, "active")


def test_a_credential_becomes_the_hotkey(service: Service) -> None:
    made = service.there.root / "var/lib/engram/gateway-hotkey"
    known = service.hotkey()
    service.there.run("systemctl", "stop", SERVICE)
    shutil.move(made, service.there.root / "etc/engram/gateway-hotkey")
    service.drop_in(SERVICE, "[Service]\nLoadCredential=gateway-hotkey:/etc/engram/gateway-hotkey\n")
    service.there.run("systemctl", "daemon-reload")
    service.there.run("systemctl", "start", SERVICE)
    assert (service.hotkey(), made.exists()) == (known, False)


def test_settings_that_cannot_be_used_are_no_reason_to_try_again(service: Service) -> None:
    settings = service.there.root / "etc/engram/engram.toml"
    settings.write_text("[gateway]\nport = -1\n")
    refused = service.there.run("systemctl", "restart", SERVICE, check=False)
    assert "failed" in refused
    assert service.there.shows(SERVICE, "ExecMainStatus") == "2"
    assert service.there.shows(SERVICE, "ActiveState") == "failed"
    settings.write_text(SETTINGS)


def test_the_package_goes_and_leaves_the_data(service: Service) -> None:
    there = service.there
    there.run("systemctl", "restart", SERVICE)
    there.run("dpkg", "-r", "engram")
    assert there.shows(SERVICE, "ActiveState") in ("inactive", "failed")
    assert not (there.root / "usr/lib/engram").exists()
    assert (there.root / "etc/engram/engram.toml").exists()
    there.run("dpkg", "-P", "engram")
    assert not (there.root / "etc/engram/engram.toml").exists()
    assert (there.root / "var/lib/engram/ledger.sqlite3").exists()
    assert there.run("sh", "-c", "dpkg -l engram; true").find("ii  engram") == -1
