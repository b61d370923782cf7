"""Kinds of jobs for benchmarks: one that answers at once, one that never does."""

from typing import Any

import trio

from engram.worker.model import WorkerJob


class Echo:
    """The result is the payload."""

    repeatable = False

    async def run(self, job: WorkerJob) -> Any:
        return job.payload


class Hold:
    """Never ends by itself."""

    repeatable = False

    async def run(self, job: WorkerJob) -> Any:
        await trio.sleep_forever()
