"""Runs work in a child forked from this interpreter, which has everything imported, to be killed at a kill point.

For tests whose subject is what a process leaves behind, not how it starts: a start costs a second of imports.
"""

import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from engram import kill_points

KILLED: Final = -signal.SIGKILL


async def run(work: Callable[[], Awaitable[None]], *, kill_at: str = "", within_s: float = 60.0) -> int:
    """Return the exit status of a child that awaits `work` on a loop of its own: 0, KILLED, or 1 with a traceback."""
    return await ended(await start(work, kill_at=kill_at, within_s=within_s))


async def start(work: Callable[[], Awaitable[None]], *, kill_at: str = "", within_s: float = 60.0) -> int:
    """Return the id of a child that has begun `work`. It has all files that are open here, and none opened later."""
    return await trio.to_thread.run_sync(_fork, work, kill_at, within_s)  # trio runs no second loop in a thread


async def ended(child: int) -> int:
    """Return the exit status of a child once it has ended."""
    return await trio.to_thread.run_sync(lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def kill(child: int) -> None:
    """End a child that still runs, and wait for it."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _fork(work: Callable[[], Awaitable[None]], kill_at: str, within_s: float) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return child
    status = 1
    try:
        signal.set_wakeup_fd(-1)  # the parent's loop's
        signal.alarm(int(within_s))
        kill_points._armed = kill_at
        trio.run(_awaited, work)
        status = 0
    except BaseException:  # noqa: BLE001  # whatever it is, the child ends here and never runs the parent's tests
        traceback.print_exc()
    finally:
        os._exit(status)


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()
