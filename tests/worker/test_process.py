"""Real processes: a worker and an orchestrator that are killed at any moment, and each job is done once."""

import random
import signal
from pathlib import Path

import pytest
import trio

from engram.http.client import HttpClient
from tests.gpu.conftest import nvml_folder
from tests.sampling import NIGHTLY, SEED, sample
from tests.shared import free_port
from tests.worker.processes import world

__all__ = ["nvml_folder"]  # a fixture

POINTS = ("worker_job:begun", "worker_job:answered", "worker_job:kept", "worker_result:sent")
ROUNDS = tuple(range(20))
KILLS = 10 if NIGHTLY else 1
"""Of each round."""
BATCH = 5


async def test_a_worker_does_what_it_is_sent_and_stops_in_order(tmp_path: Path, nvml_folder: Path) -> None:
    async with world(tmp_path, free_port()) as made:
        await made.orchestrator.start()
        await made.worker.start(LD_LIBRARY_PATH=str(nvml_folder), ENGRAM_TEST_NVML="plain")
        await made.post("a", "b")
        state = await made.settled(2)
        assert state["results"]["a"] == {"done": {"name": "a"}, "first": 1}
        (gpu_info,) = state["gpu_info"]  # as NVML says it, over the wire
        assert {name: gpu_info[name] for name in ("gpu_count", "gpu_name", "vram_gb")} == {
            "gpu_count": 2,
            "gpu_name": "NVIDIA H100 PCIe",
            "vram_gb": 85.520809984,
        }
        assert [each["uuid"] for each in gpu_info["gpus"]] == ["GPU-0", "GPU-1"]
        ops = made.worker.ready["ops_url"]
        http = HttpClient()
        status = (await http.request("GET", ops + "/status", fresh=True)).json()
        assert (status["link"]["phase"], status["orchestrator_url"]) == ("serving", made.url)
        ready = await http.request("GET", ops + "/ready", fresh=True)
        assert (ready.status, ready.json()) == (200, {"ready": True, "missing": []})
        jobs = (await http.request("GET", ops + "/jobs", fresh=True)).json()["jobs"]
        assert sorted((each["id"], each["state"], each["outcome"]) for each in jobs) == [
            ("a", "done", "done"),
            ("b", "done", "done"),
        ]
        metrics = (await http.request("GET", ops + "/metrics", fresh=True)).content.decode()
        assert "engram_worker_connected 1.0" in metrics
        assert 'engram_worker_jobs_total{kind="inference",outcome="done"} 2.0' in metrics
        await http.aclose()
        made.worker.process.send_signal(signal.SIGTERM)
        assert await made.worker.ended() == 0
        assert (await made.state() or {})["sessions"] == 0


@pytest.mark.heavy
@pytest.mark.parametrize("point", sample("worker kill points", POINTS, 1))
async def test_a_worker_killed_around_each_effect_does_each_job_once(tmp_path: Path, point: str) -> None:
    async with world(tmp_path, free_port()) as made:
        await made.orchestrator.start()
        await made.worker.start(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        await made.post("a")
        assert await made.worker.ended() == -9, f"{point} was not passed"
        await made.worker.start()
        await made.post("b")
        state = await made.settled(2)
        assert (made.backend.taken["a"] <= 1, made.backend.taken["b"]) == (True, 1)
        unknown = point in ("worker_job:begun", "worker_job:answered")  # it may have been done: nobody knows
        assert ("outcome" in state["results"]["a"]) is unknown
        assert state["contradictions"] == []


@pytest.mark.heavy
@pytest.mark.parametrize("number", sample("worker kills", ROUNDS, 1))
async def test_kills_of_either_side_lose_nothing_and_run_nothing_twice(tmp_path: Path, number: int) -> None:
    repeatable = number % 2 == 1
    rng = random.Random(f"{SEED}:{number}")
    settings = 'repeatable = ["inference"]' if repeatable else ""
    async with world(tmp_path, free_port(), settings) as made:
        await made.orchestrator.start()
        await made.worker.start()
        posted: set[str] = set()
        cut: set[str] = set()
        """Whose results had not come when the worker was killed: only of these may the outcome be unknown."""
        for kill in range(KILLS):
            names = [f"{kill}-{each}" for each in range(BATCH)]
            await made.post(*names)
            posted |= {*names}
            await trio.sleep(rng.random() / 5)  # anywhere in their way
            if rng.random() < 0.5:
                before = await made.state()
                cut |= posted - (before or {"results": {}})["results"].keys()
                made.worker.kill()
                await made.worker.start()
            else:
                made.orchestrator.kill()
                await made.orchestrator.start()
            await made.settled(len(posted) - BATCH)
        await made.post("afterwards")
        posted.add("afterwards")
        state = await made.settled(len(posted))
    assert state["results"].keys() == posted
    assert state["contradictions"] == []
    for name, result in state["results"].items():
        if repeatable:
            assert result["done"] == {"name": name}
        else:
            assert made.backend.taken[name] <= 1
            assert result.get("done") == {"name": name} or (result.get("outcome") == "unknown" and name in cut)
