"""Reading through the real bindings from a library that behaves as NVML does."""

from collections.abc import Callable

from engram.gpu import nvml

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


def test_where_the_whole_gpu_may_not_be_read_its_memory_is_that_of_the_slices(machine: Machine) -> None:
    machine("slices")
    info = nvml.look()
    (gpu,) = info.gpus
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (20_401_094_656, 20_398_997_504)
    assert info.vram_gb == 20.401094656
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
