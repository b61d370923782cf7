"""The part of docs/worker.md that lets one try a worker, as it stands there."""

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from config import load
from engram.http.client import HttpClient
from engram.worker.errors import JobFailed
from engram.worker.kinds import load_kinds
from engram.worker.model import WorkerJob
from tests.http.servers import bare
from tests.shared import free_port
from tests.worker.processes import ROOT, Backend

PAGE = (ROOT / "docs" / "worker.md").read_text("utf-8")


async def test_the_commands_to_try_a_worker_bring_a_job_to_its_result(tmp_path: Path) -> None:
    backend, port = Backend(random.Random(1)), free_port()
    (text,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    async with bare(backend) as server:
        here = text.replace("9455", str(port)).replace("8091", str(server.port))  # ports that are free
        here = here.replace("engram run worker", "engram run worker --ops-port 0")
        environ = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),  # a checkout is where it is tried
            "HOME": str(tmp_path),
        }
        with (tmp_path / "log").open("wb") as log:
            shell = subprocess.Popen(  # noqa: ASYNC220 -- it is ended with all that it starts, as a group
                ["bash", "-euo", "pipefail", "-c", here + "\nwait"],
                cwd=tmp_path,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        http = HttpClient()
        try:
            with trio.fail_after(60):
                while backend.done.keys() != {"1"}:
                    assert shell.poll() is None, (tmp_path / "log").read_text()
                    await trio.sleep(0.05)
                state: dict[str, Any] = {"results": {}}
                while not state["results"]:
                    await trio.sleep(0.05)
                    state = (await http.request("GET", f"http://127.0.0.1:{port}/state")).json()
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait(10)
            await http.aclose()
    assert state["results"] == {"1": {"done": {"query": "abc"}, "first": 1}}


def test_the_pages_settings_are_those_of_a_worker(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n# worker.toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "worker.toml"
    file.write_text(text)
    worker = load("local", [file], environ={}, env_files=()).settings.worker
    assert (worker.netuid, worker.network, worker.wallet_name, worker.hotkey_name) == (64, "finney", "miner", "hotkey")
    assert worker.orchestrator_url == "https://orchestrator.example.com"


async def test_the_pages_kind_of_jobs_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = re.findall(r'^`kinds = \["(\S+)"\]`', PAGE, re.MULTILINE)
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    package = tmp_path / "my_miner"
    package.mkdir()
    (package / "jobs.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = load_kinds([entry])["embedding"]
    assert await kind.run(WorkerJob("a", "embedding", "a text")) == {"vector": [0.0]}
    with pytest.raises(JobFailed, match="payload is not a text"):
        await kind.run(WorkerJob("a", "embedding", 5))
