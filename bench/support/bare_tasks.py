"""The yardstick of supervision: bare trio tasks, started again by a loop around an `except`, and cancelled with their
nursery. `python -m bench.support.bare_tasks COUNT` prints the seconds that COUNT of them take to stop."""

import gc
import sys
import time

import trio
import trio.testing


def restart_us(count: int) -> list[float]:
    """Microseconds from a message that crashes a task to the reply of its next life."""
    times: list[float] = []

    async def live(inbox: trio.MemoryReceiveChannel[int | None], replies: trio.MemorySendChannel[int]) -> None:
        async for message in inbox:
            if message is None:
                raise RuntimeError("crash")
            await replies.send(message)

    async def supervise(inbox: trio.MemoryReceiveChannel[int | None], replies: trio.MemorySendChannel[int]) -> None:
        while True:
            try:
                await live(inbox, replies)
            except RuntimeError:
                continue

    async def main() -> None:
        outbox, inbox = trio.open_memory_channel[int | None](64)
        replying, replies = trio.open_memory_channel[int](64)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, inbox, replying)
            for number in range(count):
                began = time.perf_counter()
                await outbox.send(None)
                await outbox.send(number)
                await replies.receive()
                times.append((time.perf_counter() - began) * 1e6)
            nursery.cancel_scope.cancel()

    gc.collect()
    trio.run(main)
    return times


async def stop_s(count: int) -> float:
    """Seconds to stop `count` tasks that each wait for a message."""

    async def wait() -> None:
        _, inbox = trio.open_memory_channel[int](1024)
        await inbox.receive()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        began = time.perf_counter()
        nursery.cancel_scope.cancel()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(trio.run(stop_s, int(sys.argv[1])))
