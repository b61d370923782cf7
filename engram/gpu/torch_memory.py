"""Memory of a worker that has torch loaded. Nothing here loads it: a CUDA context costs hundreds of megabytes."""

import sys
from typing import Any

from engram.gpu.model import GB


def clear_gpu_memory() -> None:
    """Give what torch's allocator caches back to the GPU once running work has ended; without CUDA do nothing."""
    cuda = _cuda()
    if cuda is not None:
        cuda.empty_cache()
        cuda.synchronize()


def get_available_memory() -> float:
    """Return the free memory of torch's current GPU in GB (10^9 bytes); 0 without CUDA."""
    cuda = _cuda()
    return float(cuda.mem_get_info()[0]) / GB if cuda is not None else 0.0


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
