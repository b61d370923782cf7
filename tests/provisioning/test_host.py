"""What this machine can hold and enforce, and which backend the settings give."""

import errno
import socket
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from config.model import ProvisioningSettings, Settings
from engram.provisioning import capacity, cgroups, processes
from engram.provisioning.backend_factory import BACKENDS, make_backends
from tests.provisioning.conftest import MakePorts

GB = 1024**3


@pytest.mark.parametrize(
    ("setting", "memory_gb", "cpus", "places"),
    [(0, 24, 2, 16), (0, 8, 8, 8), (0, 1, 1, 1), (5, 24, 2, 5), (100, 24, 2, 16)],
)
def test_places_are_what_fits_and_never_more_than_the_setting(
    setting: int, memory_gb: int, cpus: int, places: int
) -> None:
    assert capacity.places(setting, memory_gb * GB, cpus, 2 * GB) == places


def test_the_machines_memory_is_read(tmp_path: Path) -> None:
    assert capacity.memory_bytes() > 0
    small = tmp_path / "meminfo"
    small.write_text("MemTotal:        1000 kB\nMemFree: 1 kB\n", encoding="ascii")
    assert capacity.memory_bytes(small) == 1_024_000
    assert capacity.memory_bytes(tmp_path / "none") > 1_024_000


def test_every_backend_of_the_settings_has_a_row_with_its_section() -> None:
    assert get_args(get_type_hints(ProvisioningSettings)["backend"]) == tuple(BACKENDS)
    assert {row.section for row in BACKENDS.values()} <= {field.name for field in msgspec.structs.fields(Settings)}


async def test_the_local_backend_offers_what_the_settings_allow(backend_ports: MakePorts) -> None:
    settings = Settings(provisioning=ProvisioningSettings(places=1, first_port=19_000))
    offers = await make_backends(backend_ports(settings)).of("local").offers()
    assert (offers.backend, offers.places, offers.first_port, offers.port_count) == ("local", 1, 19_000, 1_000)


async def test_ports_that_somebody_listens_on_are_known() -> None:
    for address, family in (("127.0.0.1", socket.AF_INET), ("0.0.0.0", socket.AF_INET)):
        with socket.create_server((address, 0), family=family) as server:
            port = server.getsockname()[1]
            assert port in await processes.listening_ports()
        assert port not in await processes.listening_ports()


class Tree:
    """A copied cgroup tree, its marks, and the place of this process in it."""

    def __init__(self, folder: Path, place: str, *marked: str, mark: str = "user.delegate", handed_on: str) -> None:
        self.mounted = folder / "cgroup"
        (self.mounted / place.lstrip("/")).mkdir(parents=True)
        for group in (self.mounted, *(each for each in self.mounted.rglob("*") if each.is_dir())):
            (group / "cgroup.subtree_control").write_text(handed_on, encoding="ascii")
        self.own = folder / "own"
        self.own.write_text(f"12:cpu:/x\n0::{place}\n", encoding="ascii")
        self.marks = {(self.mounted / group, mark) for group in marked}

    def attribute(self, group: Path, name: str) -> bytes:
        if (group, name) not in self.marks:
            raise OSError(errno.ENODATA, "no such attribute")
        return b"1"

    def find(self, leaf: str = "") -> cgroups.NodeGroups | None:
        return cgroups.find(self.mounted, self.own, self.attribute, leaf)


UNIT = "system.slice/engram.service"


@pytest.mark.parametrize("mark", ["user.delegate", "trusted.delegate"])
def test_limits_are_set_where_a_group_is_delegated(tmp_path: Path, mark: str) -> None:
    tree = Tree(tmp_path, f"/{UNIT}/gateway", UNIT, mark=mark, handed_on="cpu memory pids")
    groups = tree.find()
    assert groups is not None
    groups.confine("t", [42], 2 * GB, 2)
    group = tree.mounted / UNIT / "engram-t"
    assert (group / "memory.max").read_text() == str(2 * GB)
    assert (group / "cpu.max").read_text() == "200000 100000"
    assert (group / "cgroup.procs").read_text() == "42"
    groups.remove("t")  # in use (it holds files here): left as it is
    assert group.exists()


def test_controllers_that_a_delegated_group_has_are_handed_on(tmp_path: Path) -> None:
    tree = Tree(tmp_path, f"/{UNIT}/gateway", UNIT, handed_on="pids cpu")
    assert tree.find() is not None
    assert (tree.mounted / UNIT / "cgroup.subtree_control").read_text() == "+memory"
    assert (tree.mounted / "system.slice" / "cgroup.subtree_control").read_text() == "pids cpu"


@pytest.mark.parametrize(
    ("place", "marked"),
    [
        (f"/{UNIT}", ()),  # no delegation at all: the parent is system.slice
        (f"/{UNIT}", (UNIT,)),  # systemd below 254: DelegateSubgroup= is ignored, the parent is system.slice
        (f"/{UNIT}/gateway", ()),  # a leaf of a group that is not ours
        (f"/{UNIT}/gateway", ("system.slice",)),
        (f"/{UNIT}/gateway/deeper", (UNIT,)),
        ("/gateway", ("",)),  # the root of the tree
        ("/", ("",)),
        ("/../outside/gateway", ("../outside",)),
        ("/user.slice/user-0.slice/session-1.scope", ()),
    ],
)
def test_a_group_that_was_not_delegated_to_us_is_left_alone(
    tmp_path: Path, place: str, marked: tuple[str, ...]
) -> None:
    tree = Tree(tmp_path, place, *marked, handed_on="cpu memory")
    before = {path: path.read_text() for path in tree.mounted.rglob("cgroup.*")}
    assert tree.find() is None
    assert {path: path.read_text() for path in tree.mounted.rglob("cgroup.*")} == before


def test_where_no_leaf_is_made_for_it_the_gateway_makes_its_own_and_takes_along_what_is_there(tmp_path: Path) -> None:
    tree = Tree(tmp_path, f"/{UNIT}", UNIT, handed_on="")
    unit = tree.mounted / UNIT
    (unit / "cgroup.controllers").write_text("cpu io memory pids\n")
    (unit / "cgroup.procs").write_text("41\n42\n")
    groups = tree.find(leaf="main")
    assert groups is not None
    assert (unit / "main/cgroup.procs").read_text() == "42"
    assert (unit / "cgroup.subtree_control").read_text() == "+cpu +memory"
    groups.confine("t", [42], 2 * GB, 0)  # found again, of an older version
    assert (unit / "engram-t/memory.max").read_text() == str(2 * GB)
    assert not (unit / "engram-t/cpu.max").exists()


@pytest.mark.parametrize(
    ("leaf", "controllers", "marked"),
    [
        ("", "cpu memory", UNIT),  # its unit does not say that it takes the controllers back
        ("../main", "cpu memory", UNIT),
        ("main", "cpu pids", UNIT),
        ("main", "cpu memory", "system.slice"),
    ],
)
def test_no_leaf_is_made_elsewhere(tmp_path: Path, leaf: str, controllers: str, marked: str) -> None:
    tree = Tree(tmp_path, f"/{UNIT}/deeper/own", f"{UNIT}/deeper/own" if marked == UNIT else marked, handed_on="")
    (tree.mounted / UNIT / "deeper/own/cgroup.controllers").write_text(controllers)
    before = sorted(tree.mounted.rglob("*"))
    assert tree.find(leaf=leaf) is None
    assert sorted(tree.mounted.rglob("*")) == before


def test_a_leaf_that_the_manager_has_made_is_kept(tmp_path: Path) -> None:
    tree = Tree(tmp_path, f"/{UNIT}/gateway", UNIT, handed_on="cpu memory")
    assert tree.find(leaf="main") is not None
    assert not (tree.mounted / UNIT / "gateway/main").exists()


def test_a_leaf_that_cannot_be_entered_leaves_limits_unset(tmp_path: Path) -> None:
    tree = Tree(tmp_path, f"/{UNIT}", UNIT, handed_on="")
    (tree.mounted / UNIT / "cgroup.controllers").write_text("cpu memory")
    (tree.mounted / UNIT / "cgroup.procs").write_text("41\n")
    (tree.mounted / UNIT / "main/cgroup.procs").mkdir(parents=True)
    assert tree.find(leaf="main") is None


def test_without_cgroups_of_version_2_nothing_is_claimed(tmp_path: Path) -> None:
    tree = Tree(tmp_path, f"/{UNIT}/gateway", UNIT, handed_on="cpu memory")
    assert cgroups.find(tree.mounted, tmp_path / "none", tree.attribute) is None
    (tree.mounted / UNIT / "cgroup.subtree_control").unlink()
    (tree.mounted / UNIT / "cgroup.subtree_control").mkdir()
    assert tree.find() is None
    tree.own.write_text("1:cpu:/x\n", encoding="ascii")
    assert tree.find() is None


def test_this_machines_own_group_is_asked_for_its_mark(tmp_path: Path) -> None:
    tree = Tree(tmp_path, f"/{UNIT}/gateway", UNIT, handed_on="cpu memory")
    assert cgroups.find(tree.mounted, tree.own) is None


async def test_a_process_that_is_not_there_is_dead_and_takes_no_signal() -> None:
    import signal

    boot = processes.boot_id()
    nobody = processes.ProcessId(2**22 - 1, 1, boot)
    assert not processes.is_alive(nobody, boot)
    assert processes.identify(nobody.pid, boot) is None
    await processes.wait_exit(nobody, boot)
    processes.signal_leader(nobody, signal.SIGTERM)
    assert processes.signal_session(nobody, signal.SIGTERM) == 0
    processes.reap(nobody.pid)
