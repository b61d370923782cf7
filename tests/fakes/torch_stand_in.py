"""A stand-in for torch: its allocator, which keeps what tensors leave behind until it is told to give it back.

`install` makes it the process's torch. tests/gpu/test_real_torch.py has the same questions answered by torch itself.
"""

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Final

import pytest

TOTAL: Final = 85_520_809_984
UUID: Final = "0"


class Tensor:
    """So many bytes of the GPU, until it is collected."""

    def __init__(self, cuda: "CudaDouble", size: int) -> None:
        self._cuda = cuda
        self._size = size
        cuda.allocated += size
        cuda.reserved = max(cuda.reserved, cuda.allocated)
        cuda.context = True

    def __del__(self) -> None:
        self._cuda.allocated -= self._size


class CudaDouble(ModuleType):
    """torch.cuda with one GPU."""

    def __init__(self) -> None:
        super().__init__("torch.cuda")
        self.allocated = 0
        self.reserved = 0
        self.context = False
        """Whether there is a CUDA context: from the first use of the GPU on."""
        self.calls: list[str] = []
        self.hangs: threading.Event | None = None
        """What `synchronize` waits for: a driver that hangs."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return self.context

    def device_count(self) -> int:
        return 1

    def get_device_properties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(name="NVIDIA H100 PCIe", total_memory=TOTAL, uuid=UUID)

    def memory_allocated(self, device: int | None = None) -> int:
        return self.allocated

    def memory_reserved(self, device: int | None = None) -> int:
        return self.reserved

    def mem_get_info(self, device: int | None = None) -> tuple[int, int]:
        self.context = True
        return TOTAL - self.reserved, TOTAL

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")
        self.reserved = self.allocated

    def synchronize(self, device: int | None = None) -> None:
        self.calls.append("synchronize")
        self.context = True
        if self.hangs is not None:
            self.hangs.wait(30)


class TorchDouble(ModuleType):
    """torch, as far as a job needs it."""

    uint8: Final = "uint8"

    def __init__(self) -> None:
        super().__init__("torch")
        self.cuda = CudaDouble()

    def empty(self, size: int, *, dtype: str, device: str) -> Tensor:
        assert (dtype, device) == ("uint8", "cuda")
        return Tensor(self.cuda, size)


def install(monkeypatch: pytest.MonkeyPatch) -> TorchDouble:
    """Load it, for one test."""
    made = TorchDouble()
    monkeypatch.setitem(sys.modules, "torch", made)
    return made
