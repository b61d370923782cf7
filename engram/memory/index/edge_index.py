"""The vector index as a worker process: Qdrant Edge behind pipes."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import final

import trio

from engram import children
from engram.children import Program
from engram.memory.errors import IndexRestarting, IndexUnavailable
from engram.memory.filters import Filter
from engram.memory.index.edge_wire import (
    Answer,
    Apply,
    Count,
    Counted,
    Flush,
    Flushed,
    Found,
    Frames,
    Reply,
    Request,
    Reset,
    Search,
    WorkDone,
    WorkerReady,
    WorkFailed,
    decode_reply,
    frame,
    wanted,
    wire,
)
from engram.memory.index.pipes import Inlet, Outlet
from engram.memory.index.protocol import Nearest
from engram.memory.model import PUBLIC, Change

GRAPH_FROM = 10_000
"""A graph is built from this many vectors without one; below it, a search by scanning takes about 2 ms."""
_SEARCHES_AT_ONCE = 64
_STOP_WITHIN_S = 1.5
_HUNG_AFTER_S = 30.0
_LOOK_EVERY_S = 0.25
_SOON_S = 10.0
_MOST_CRASHES = 2
"""After this many crashes in a row, each soon after the worker's start, the index files are treated as corrupt."""
_ROOM_BYTES = 64 * 1024**2
"""With fewer free bytes than this, a worker crash is blamed on the full disk, and the index files are kept."""
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV, signal.SIGILL, signal.SIGFPE)


@final
class EdgeIndex:
    """Starts the worker in `run`; its methods may be called from any task of the same trio loop.

    The worker is started from the loop's own thread: the kernel's parent-death signal is bound to the thread
    that forked, and a helper thread would end, and kill the worker, after seconds of idleness.

    With `truth_path` (the record database) the worker reads the records of its hits itself, so that the event loop does
    not wait for them. Whenever `graph_from` vectors are without a graph (HNSW), it has one built in a separate process
    of low priority and switches to it once it is up to date. Without `truth_path`, every search scans.
    """

    def __init__(
        self,
        folder: Path,
        dimension: int,
        truth_id: str,
        *,
        truth_path: Path | None = None,
        graph_from: int = GRAPH_FROM,
    ) -> None:
        self._folder = folder
        self._dimension = dimension
        self._truth_id = truth_id
        self._building = [str(truth_path), str(graph_from)] if truth_path is not None else []
        self._commands: Outlet | None = None
        self._searching = trio.CapacityLimiter(_SEARCHES_AT_ONCE)
        self._number = 0
        self._open: dict[int, _Reply] = {}
        self._crashes = 0
        self.worker_pid: int | None = None
        """Process id of the running worker."""
        self.flushed = 0
        """The last change that is known to be safely on disk."""

    async def run(self, ready: Callable[[int], None]) -> None:
        """Run the worker until cancelled. Raises IndexUnavailable when it ends by itself or hangs.

        When workers keep crashing soon after their start, the next one rebuilds the index: the engine does not report
        every corrupt file, some crash its process.
        """
        began = trio.current_time()
        async with self._worker() as (process, commands, replies), trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, process)
            nursery.start_soon(commands.run)
            frames = Frames()
            while received := await replies.read():
                for body in frames.feed(received):
                    self._take(decode_reply(body), ready)
            nursery.cancel_scope.cancel()
        self._count_crash(process.returncode, trio.current_time() - began)
        raise IndexUnavailable(f"the index worker has ended: {_end_of(process.returncode)}")

    async def apply(self, changes: Sequence[Change], sequence: int) -> int:
        """Make the changes and return the last one that is safely on disk."""
        frames = [wire(change) for change in changes]
        reply = await self._ask(lambda number: Apply(number, sequence, frames))
        return reply.flushed if isinstance(reply, WorkDone) else 0

    async def search(self, namespace: str, vector: bytes, limit: int, conditions: Filter, give_up_at: float) -> Nearest:
        """Return the nearest records of a namespace; with the record database, as they are in it now."""
        private_to = None if namespace == PUBLIC else namespace
        marks, current = wanted(conditions), conditions.current
        waiting = _Reply(self._searching, give_up_at)
        try:
            self._searching.acquire_on_behalf_of_nowait(waiting)  # waiting without need would cost a pass of the loop
        except trio.WouldBlock:
            with trio.move_on_at(give_up_at) as patience:
                await self._searching.acquire_on_behalf_of(waiting)
            if patience.cancelled_caught:
                raise IndexUnavailable("the index has too many open requests to answer in time") from None
        reply = await self._ask(lambda number: Search(number, private_to, vector, limit, marks, current), waiting)
        return Nearest(reply.matches, reply.is_cut) if isinstance(reply, Found) else Nearest([])

    async def flush(self) -> int:
        """Bring everything to disk now and return the last change that is there."""
        reply = await self._ask(Flush)
        return reply.flushed if isinstance(reply, WorkDone) else 0

    async def reset(self) -> None:
        """Throw all vectors away."""
        await self._ask(Reset)

    async def points(self) -> int:
        """Return how many vectors there are."""
        reply = await self._ask(Count)
        return reply.points if isinstance(reply, Counted) else 0

    async def _ask(self, request: Callable[[int], Request], waiting: _Reply | None = None) -> Answer:
        """Send a request and wait for its reply.

        A cancelled request keeps its slot until the worker replies, so that the open requests stay bounded even when
        it hangs.
        """
        waiting = waiting or _Reply()
        if self._commands is None:
            waiting.settle(None)
            raise IndexRestarting("the index is restarting")
        self._number += 1
        self._open[self._number] = waiting
        self._commands.write(frame(request(self._number)))
        await waiting.arrived.wait()
        match waiting.reply:
            case None if waiting.is_late:
                raise IndexUnavailable("the index did not answer in time")
            case None:
                raise IndexRestarting("the index worker ended before it answered")
            case WorkFailed(reason=reason):
                raise IndexUnavailable(f"the index refused: {reason}")
            case reply:
                return reply

    def _count_crash(self, status: int, lasted_s: float) -> None:
        crashed = status > 0 or -status in _CRASHES
        self._crashes = self._crashes + 1 if crashed and lasted_s < _SOON_S else 0
        if self._crashes < _MOST_CRASHES:
            return
        self._crashes = 0
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self._folder).free >= _ROOM_BYTES:
                (self._folder / "mark.json").unlink(missing_ok=True)

    def _take(self, reply: Reply, ready: Callable[[int], None]) -> None:
        match reply:
            case WorkerReady():
                self.flushed = reply.flushed
                ready(reply.flushed)
            case Flushed():
                self.flushed = reply.sequence
            case _:
                if isinstance(reply, WorkDone):
                    self.flushed = reply.flushed
                waiting = self._open.pop(reply.number, None)
                if waiting is not None:
                    waiting.settle(reply)

    async def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """End requests that waited too long, and a worker that hangs; cheaper by 2 % than a scope for each search."""
        while True:
            await trio.sleep(_LOOK_EVERY_S)
            now = trio.current_time()
            for waiting in self._open.values():
                if now >= waiting.give_up_at:
                    waiting.give_up()
                if now - waiting.sent_at > _HUNG_AFTER_S:
                    process.kill()

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[tuple[subprocess.Popen[bytes], Outlet, Inlet]]:
        process = subprocess.Popen(  # noqa: ASYNC220  # from this thread on purpose, see the class docstring
            [
                *children.command(Program.INDEX_WORKER),
                *(str(self._folder), str(self._dimension), self._truth_id, str(os.getpid())),
                *self._building,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=children.environment(os.environ),
        )
        try:
            commands, replies = _ends_of(process)
        except OSError:
            with trio.CancelScope(shield=True):
                await _reap(process)
            raise
        self._commands, self.worker_pid = commands, process.pid
        try:
            yield process, commands, replies
        finally:
            self._commands = self.worker_pid = None
            for waiting in self._open.values():
                waiting.settle(None)
            self._open.clear()
            commands.close()
            with trio.CancelScope(shield=True):
                await _reap(process)
            replies.close()


class _Reply:
    """A reply that a caller waits for; None when the worker ended first. With `turns` it holds one of them."""

    def __init__(self, turns: trio.CapacityLimiter | None = None, give_up_at: float = math.inf) -> None:
        self.arrived = trio.Event()
        self.reply: Answer | None = None
        self.is_late = False
        self.sent_at = trio.current_time()
        self.give_up_at = give_up_at
        self._turns = turns

    def give_up(self) -> None:
        """End the wait but keep the turn until the worker answers, so that its open requests stay bounded."""
        self.is_late = True
        self.arrived.set()

    def settle(self, reply: Answer | None) -> None:
        self.reply = reply
        self.arrived.set()
        if self._turns is not None:
            self._turns.release_on_behalf_of(self)


def _ends_of(process: subprocess.Popen[bytes]) -> tuple[Outlet, Inlet]:
    """Return this process's ends of the worker's pipes. Nothing else holds them open, so closing them ends the worker.

    Raises OSError when there are no more descriptors; the pipes are closed then.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as stdin, process.stdout as stdout, contextlib.ExitStack() as opened:
        commands = Outlet(os.dup(stdin.fileno()))
        opened.callback(commands.close)
        replies = Inlet(os.dup(stdout.fileno()))
        opened.pop_all()
        return commands, replies


def _end_of(status: int) -> str:
    if status == -signal.SIGBUS:  # the disk has no block for a page of a mapped file
        return "killed by SIGBUS, as happens on a full disk"
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


async def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for the worker, which ends when its stdin closes; kill it when it does not in time."""
    descriptor = os.pidfd_open(process.pid)
    try:
        with trio.move_on_after(_STOP_WITHIN_S):
            await trio.lowlevel.wait_readable(descriptor)
        if process.poll() is None:
            process.kill()
            await trio.lowlevel.wait_readable(descriptor)
        process.wait()
    finally:
        os.close(descriptor)
