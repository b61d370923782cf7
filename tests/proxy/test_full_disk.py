"""A whole proxy on a disk that fills up, log and ledger too: what needs the disk is 503, and all else goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import shared
from tests.proxy.plain_backend import plain_backend
from tests.proxy.process import ROOT, ProxyProcess, document
from tests.proxy.test_process import call, status, until

pytestmark = pytest.mark.heavy
MIB = 1024**2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB of its own."""
    with shared.small_disk(tmp_path, "24m") as place:
        yield place


def fill(ballast: Path) -> None:
    """Take the last byte of its disk."""
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def test_a_full_disk_is_503_where_it_is_needed_and_costs_no_job_its_result(disk: Path) -> None:
    go_on, began = threading.Event(), threading.Semaphore(0)

    def reply(handler: object, body: bytes) -> bytes:
        began.release()
        if body.startswith(b"wait"):
            go_on.wait(60)
        return body

    large, spool = b"l" * 3 * MIB, 16 * MIB
    with plain_backend(reply) as port:
        settings = document(port, bodies={"spool_bytes": spool, "memory_bytes": 65_536})
        settings["routes"] = [{"path": "/inference", "backend": "inference", "answer_after_s": 0.5}]
        with ProxyProcess(disk, settings).start(LOG_FORMAT="json") as proxy:
            assert call(proxy, "POST", "/train", large)[:2] == (200, large)
            queued = call(proxy, "POST", "/inference", b"wait", **{"Idempotency-Key": "one"})
            assert queued[0] == 202
            job = f"/jobs/{json.loads(queued[1])['job_id']}"
            while began.acquire(blocking=False):
                pass

            fill(disk / "ballast")
            code, body, headers = call(proxy, "POST", "/train", large)
            assert (code, json.loads(body)["code"], headers["retry-after"]) == (503, "spool_full", "5")
            for key in ({}, {"Idempotency-Key": "two"}):
                code, body, headers = call(proxy, "POST", "/inference", b"{}", **key)
                assert (code, json.loads(body)["code"], headers["retry-after"]) == (503, "jobs_unavailable", "5")
            assert not began.acquire(blocking=False), "nothing of this has reached the backend"
            assert call(proxy, "POST", "/train", b"small")[:2] == (200, b"small")

            go_on.set()
            until(lambda: "disk is full" in status(proxy)["requests"]["jobs_error"])
            code, body, _ = call(proxy, "GET", job)
            assert code == 202, "it is not told as failed, nor as done before that is noted"
            assert call(proxy, "POST", "/inference", b"wait", **{"Idempotency-Key": "one"})[0] == 202

            (disk / "ballast").unlink()
            until(lambda: call(proxy, "GET", job)[0] == 200)
            assert call(proxy, "GET", job)[1] == b"wait"
            assert call(proxy, "POST", "/train", large)[:2] == (200, large)
            code, body, headers = call(proxy, "POST", "/inference", b"{}", **{"Idempotency-Key": "two"})
            assert (code, body, headers["x-job-status"]) == (200, b"{}", "done")
            found = status(proxy)
            assert found["requests"] == {"in_progress": 0, "queued": 0, "jobs": 0, "jobs_error": ""}
            assert found["settings"]["spool_bytes"] == 0
            assert os.stat(disk / "data").st_mode & 0o077 == 0
            proxy.send_signal(signal.SIGTERM)
            assert proxy.wait() == 0
            assert '"event":"stopped"' in proxy.log_path.read_text().splitlines()[-1]


def test_a_disk_in_memory_that_is_smaller_than_the_quota_of_bodies_keeps_the_proxy_from_starting(disk: Path) -> None:
    ProxyProcess(disk, document(bodies={"spool_bytes": 1024 * MIB}))
    found = subprocess.run(
        [sys.executable, "-m", "reverse_proxy.server", "--data-dir", "data"],
        cwd=disk,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert "is in memory (tmpfs, 25165824 bytes) and smaller than bodies.spool_bytes (1073741824)" in found.stderr
