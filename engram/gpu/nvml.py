"""One look at the GPUs through NVML. It blocks, at worst for ever: `engram.gpu.reader` calls it in a thread.

NVML is opened and closed around each look, so that a driver that was loaded, replaced or removed meanwhile is noticed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, TypeVar

from engram.gpu.model import Gpu, GpuInfo, MigInstance, describe

T = TypeVar("T")

NO_DRIVER = "no NVIDIA driver on this machine (libnvidia-ml.so.1 was not found)"
MOST_GPUS = 256
"""Of a machine, and slices of a GPU: a count beyond it is not a driver's."""
NO_PACKAGE = "the package nvidia-ml-py is not installed: pip install 'engram[gpu]'"


class NvmlAbsent(Exception):
    """NVML cannot be opened; the text says why."""


@contextmanager
def opened() -> Iterator[ModuleType]:
    """Open NVML for the block and yield the module that calls it.

    Raises:
        NvmlAbsent: no package, no driver, or a driver that does not answer to its library.
    """
    try:
        import pynvml
    except ImportError:
        raise NvmlAbsent(NO_PACKAGE) from None
    library: Any = pynvml  # its exceptions are made when it is imported
    try:
        library.nvmlInit()
    except library.NVMLError_LibraryNotFound:
        raise NvmlAbsent(NO_DRIVER) from None
    except library.NVMLError as error:
        raise NvmlAbsent(f"NVML does not open: {error}") from None
    try:
        yield library
    finally:
        with suppress(library.NVMLError):  # a driver that went away has nothing to close
            library.nvmlShutdown()


def look() -> GpuInfo:
    """Return the GPUs that this process may see. Blocks for as long as the driver does."""
    try:
        with opened() as nvml:
            return _machine(nvml)
    except NvmlAbsent as absent:
        return GpuInfo(gpu_count=0, reason=str(absent))


class _Values:
    """Values of one thing: a call that fails gives None, and its reason is kept under the field's name."""

    def __init__(self, nvml: ModuleType) -> None:
        self._error: type[Exception] = nvml.NVMLError
        self.reasons: dict[str, str] = {}

    def read(self, field: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except (self._error, UnicodeDecodeError) as error:
            self.reasons[field] = str(error)
            return None


def _machine(nvml: ModuleType) -> GpuInfo:
    values = _Values(nvml)
    driver = values.read("driver_version", lambda: as_text(nvml.nvmlSystemGetDriverVersion()))
    cuda = values.read("cuda_version", lambda: _cuda(nvml.nvmlSystemGetCudaDriverVersion()))
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        return GpuInfo(gpu_count=0, driver_version=driver, cuda_version=cuda, reason=f"GPUs cannot be counted: {error}")
    gpus = tuple(_gpu(nvml, index) for index in range(min(count, MOST_GPUS)))
    return describe(gpus, driver=driver, cuda=cuda, reasons=values.reasons)


def _gpu(nvml: ModuleType, index: int) -> Gpu:
    values = _Values(nvml)
    handle = values.read("handle", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return Gpu(index=index, reasons=values.reasons)
    mig = values.read("mig_enabled", lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]))
    instances = _instances(nvml, handle, values) if mig else ()
    memory = values.read("memory", lambda: _memory(nvml, handle))
    total, free = memory or (None, None)
    if memory is None and instances:
        total = _sum(instance.memory_total_bytes for instance in instances)
        free = _sum(instance.memory_free_bytes for instance in instances)
    return Gpu(
        index=index,
        uuid=values.read("uuid", lambda: as_text(nvml.nvmlDeviceGetUUID(handle))),
        name=values.read("name", lambda: as_text(nvml.nvmlDeviceGetName(handle))),
        memory_total_bytes=total,
        memory_free_bytes=free,
        utilization_percent=values.read(
            "utilization_percent", lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        ),
        mig_enabled=mig,
        mig_instances=instances,
        process_count=values.read("process_count", lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle))),
        reasons=values.reasons,
    )


def _instances(nvml: ModuleType, handle: object, values: _Values) -> tuple[MigInstance, ...]:
    most = values.read("mig_instances", lambda: int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))) or 0
    found: list[MigInstance] = []
    for index in range(min(most, MOST_GPUS)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError_NotFound:
            continue
        except nvml.NVMLError as error:
            values.reasons[f"mig_instances[{index}]"] = str(error)
            continue
        instance, reasons = _instance(nvml, part)
        found.append(instance)
        values.reasons.update({f"mig_instances[{index}].{field}": why for field, why in reasons.items()})
    return tuple(found)


def _instance(nvml: ModuleType, handle: object) -> tuple[MigInstance, dict[str, str]]:
    values = _Values(nvml)
    memory = values.read("memory", lambda: _memory(nvml, handle))
    total, free = memory or (None, None)
    instance = MigInstance(
        uuid=values.read("uuid", lambda: as_text(nvml.nvmlDeviceGetUUID(handle))),
        name=values.read("name", lambda: as_text(nvml.nvmlDeviceGetName(handle))),
        memory_total_bytes=total,
        memory_free_bytes=free,
    )
    return instance, values.reasons


def _memory(nvml: ModuleType, handle: object) -> tuple[int, int]:
    """Total and free bytes; by the second form of the struct, which does not count what the driver reserves as used."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError_FunctionNotFound:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.total), int(memory.free)


def as_text(value: str | bytes) -> str:
    """Return NVML's text, which older bindings give as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _cuda(number: int) -> str:
    """Return the CUDA version of NVML's number: 12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _sum(values: Iterator[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
