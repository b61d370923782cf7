"""GPUs of a machine, as a miner publishes them: bytes are exact, GB are 10^9 bytes and GiB 2^30."""

import msgspec

GB = 1_000_000_000
GIB = 1 << 30
NOT_SHOWN = "the NVIDIA driver is here and shows no GPU to this process"


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


class TorchMemory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What torch holds of one GPU in this process; NVML counts all of `reserved_bytes` as used."""

    device: int
    """Torch's own number: of the GPUs that CUDA_VISIBLE_DEVICES leaves, not of the machine's."""
    allocated_bytes: int
    """In tensors."""
    reserved_bytes: int
    """With what torch's allocator caches, which `clear_gpu_memory` gives back."""
    uuid: str | None = None
    """As NVML has it; None where torch does not say (before 2.5)."""


class GpuInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """All GPUs of a machine.

    `gpu_count`, `gpu_name` and `vram_gb` (of the first GPU, 10^9 bytes) are the keys that orchestrators read;
    `vram_bytes` and `vram_gib` are the same memory. Where the first GPU is cut into slices, name and memory are those
    of its first slice: a process can use one slice and no more. `reason` says why there are none, or why that name or
    memory is not known. `torch` is there in a process that has torch loaded and has used a GPU by it.
    """

    gpu_count: int
    gpu_name: str | None = None
    vram_gb: float | None = None
    vram_gib: float | None = None
    vram_bytes: int | None = None
    driver_version: str | None = None
    cuda_version: str | None = None
    gpus: tuple[Gpu, ...] = ()
    torch: tuple[TorchMemory, ...] = ()
    reason: str | None = None
    reasons: dict[str, str] = {}


def describe(gpus: tuple[Gpu, ...], *, driver: str | None, cuda: str | None, reasons: dict[str, str]) -> GpuInfo:
    """Return what a machine with these GPUs publishes."""
    first = gpus[0] if gpus else None
    used = first.mig_instances[0] if first is not None and first.mig_instances else first
    memory = used.memory_total_bytes if used is not None else None
    return GpuInfo(
        gpu_count=len(gpus),
        gpu_name=used.name if used is not None else None,
        vram_gb=memory / GB if memory is not None else None,
        vram_gib=round(memory / GIB, 2) if memory is not None else None,
        vram_bytes=memory,
        driver_version=driver,
        cuda_version=cuda,
        gpus=gpus,
        reason=NOT_SHOWN if first is None or used is None else _unknown(first, used),
        reasons=reasons,
    )


def _unknown(first: Gpu, used: Gpu | MigInstance) -> str | None:
    """Return why the name or the memory of the first GPU, or of its first slice, is not known; None where both are."""
    wanted = {"name": used.name, "memory": used.memory_total_bytes}
    missing = [field for field, value in wanted.items() if value is None]
    fields = {f"].{field}" for field in missing} if isinstance(used, MigInstance) else {"handle", *missing}
    why = [reason for field, reason in first.reasons.items() if field in fields or field[field.find("]") :] in fields]
    return f"GPU {first.index}: {', '.join(missing)} unknown: {why[0]}" if missing and why else None
