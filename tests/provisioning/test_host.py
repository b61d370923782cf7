"""What this machine can hold and enforce, and which backend the settings give."""

import socket
from pathlib import Path

import pytest

from config.model import ProvisioningSettings, Settings
from engram.provisioning import UnknownBackend, capacity, cgroups, processes
from engram.provisioning.backends import make_backend

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


@pytest.mark.parametrize("name", ["docker", "akash"])
def test_a_backend_that_is_not_there_is_a_clear_configuration_error(tmp_path: Path, name: str) -> None:
    settings = Settings(provisioning=ProvisioningSettings(backend=name))  # type: ignore[arg-type]  # a literal
    with pytest.raises(UnknownBackend, match=r"set provisioning\.backend to 'local'"):
        make_backend(settings, tmp_path, "0123abcd", Path("run.py"))


async def test_the_local_backend_offers_what_the_settings_allow(tmp_path: Path) -> None:
    settings = Settings(provisioning=ProvisioningSettings(places=1, first_port=19_000))
    backend = make_backend(settings, tmp_path, "0123abcd", Path("run.py"))
    offers = await backend.offers()
    assert (offers.backend, offers.places, offers.first_port, offers.port_count) == ("local", 1, 19_000, 1_000)


async def test_ports_that_somebody_listens_on_are_known() -> None:
    for address, family in (("127.0.0.1", socket.AF_INET), ("0.0.0.0", socket.AF_INET)):
        with socket.create_server((address, 0), family=family) as server:
            port = server.getsockname()[1]
            assert port in await processes.listening_ports()
        assert port not in await processes.listening_ports()


def a_delegated_group(tmp_path: Path, controllers: str) -> tuple[Path, Path]:
    mounted = tmp_path / "cgroup"
    (mounted / "engram" / "gateway").mkdir(parents=True)
    (mounted / "engram" / "cgroup.subtree_control").write_text(controllers, encoding="ascii")
    own = tmp_path / "own"
    own.write_text("12:cpu:/x\n0::/engram/gateway\n", encoding="ascii")
    return mounted, own


def test_limits_are_set_where_a_group_is_delegated(tmp_path: Path) -> None:
    mounted, own = a_delegated_group(tmp_path, "cpu memory pids")
    groups = cgroups.find(mounted, own)
    assert groups is not None
    groups.confine("t", 42, 2 * GB, 2)
    group = mounted / "engram" / "engram-t"
    assert (group / "memory.max").read_text() == str(2 * GB)
    assert (group / "cpu.max").read_text() == "200000 100000"
    assert (group / "cgroup.procs").read_text() == "42"
    groups.remove("t")  # in use (it holds files here): left as it is
    assert group.exists()


def test_without_delegation_nothing_is_claimed(tmp_path: Path) -> None:
    mounted, own = a_delegated_group(tmp_path, "pids")
    assert cgroups.find(mounted, own) is None
    assert cgroups.find(mounted, tmp_path / "none") is None
    own.write_text("0::/gateway\n", encoding="ascii")
    (mounted / "cgroup.subtree_control").write_text("cpu memory", encoding="ascii")
    assert cgroups.find(mounted, own) is None
    own.write_text("1:cpu:/x\n", encoding="ascii")
    assert cgroups.find(mounted, own) is None


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
