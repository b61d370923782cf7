"""Deadlines of a few milliseconds that hold on a busy machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_TICK_S = 0.005


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Fail unless the block is done in this time, not counting that in which this process was given no CPU."""
    kept_waiting_s = 0.0

    async def tick() -> None:
        nonlocal kept_waiting_s
        while True:
            began = trio.current_time()
            await trio.sleep(_TICK_S)
            kept_waiting_s += trio.current_time() - began - _TICK_S

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            began = trio.current_time()
            yield
            took_s = trio.current_time() - began
            nursery.cancel_scope.cancel()
    assert took_s - kept_waiting_s <= seconds, (took_s, kept_waiting_s)
