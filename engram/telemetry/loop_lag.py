"""Measures how late the event loop wakes a task, which shows when something blocks it."""

import trio

from actors import Context, Job
from engram.telemetry.metrics import Metrics

INTERVAL_S = 0.05


def loop_lag_job(metrics: Metrics) -> Job:
    """Return a job that adds a sample to `metrics.loop_lag` every INTERVAL_S."""

    async def run(context: Context) -> None:
        context.ready()
        await measure(metrics)

    return Job(run)


async def measure(metrics: Metrics, samples: int | None = None) -> None:
    """Take `samples` samples, or take them until cancelled."""
    taken = 0
    while samples is None or taken < samples:
        due = trio.current_time() + INTERVAL_S
        await trio.sleep_until(due)
        metrics.loop_lag.observe(max(0.0, trio.current_time() - due))
        taken += 1
