"""Hedged requests: asks several endpoints in turn, without waiting for a slow one."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

HEDGE_S: Final = 0.5
"""After this the next endpoint is asked as well. Connecting over TLS to another continent takes about as long."""


async def hedged(asks: Sequence[Callable[[], Awaitable[bool]]], *, at_once: int = 1, hedge_s: float = HEDGE_S) -> bool:
    """Run `asks` until one of them returns True, and return whether one did.

    The first `at_once` start together. Each later one starts when the one before it has ended without an answer
    (False), or has taken `hedge_s`. The first True cancels those still running; an exception cancels them too, and is
    raised as it is, never in a group.
    """
    answered, failures = False, list[Exception]()

    async def run(ask: Callable[[], Awaitable[bool]], ended: trio.Event) -> None:
        nonlocal answered
        try:
            answered = await ask() or answered
        except Exception as error:  # noqa: BLE001 -- raised below, outside of the group of tasks
            failures.append(error)
        if answered or failures:
            nursery.cancel_scope.cancel()
        ended.set()

    async with trio.open_nursery() as nursery:
        for place, ask in enumerate(asks, 1):
            ended = trio.Event()
            nursery.start_soon(run, ask, ended)
            if place >= at_once:
                with trio.move_on_after(hedge_s):
                    await ended.wait()
    if failures:
        raise failures[0]
    return answered
