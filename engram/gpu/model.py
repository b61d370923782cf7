"""GPUs of a machine, as a miner publishes them: bytes are exact, GB are 10^9 bytes and GiB 2^30."""

import msgspec

GB = 1_000_000_000
GIB = 1 << 30


class MigInstance(msgspec.Struct, frozen=True, omit_defaults=True):
    """One slice of a GPU in MIG mode (Multi-Instance GPU)."""

    uuid: str | None = None
    name: str | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True):
    """One GPU. A field that is None has its reason under its name in `reasons`.

    Where the memory of the whole GPU may not be read, as in a container that was given slices alone, the memory fields
    are the sums over `mig_instances`.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    utilization_percent: int | None = None
    mig_enabled: bool | None = None
    mig_instances: tuple[MigInstance, ...] = ()
    process_count: int | None = None
    reasons: dict[str, str] = {}


class GpuInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """All GPUs of a machine.

    `gpu_count`, `gpu_name` and `vram_gb` (of the first GPU, 10^9 bytes) are the keys that orchestrators read;
    `vram_bytes` and `vram_gib` are the same memory. `reason` says why there are none, or why nothing is known.
    """

    gpu_count: int
    gpu_name: str | None = None
    vram_gb: float | None = None
    vram_gib: float | None = None
    vram_bytes: int | None = None
    driver_version: str | None = None
    cuda_version: str | None = None
    gpus: tuple[Gpu, ...] = ()
    reason: str | None = None
    reasons: dict[str, str] = {}


def describe(gpus: tuple[Gpu, ...], *, driver: str | None, cuda: str | None, reasons: dict[str, str]) -> GpuInfo:
    """Return what a machine with these GPUs publishes."""
    first = gpus[0] if gpus else None
    memory = first.memory_total_bytes if first is not None else None
    return GpuInfo(
        gpu_count=len(gpus),
        gpu_name=first.name if first is not None else None,
        vram_gb=memory / GB if memory is not None else None,
        vram_gib=round(memory / GIB, 2) if memory is not None else None,
        vram_bytes=memory,
        driver_version=driver,
        cuda_version=cuda,
        gpus=gpus,
        reason=None if gpus else "the NVIDIA driver is here and shows no GPU to this process",
        reasons=reasons,
    )
