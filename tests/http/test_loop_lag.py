import time

import trio

from actors import ChildSpec, SupervisorSpec, open_system
from engram.telemetry.loop_lag import loop_lag_job, measure
from engram.telemetry.metrics import Metrics


def lag_of(metrics: Metrics) -> tuple[float, float]:
    samples = {sample.name: sample.value for family in metrics.loop_lag.collect() for sample in family.samples}
    return samples["engram_loop_lag_seconds_count"], samples["engram_loop_lag_seconds_sum"]


async def test_what_blocks_the_loop_shows(nursery: trio.Nursery) -> None:
    metrics = Metrics()

    async def block() -> None:
        await trio.sleep(0.02)
        time.sleep(0.15)  # noqa: ASYNC251 -- blocking is what is measured

    nursery.start_soon(block)
    await measure(metrics, samples=1)
    assert lag_of(metrics)[1] > 0.05


async def test_it_runs_in_a_tree(autojump_clock: trio.testing.MockClock) -> None:
    metrics = Metrics()
    async with open_system(SupervisorSpec("root", [ChildSpec("loop_lag", lambda: loop_lag_job(metrics))])):
        await trio.sleep(10)
    assert 190 <= lag_of(metrics)[0] <= 201
