"""The units of systemd: complete, confined, and with the names that the program reads."""

import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

import config
from engram.provisioning import cgroups

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
MOST_EXPOSED = 1.5


def unit(name: str) -> ConfigParser:
    """A unit; of settings that are repeated, the last."""
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # names of systemd have capitals
    parser.read(UNITS / name)
    return parser


@pytest.mark.external
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)")
@pytest.mark.parametrize("name", ["engram-gateway.service", "engram-miner@.service"])
def test_a_service_is_exposed_little(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", shown)
    assert found is not None, shown
    assert float(found[1]) <= MOST_EXPOSED


def test_the_socket_has_the_name_by_which_the_gateways_listener_takes_it() -> None:
    socket = unit("engram-gateway.socket")["Socket"]
    assert (socket["FileDescriptorName"], socket["Service"]) == ("gateway", "engram-gateway.service")


def test_commands_that_are_given_the_packages_settings_mean_the_folder_of_the_service() -> None:
    settings = config.load(files=[UNITS.parent / "debian" / "engram.toml"], environ={}).settings
    assert settings.data_dir == f"/var/lib/{unit('engram-gateway.service')['Service']['StateDirectory']}"


def test_the_socket_is_for_this_machine_alone_until_the_operator_says_otherwise() -> None:
    assert unit("engram-gateway.socket")["Socket"]["ListenStream"] == "127.0.0.1:9000"


@pytest.mark.parametrize("name", ["engram-gateway.service", "engram-miner@.service"])
def test_a_service_says_when_it_is_ready_and_is_restarted_when_it_hangs_but_not_when_it_cannot_start(name: str) -> None:
    service = unit(name)["Service"]
    assert (service["Type"], service["NotifyAccess"], service["WatchdogSec"]) == ("notify", "main", "30s")
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")


def test_nodes_outlive_the_gateway_in_groups_of_their_own() -> None:
    service = unit("engram-gateway.service")["Service"]
    assert (service["KillMode"], service["OOMPolicy"]) == ("process", "continue")
    assert (service["Delegate"], service["DelegateSubgroup"]) == ("memory cpu", "gateway")
    assert "PrivateUsers" not in service  # or the next process does not see them


@pytest.mark.parametrize("made", [True, False], ids=["by the gateway", "by systemd"])
def test_controllers_are_taken_back_where_the_gateway_has_made_its_own_group(tmp_path: Path, made: bool) -> None:
    service = unit("engram-gateway.service")["Service"]
    name, leaf = service["Environment"].split("=")
    assert name == cgroups.LEAF_VARIABLE
    group = tmp_path / "system.slice/engram-gateway.service"
    group.joinpath(leaf if made else service["DelegateSubgroup"]).mkdir(parents=True)
    (group / "cgroup.subtree_control").write_text("cpu memory\n")
    (tmp_path / "own").write_text("0::/system.slice/engram-gateway.service/.control\n")
    words = shlex.split(service["ExecStopPost"].removeprefix("-").replace("$$", "$").replace("%%", "%"))
    script = words[-1].replace("/proc/self/cgroup", str(tmp_path / "own")).replace("/sys/fs/cgroup", str(tmp_path))
    subprocess.run([*words[:-1], script], check=True)
    left = (group / "cgroup.subtree_control").read_text()
    assert left == ("-memory -cpu\n" if made else "cpu memory\n")


def test_a_weekly_restart_is_an_option_of_miners() -> None:
    assert "\n#RuntimeMaxSec=7d\n" in (UNITS / "engram-miner@.service").read_text()
    assert "RuntimeMaxSec" not in unit("engram-miner@.service")["Service"]
