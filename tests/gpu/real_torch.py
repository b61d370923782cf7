"""What torch itself does with the hook: prints one line of JSON. `PYTHONPATH=SITE python -m tests.gpu.real_torch`."""

import json
import sys

import msgspec

from engram.gpu import clear_gpu_memory, get_available_memory, torch_memory

SIZE = 1_000_000_000


def main() -> None:
    """Ask before torch has used a GPU, then with a tensor, without it, and after the release."""
    import torch  # in its own folder, which other programs do not have

    steps: dict[str, object] = {"version": torch.__version__, "available": torch.cuda.is_available()}
    clear_gpu_memory()
    steps["idle"] = msgspec.to_builtins(torch_memory())
    if torch.cuda.is_available():
        tensor = torch.empty(SIZE, dtype=torch.uint8, device="cuda")
        steps["held"] = msgspec.to_builtins(torch_memory())
        del tensor
        steps["cached"] = msgspec.to_builtins(torch_memory())
        before = get_available_memory()
        clear_gpu_memory()
        steps["released"] = msgspec.to_builtins(torch_memory())
        steps["given_back_gb"] = get_available_memory() - before
    else:
        steps["free_gb"] = get_available_memory()
    steps["context"] = torch.cuda.is_initialized()
    json.dump(steps, sys.stdout)


if __name__ == "__main__":
    main()
