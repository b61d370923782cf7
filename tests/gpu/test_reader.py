"""The reader: one look at a time, none that hangs twice, and never an exception."""

import threading

import trio

from engram.gpu import GpuInfo, GpuReader, clear_gpu_memory, get_available_memory


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


def test_with_torch_loaded_its_cache_goes_to_the_gpu_after_its_work_has_ended(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    import sys
    import types

    calls: list[str] = []
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        empty_cache=lambda: calls.append("empty_cache"),
        synchronize=lambda: calls.append("synchronize"),
        mem_get_info=lambda: (79_000_000_000, 85_000_000_000),
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    clear_gpu_memory()
    assert (calls, get_available_memory()) == (["empty_cache", "synchronize"], 79.0)
