"""Memory of a worker that has torch loaded. Nothing here loads it: a CUDA context costs hundreds of megabytes.

Nothing is raised where the driver fails: what a job has computed is not lost for the memory that it leaves behind. The
log has the reason.
"""

import sys
from typing import Any

import structlog

from engram.gpu.model import GB, TorchMemory

_log = structlog.get_logger("engram.gpu")


def clear_gpu_memory() -> None:
    """Give what torch's allocator caches back to the GPU once running work has ended.

    It waits for that work: call it in a thread. Where torch has used no GPU yet it does nothing, because waiting would
    make a CUDA context.
    """
    try:
        if (cuda := _cuda()) is not None:
            cuda.empty_cache()
            cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - torch raises what its driver makes it
        _log.warning("gpu_memory_not_released", reason=str(error))


def get_available_memory() -> float:
    """Return the free memory of torch's current GPU in GB (10^9 bytes).

    It is 0 where torch has used no GPU yet, because asking would make a CUDA context, and where it cannot be read.
    """
    try:
        return float(cuda.mem_get_info()[0]) / GB if (cuda := _cuda()) is not None else 0.0
    except Exception as error:  # noqa: BLE001 - torch raises what its driver makes it
        _log.warning("gpu_memory_not_read", reason=str(error))
        return 0.0


def torch_memory() -> tuple[TorchMemory, ...]:
    """Return what torch holds of each GPU that it has memory of; nothing where it has used none.

    Does not ask the driver, and makes no CUDA context.
    """
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return ()
        cuda = torch.cuda
        return tuple(_held(cuda, device) for device in range(cuda.device_count()) if cuda.memory_reserved(device))
    except Exception as error:  # noqa: BLE001 - a module that is still being imported, or is another one
        _log.warning("gpu_memory_not_read", reason=str(error))
        return ()


def _held(cuda: Any, device: int) -> TorchMemory:
    uuid = getattr(cuda.get_device_properties(device), "uuid", None)
    return TorchMemory(
        device=device,
        allocated_bytes=int(cuda.memory_allocated(device)),
        reserved_bytes=int(cuda.memory_reserved(device)),
        uuid=None if uuid is None else f"GPU-{uuid}",
    )


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
