"""Reading through the real bindings from a library that behaves as NVML does."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engram.gpu import GpuInfo, nvml
from engram.gpu.model import Gpu, MigInstance, describe

Machine = Callable[[str], None]


def test_two_whole_gpus_are_read_with_the_keys_that_orchestrators_know(machine: Machine) -> None:
    machine("plain")
    info = nvml.look()
    assert (info.gpu_count, info.gpu_name, info.vram_gb) == (2, "NVIDIA H100 PCIe", 85.520809984)
    assert (info.vram_bytes, info.vram_gib) == (85_520_809_984, 79.65)
    assert (info.driver_version, info.cuda_version) == ("570.172.08", "12.8")
    assert info.reason is None
    first, second = info.gpus
    assert (first.uuid, second.uuid) == ("GPU-0", "GPU-1")
    assert (first.memory_free_bytes, first.utilization_percent, first.process_count) == (85_519_761_408, 42, 2)
    assert (first.mig_enabled, first.mig_instances, first.reasons) == (False, (), {})


def test_slices_of_a_gpu_are_listed_and_holes_between_them_skipped(machine: Machine) -> None:
    machine("mig")
    (gpu,) = nvml.look().gpus
    assert [(each.uuid, each.memory_total_bytes) for each in gpu.mig_instances] == [
        ("MIG-10", 10_200_547_328),
        ("MIG-11", 10_200_547_328),
    ]
    assert gpu.memory_total_bytes == 85_520_809_984
    assert gpu.reasons == {
        "utilization_percent": "Not Supported",
        "mig_instances[5]": "Insufficient Permissions",
    }


@pytest.mark.parametrize("name", ["mig", "slices"])
def test_a_machine_of_slices_publishes_the_first_slice_for_no_process_can_use_more(machine: Machine, name: str) -> None:
    machine(name)
    info = nvml.look()
    assert (info.gpu_count, info.gpu_name) == (1, "NVIDIA H100 PCIe MIG 1g.10gb")
    assert (info.vram_gb, info.vram_bytes, info.vram_gib) == (10.200547328, 10_200_547_328, 9.5)
    assert info.reason is None


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        ({"memory": "Not Supported", "mig_instances[3].name": "Unknown Error"}, "Unknown Error"),
        ({"name": "Not Supported"}, None),
    ],
)
def test_what_is_not_known_of_a_slice_is_null_with_the_slices_own_reason(
    reasons: dict[str, str], why: str | None
) -> None:
    gpu = Gpu(index=0, name="a GPU", mig_instances=(MigInstance(memory_total_bytes=5),), reasons=reasons)
    info = describe((gpu,), driver=None, cuda=None, reasons={})
    assert (info.gpu_name, info.vram_bytes) == (None, 5)
    assert info.reason == (None if why is None else f"GPU 0: name unknown: {why}")


def test_where_the_whole_gpu_may_not_be_read_its_memory_is_that_of_the_slices(machine: Machine) -> None:
    machine("slices")
    (gpu,) = nvml.look().gpus
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (20_401_094_656, 20_398_997_504)
    assert gpu.process_count is None
    assert gpu.reasons["memory"] == gpu.reasons["process_count"] == "Insufficient Permissions"


def test_an_old_driver_without_the_second_form_of_memory_is_read_by_the_first(machine: Machine) -> None:
    machine("old")
    gpu = nvml.look().gpus[0]
    assert (gpu.memory_total_bytes, gpu.process_count) == (85_520_809_984, 0)
    assert gpu.mig_enabled is None
    assert gpu.reasons == {"mig_enabled": "Not Supported"}


def test_a_gpu_that_falls_off_the_bus_keeps_its_place_with_the_reason(machine: Machine) -> None:
    machine("lost")
    info = nvml.look()
    assert info.gpu_count == 2
    assert (info.gpus[0].memory_total_bytes, info.gpus[0].reasons["memory"]) == (None, "GPU is lost")
    assert info.gpus[1].reasons == {"handle": "GPU is lost"}
    assert info.vram_gb is None


def test_a_library_that_is_not_the_drivers_is_named_as_the_reason(machine: Machine) -> None:
    machine("mismatch")
    info = nvml.look()
    assert (info.gpu_count, info.reason) == (0, "NVML does not open: RM has detected an NVML/RM version mismatch.")


def test_a_driver_that_shows_no_gpu_says_so(machine: Machine) -> None:
    machine("none")
    info = nvml.look()
    assert (info.gpu_count, info.driver_version) == (0, "570.172.08")
    assert info.reason == "the NVIDIA driver is here and shows no GPU to this process"


VANISHING = {1: "Uninitialized", 9: "Driver Not Loaded", 15: "GPU is lost", 999: "Unknown Error"}
"""What calls end with when a driver is unloaded, or a GPU falls off the bus, between two of them."""
CALLS = 21
"""Of a look at two GPUs, from its opening to its closing."""


def reasons_of(info: GpuInfo) -> set[str]:
    return {*info.reasons.values(), *(why for gpu in info.gpus for why in gpu.reasons.values())}


@pytest.mark.parametrize("code", VANISHING)
def test_a_driver_that_vanishes_at_any_call_leaves_values_or_null_with_its_reason(machine: Machine, code: int) -> None:
    machine("plain")
    whole = nvml.look()
    for calls in range(CALLS + 1):
        machine(f"gone-{code}-{calls}")
        info = nvml.look()
        if calls >= CALLS - 1:  # only the closing fails
            assert info == whole
        elif info.gpu_count == 0:
            assert info.reason is not None
            assert VANISHING[code] in info.reason
        else:
            assert reasons_of(info) == {VANISHING[code]}
            for gpu, before in zip(info.gpus, whole.gpus, strict=True):
                for field in msgspec.structs.fields(gpu):
                    value = getattr(gpu, field.name)
                    assert field.name == "reasons" or value in (None, getattr(before, field.name))
    machine("plain")
    assert nvml.look() == whole, "it is there again"


def test_a_count_of_gpus_that_is_no_drivers_is_bounded(machine: Machine) -> None:
    machine("many")
    assert len(nvml.look().gpus) == nvml.MOST_GPUS


def test_a_library_without_its_functions_is_a_reason(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pynvml

    empty = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([shutil.which("cc") or "cc", "-shared", "-x", "c", "/dev/null", "-o", str(empty)], check=True)
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(empty)))
    assert nvml.look() == GpuInfo(gpu_count=0, reason="NVML does not open: Function Not Found")
