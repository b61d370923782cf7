"""The reader: one look at a time, none that hangs twice, and never an exception."""

import re
import sys
import threading
import types
from collections.abc import Callable

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engram.gpu import GpuInfo, GpuReader, clear_gpu_memory, get_available_memory
from tests.fakes import torch_stand_in


async def test_callers_that_come_at_once_share_one_look() -> None:
    looks: list[None] = []

    def look() -> GpuInfo:
        looks.append(None)
        return GpuInfo(gpu_count=1)

    reader = GpuReader(look=look)
    answers = []

    async def read() -> None:
        answers.append(await reader.read())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
    assert answers == [GpuInfo(gpu_count=1)] * 5
    assert len(looks) == 1


async def test_an_answer_is_looked_up_again_once_it_is_old() -> None:
    counts = iter((1, 2))
    reader = GpuReader(look=lambda: GpuInfo(gpu_count=next(counts)), fresh_s=0)
    assert ((await reader.read()).gpu_count, (await reader.read()).gpu_count) == (1, 2)


async def test_a_driver_that_hangs_costs_one_thread_and_is_read_again_when_it_has_come_back() -> None:
    hanging = threading.Event()
    looks: list[None] = []

    def look() -> GpuInfo:
        looks.append(None)
        hanging.wait(60)
        return GpuInfo(gpu_count=1)

    reader = GpuReader(look=look, deadline_s=0.01, fresh_s=0)
    first = await reader.read()
    second = await reader.read()
    assert (first.gpu_count, second.gpu_count, len(looks)) == (0, 0, 1)
    assert first.reason is not None
    assert "NVML has not answered" in first.reason
    hanging.set()
    with trio.fail_after(30):
        while (await reader.read()).gpu_count == 0:  # the thread that was left behind is still ending
            await trio.lowlevel.checkpoint()


async def test_a_look_whose_caller_goes_away_serves_the_next_one() -> None:
    begun, goes_on = trio.Event(), threading.Event()
    looks: list[None] = []

    def look() -> GpuInfo:
        looks.append(None)
        trio.from_thread.run_sync(begun.set)
        goes_on.wait(30)
        return GpuInfo(gpu_count=8)

    reader, found = GpuReader(look=look), list[GpuInfo]()

    async def read() -> None:
        found.append(await reader.read())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await begun.wait()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        goes_on.set()
    assert found == [GpuInfo(gpu_count=8)]
    assert await reader.read() == GpuInfo(gpu_count=8)
    assert len(looks) == 1


async def test_a_driver_that_hangs_is_said_to_hang_since_the_look_began() -> None:
    goes_on = threading.Event()

    def look() -> GpuInfo:
        goes_on.wait(30)
        return GpuInfo(gpu_count=1)

    reader = GpuReader(look=look, deadline_s=0.05)
    with trio.move_on_after(0):
        await reader.read()
    with trio.move_on_after(0.01):
        await reader.read()
    info = await reader.read()
    goes_on.set()
    assert info.reason is not None
    assert re.match(r"NVML has not answered for \d+ s;", info.reason)


async def test_a_driver_that_was_unloaded_and_loaded_again_is_read_each_time(machine: Callable[[str], None]) -> None:
    reader, counts = GpuReader(fresh_s=0), []
    for name in ("plain", "gone-9-0", "gone-15-2", "mismatch", "plain"):
        machine(name)
        info = await reader.read()
        counts.append(info.gpu_count)
        assert (info.reason is None) is (info.gpu_count > 0)
    assert counts == [2, 0, 0, 0, 2]


async def test_a_library_that_fails_in_its_own_way_is_a_reason() -> None:
    def look() -> GpuInfo:
        raise OSError("dlopen: cannot allocate memory")

    info = await GpuReader(look=look).read()
    assert (info.gpu_count, info.reason) == (
        0,
        "the GPUs could not be read: OSError('dlopen: cannot allocate memory')",
    )


def test_without_torch_loaded_there_is_nothing_to_release_and_no_memory_to_report() -> None:
    clear_gpu_memory()
    assert get_available_memory() == 0


def test_torch_that_has_used_no_gpu_is_left_without_a_cuda_context(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch_stand_in.install(monkeypatch).cuda
    clear_gpu_memory()
    assert (cuda.context, cuda.calls) == (False, [])
    assert (get_available_memory(), cuda.context) == (0.0, False)


def test_with_torch_loaded_its_cache_goes_to_the_gpu_after_its_work_has_ended(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    calls: list[str] = []
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        empty_cache=lambda: calls.append("empty_cache"),
        synchronize=lambda: calls.append("synchronize"),
        mem_get_info=lambda: (79_000_000_000, 85_000_000_000),
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    clear_gpu_memory()
    assert (calls, get_available_memory()) == (["empty_cache", "synchronize"], 79.0)


@pytest.mark.parametrize("call", ["is_initialized", "empty_cache", "synchronize", "mem_get_info"])
def test_a_driver_that_has_gone_from_under_torch_is_logged_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: no CUDA-capable device is detected")

    names = ("is_initialized", "empty_cache", "synchronize")
    calls: dict[str, Callable[[], object]] = {name: lambda: True for name in names}
    calls |= {"mem_get_info": lambda: (1, 1), call: fail}
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=types.SimpleNamespace(**calls)))
    with capture_logs() as logs:
        clear_gpu_memory()
        free = get_available_memory()
    released, read = call == "mem_get_info", call in ("empty_cache", "synchronize")
    expected = [*([] if released else ["gpu_memory_not_released"]), *([] if read else ["gpu_memory_not_read"])]
    assert [each["event"] for each in logs] == expected
    assert (free > 0) is read
    assert all("no CUDA-capable device" in each["reason"] for each in logs)
