"""A worker whose kind has torch loaded: what its jobs leave on the GPU, who gives it back, and who sees it."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from engram.gpu import GpuReader
from tests.fakes import torch_stand_in
from tests.gpu.conftest import machine, nvml_folder
from tests.worker.harness import eventually, orchestrating, working

__all__ = ["machine", "nvml_folder"]  # fixtures

GIGABYTE = 10**9


class Tensors:
    """Jobs that take memory of the GPU, written as for torch; the result is what torch had reserved before and then."""

    repeatable = False

    def __init__(self) -> None:
        self.holds = trio.Event()
        self.holds.set()

    async def run(self, job: Any) -> Any:
        torch = sys.modules["torch"]
        before = torch.cuda.memory_reserved()
        tensor = torch.empty(job.payload, dtype=torch.uint8, device="cuda")
        await self.holds.wait()
        during = torch.cuda.memory_reserved()
        del tensor
        return [before, during]


async def test_what_a_job_leaves_in_torchs_cache_is_given_back_when_no_job_runs_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, kind = torch_stand_in.install(monkeypatch).cuda, Tensors()
    async with orchestrating() as orchestrator, working(orchestrator.url, {"t": kind}, release_gpu_memory=True):
        session = await orchestrator.connected()
        for _ in range(2):
            assert await session.call("job", {"type": "t", "payload": 8 * GIGABYTE}) == [0, 8 * GIGABYTE]
            await eventually(lambda: cuda.reserved == 0)
        kind.holds = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(session.call, "job", {"type": "t", "payload": GIGABYTE})
            await eventually(lambda: cuda.allocated == 2 * GIGABYTE)
            assert cuda.calls == ["empty_cache", "synchronize"] * 2, "nothing is given back under a job that runs"
            kind.holds.set()
        await eventually(lambda: cuda.reserved == 0)


async def test_torch_keeps_its_cache_where_the_settings_do_not_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch_stand_in.install(monkeypatch).cuda
    async with orchestrating() as orchestrator, working(orchestrator.url, {"t": Tensors()}) as bench:
        session = await orchestrator.connected()
        assert await session.call("job", {"type": "t", "payload": GIGABYTE}) == [0, GIGABYTE]
        assert await session.call("job", {"type": "t", "payload": GIGABYTE}) == [GIGABYTE, GIGABYTE]
        await bench.stop()
    assert (cuda.calls, cuda.reserved) == ([], GIGABYTE)


async def test_a_driver_that_hangs_at_the_release_holds_up_no_job_and_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch_stand_in.install(monkeypatch).cuda
    cuda.hangs = threading.Event()
    async with (
        orchestrating() as orchestrator,
        working(orchestrator.url, {"t": Tensors()}, release_gpu_memory=True) as bench,
    ):
        session = await orchestrator.connected()
        await session.call("job", {"type": "t", "payload": GIGABYTE})
        await eventually(lambda: "synchronize" in cuda.calls)
        told = [await session.call("job", {"type": "t", "payload": GIGABYTE}) for _ in range(3)]
        assert told == [[0, GIGABYTE], [GIGABYTE, GIGABYTE], [GIGABYTE, GIGABYTE]]
        assert cuda.calls.count("synchronize") == 1, "one thread hangs, and no other is started"
        await bench.stop()
    cuda.hangs.set()


async def test_torchs_figures_stand_beside_nvmls_once_it_uses_the_gpu(
    monkeypatch: pytest.MonkeyPatch, machine: Callable[[str], None]
) -> None:
    machine("plain")
    torch, reader = torch_stand_in.install(monkeypatch), GpuReader(fresh_s=0)
    idle = msgspec.to_builtins(await reader.read())
    assert (idle["gpu_count"], "torch" in idle) == (2, False)
    assert torch.cuda.context is False, "a look makes no CUDA context"
    tensors = [torch.empty(size * GIGABYTE, dtype="uint8", device="cuda") for size in (3, 5)]
    del tensors[1]
    found = msgspec.to_builtins(await reader.read())
    (held,) = found["torch"]
    assert held == {"device": 0, "allocated_bytes": 3 * GIGABYTE, "reserved_bytes": 8 * GIGABYTE, "uuid": "GPU-0"}
    assert found["gpus"][0]["uuid"] == held["uuid"], "so that it is known which of NVML's it is"
    assert found["gpus"][0]["memory_free_bytes"] > 0
