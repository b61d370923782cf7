"""A node, index worker and all, on a disk that fills up: clear errors, reads are served, and it goes on afterwards."""

import base64
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.model import MinerSettings
from tests import shared
from tests.miner.nodes import NodeProcess, encoded, node

pytestmark = [pytest.mark.serial, pytest.mark.nightly]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 96 MiB of its own; a new index takes 24 of them."""
    with shared.small_disk(tmp_path, "96m") as place:
        yield place


@pytest.fixture
def running(disk: Path) -> Iterator[NodeProcess]:
    made = NodeProcess(disk, miner=MinerSettings(requests_per_minute=0), log_file=str(disk.parent / "node.log"))
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.terminate()


def until(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    give_up = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def items(rng: random.Random) -> list[dict[str, Any]]:
    vectors = [struct.pack("<384f", *(rng.gauss(0, 1) for _ in range(384))) for _ in range(32)]
    return [{"raw_embedding_b64": base64.b64encode(vector).decode(), "text": "a text"} for vector in vectors]


def listed(running: NodeProcess) -> set[str]:
    found: set[str] = set()
    while page := running.post("/list", limit=200, offset=len(found))["records"]:
        found |= {record["cid"] for record in page}
    return found


def searched(running: NodeProcess) -> tuple[int, int]:
    status, answer = running.ask(
        "POST", "/QuerySynapse", b'{"query_vector": [%s], "top_k": 5}' % b",".join([b"1"] * 384)
    )
    return status, len(answer["results"])


def test_a_full_disk_ends_no_node_and_costs_nothing_acknowledged(disk: Path, running: NodeProcess) -> None:
    ballast, rng = disk / "ballast", random.Random(1)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 66 * 1024**2)
    acknowledged: set[str] = set()

    def refused() -> bool:
        status, answer = running.ask("POST", "/IngestBatch", encoded({"items": items(rng)}))
        assert status == 200
        acknowledged.update(result["cid"] for result in answer["results"] if result["cid"])
        wrong = [result["error"] for result in answer["results"] if result["error"]]
        assert all("disk is full" in error for error in wrong)
        return bool(wrong) or any(not result.get("searchable", True) for result in answer["results"])

    until(refused, within_s=120)
    until(lambda: running.get("/health")["index"] == "loading")
    assert listed(running) == acknowledged
    assert searched(running) == (503, 0)
    assert "SIGBUS, as happens on a full disk" in (disk.parent / "node.log").read_text()
    ballast.unlink()
    until(lambda: searched(running) == (200, 5))
    assert running.post("/IngestBatch", items=items(rng))["stored"] == 32
    assert len(listed(running)) == len(acknowledged) + 32
    assert running.get("/commitment")["count"] == len(acknowledged) + 32


def test_a_node_that_was_full_stores_again_after_deletions(tmp_path: Path) -> None:
    rng = random.Random(2)
    told: dict[str, Any] = {
        "storage_bytes": 40_000_000,
        "miner": MinerSettings(requests_per_minute=0, controller_share=0.0),
    }
    with node(tmp_path, **told) as running:
        stored: list[str] = []

        def is_full() -> bool:
            results = running.post("/IngestBatch", items=items(rng))["results"]
            stored.extend(result["cid"] for result in results if result["cid"])
            return any(result.get("code") == "over_quota" for result in results)

        until(is_full, within_s=120)
        for cid in stored[: len(stored) * 3 // 4]:
            assert running.delete(cid)[0] == 200
        until(lambda: not is_full())  # into what the databases have given again at once
        until(lambda: not any(is_full() for _ in range(32)))  # into what the index has, too, built anew
