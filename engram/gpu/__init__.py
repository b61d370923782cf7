"""What GPUs this machine has, read from NVIDIA's management library (NVML) without making a CUDA context.

`GpuReader.read` never raises and never holds the loop: what cannot be known is None, with the reason beside it.
"""

from engram.gpu.model import Gpu, GpuInfo, MigInstance, TorchMemory
from engram.gpu.reader import GpuReader
from engram.gpu.torch_memory import clear_gpu_memory, get_available_memory, torch_memory

__all__ = [
    "Gpu",
    "GpuInfo",
    "GpuReader",
    "MigInstance",
    "TorchMemory",
    "clear_gpu_memory",
    "get_available_memory",
    "torch_memory",
]
