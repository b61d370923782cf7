"""The sample miner of the document that the worker is made after, unchanged, before the reference orchestrator.

The worker itself is before python-socketio's server, which is the sample's own counterpart, in test_socket_io.py.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from engram.hotkeys import wallet
from tests.shared import needs_shared
from tests.worker.harness import ALICE, GPU, ROOT, Echo, orchestrating, working

pytestmark = [needs_shared, pytest.mark.shared]
JOBS = [
    {"type": "inference", "payload": {"prompt": "a cat"}},
    {"type": "training", "payload": [1, 2]},
    {"type": "painting", "payload": None},
    {"payload": 7},
]


class Inferring(Echo):
    """What the sample's reader fills in."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    async def run(self, job: Any) -> Any:
        return {self.word: job.payload}


async def test_the_sample_is_introduced_and_answers_jobs_and_the_worker_does_both_in_the_same_way(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ".bittensor" / "wallets" / "miner" / "hotkeys"
    wallet.write_hotkey_file(folder / "hotkey", ALICE)
    answers: dict[str, list[Any]] = {}
    async with orchestrating() as orchestrator:

        async def ask(who: str) -> None:
            session = await orchestrator.connected()
            answers[who] = [await session.call("job", each) for each in JOBS]

        async with trio.open_nursery() as nursery:
            words = [sys.executable, "-m", "tests.worker.sample_worker", orchestrator.url]
            environ = os.environ | {"HOME": str(tmp_path)}
            process = await nursery.start(partial(trio.run_process, words, cwd=ROOT, env=environ, check=False))
            await orchestrator.until(lambda: orchestrator.sessions, 30)
            await ask("sample")
            process.kill()
            await orchestrator.until(lambda: not orchestrator.sessions)
        kinds = {"inference": Inferring("inferred"), "training": Inferring("trained")}
        async with working(orchestrator.url, kinds):
            await ask("worker")
    assert answers["sample"] == answers["worker"]
    assert answers["sample"] == [
        {"inferred": {"prompt": "a cat"}},
        {"trained": [1, 2]},
        {"error": "Unknown job type"},
        {"error": "Unknown job type"},
    ]
    sample, ours = orchestrator.introductions
    assert list(sample) == list(ours) == ["hotkey", "timestamp", "signature", "gpu_info"]
    assert sample["gpu_info"].keys() == GPU.keys()
    assert {name: type(value) for name, value in sample["gpu_info"].items()} == {
        name: type(value) for name, value in GPU.items()
    }
    assert {each["x-miner-hotkey"] for each in orchestrator.handshakes} == {ALICE.ss58}
