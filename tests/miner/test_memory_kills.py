"""kill -9 in a loop under mixed load: the node, its index worker, the builder of a graph, a reindexing.

Nothing that was acknowledged is lost, nothing deleted returns, and commitments are those of a rebuild from the truth.
"""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from config.model import MinerSettings
from engram.durable.driver import sqlite3
from engram.hotkeys import miner_scheme
from engram.memory.model import PUBLIC
from engram.memory.proof.keyed_tree import KeyedTree, entry_of
from engram.memory.upkeep import data_files
from tests.miner.nodes import CONTROLLER, ROOT, NodeProcess, Stamps, signed
from tests.sampling import NIGHTLY, SEED

pytestmark = pytest.mark.serial

Kill = Literal["builder", "worker", "node", "both", "reindex"]
KILLS: tuple[Kill, ...] = ("builder", "worker", "node", "both", "reindex")
LANES = (PUBLIC, PUBLIC, "notes")
DIMENSION = 384
_REINDEX = "from engram.cli import main; raise SystemExit(main())"
_TOLD = (200, 503)
"""Done or refused with a reason; or to come again, which acknowledges nothing."""
_LOST = (OSError, http.client.HTTPException, json.JSONDecodeError)


class Known:
    """What the lanes were told, by namespace. `doubtful`: a deletion was sent for it."""

    def __init__(self) -> None:
        self.stored: dict[str, set[str]] = {PUBLIC: set(), "notes": set()}
        self.deleted: dict[str, set[str]] = {PUBLIC: set(), "notes": set()}
        self.doubtful: set[str] = set()
        self.acknowledged = 0
        self.lock = threading.Lock()


def children_of(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def eventually(find: Callable[[], list[int]], within_s: float) -> list[int]:
    """What `find` finds; nothing when it has found nothing for so long."""
    give_up = time.monotonic() + within_s
    while not (found := find()) and time.monotonic() < give_up:
        time.sleep(0.002)
    return found


def body_of(endpoint: str, namespace: str, fields: dict[str, Any], stamps: "Stamps") -> bytes:
    named = fields if namespace == PUBLIC else {**fields, "namespace": namespace}
    return signed(CONTROLLER, endpoint, named, stamps.next())


def load(
    running: NodeProcess, namespace: str, rng: random.Random, known: Known, stamps: Stamps, end: threading.Event
) -> None:
    """Stores one or many, deletes, searches, until the end or until the node is gone."""
    mine: list[str] = []
    while not end.is_set():
        try:
            step(running, namespace, rng, known, stamps, mine)
        except _LOST:
            if running.process is None or running.process.poll() is not None:
                return


def step(
    running: NodeProcess, namespace: str, rng: random.Random, known: Known, stamps: Stamps, mine: list[str]
) -> None:
    def packed() -> str:
        numbers = struct.pack(f"<{DIMENSION}f", *(rng.gauss(0, 1) for _ in range(DIMENSION)))
        return base64.b64encode(numbers).decode()

    match rng.randrange(6):
        case 0 | 1:
            fields: dict[str, Any] = {"raw_embedding_b64": packed(), "text": "a text"}
            status, answer = running.ask("POST", "/IngestSynapse", body_of("IngestSynapse", namespace, fields, stamps))
            results = [answer]
        case 2:
            fields = {"items": [{"raw_embedding_b64": packed()} for _ in range(16)]}
            status, answer = running.ask("POST", "/IngestBatch", body_of("IngestBatch", namespace, fields, stamps))
            results = answer.get("results", [])
        case 3:
            fields = {"query_vector_b64": packed(), "top_k": 10}
            with known.lock:  # before asking: another lane may delete while the answer is on its way
                gone = known.deleted[namespace] - known.doubtful
            status, answer = running.ask("POST", "/QuerySynapse", body_of("QuerySynapse", namespace, fields, stamps))
            assert status in _TOLD, (status, answer)
            assert not {hit["cid"] for hit in answer.get("results", [])} & gone
            return
        case _ if len(mine) > 8:
            remove(running, namespace, mine.pop(rng.randrange(len(mine))), known, stamps)
            return
        case _:
            return
    assert status in _TOLD, (status, answer)
    cids = [result["cid"] for result in results if result.get("cid")]
    mine.extend(cids)
    with known.lock:
        known.stored[namespace] |= set(cids)
        known.acknowledged += len(cids)


def remove(running: NodeProcess, namespace: str, cid: str, known: Known, stamps: Stamps) -> None:
    with known.lock:
        known.doubtful.add(cid)
    body = body_of("DeleteSynapse", namespace, {"cid": cid}, stamps)
    status, _ = running.ask("DELETE", f"/retrieve/{cid}", body)
    if status == 200:
        with known.lock:
            known.deleted[namespace].add(cid)
            known.doubtful.discard(cid)


def strike(running: NodeProcess, kill: Kill, rng: random.Random) -> bool:
    """Kills what is named; returns whether it was there. Afterwards the node is up or its process has ended."""
    assert running.process is not None
    pid = running.process.pid
    workers = eventually(lambda: children_of(pid), 5)
    match kill:
        case "builder":
            builders = eventually(lambda: [each for worker in children_of(pid) for each in children_of(worker)], 8)
            time.sleep(rng.random() * 0.2)
            for builder in builders:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(builder, signal.SIGKILL)
            return bool(builders)
        case "worker":
            os.kill(workers[0], signal.SIGKILL)
        case "both":
            os.kill(workers[0], signal.SIGKILL)
            time.sleep(rng.random() * 0.1)
            running.kill()
        case "node" | "reindex":
            running.kill()
    return True


def reindex_and_kill(data: Path, rng: random.Random) -> None:
    """Kills `engram miner reindex` at a moment of its work."""
    command = [sys.executable, "-c", _REINDEX, "miner", "reindex", str(data)]
    building = data / "index.building"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reindexing:
        while not building.exists() and reindexing.poll() is None:
            time.sleep(0.001)
        with contextlib.suppress(subprocess.TimeoutExpired):
            reindexing.wait(rng.random() * 0.3)
        reindexing.kill()


def asked_until_told(
    running: NodeProcess, endpoint: str, namespace: str, fields: dict[str, Any], stamps: "Stamps"
) -> Any:
    """The answer; a node that says to come again, as while its disk is slow to flush, is asked again for a while."""
    give_up = time.monotonic() + 60
    while True:
        status, answer = running.ask("POST", f"/{endpoint}", body_of(endpoint, namespace, fields, stamps))
        if status != 503 or time.monotonic() > give_up:
            assert status == 200, (status, answer, running.log()[-20_000:])
            return answer
        time.sleep(0.1)


def listed(running: NodeProcess, namespace: str, stamps: Stamps) -> set[str]:
    found: set[str] = set()
    while True:
        fields = {"limit": 200, "offset": len(found)}
        page = asked_until_told(running, "list", namespace, fields, stamps)["records"]
        if not page:
            return found
        found |= {record["cid"] for record in page}


def committed(running: NodeProcess, namespace: str, stamps: Stamps) -> tuple[str, int]:
    path = "/commitment"
    if namespace != PUBLIC:
        named = miner_scheme.sign_namespace_request(CONTROLLER, "commitment", namespace, {}, stamps.next())
        path += "?" + "&".join(f"{key}={value}" for key, value in named.items())
    answer = running.get(path)
    return answer["root_hex"], answer["count"]


def rebuilt(data: Path, namespace: str) -> tuple[str, int]:
    """Root and count from the rows that are on disk."""
    with contextlib.closing(sqlite3.connect(data / "truth.db")) as truth:
        rows = truth.execute("SELECT cid, embedding FROM records WHERE namespace = ?", (namespace,)).fetchall()
    return KeyedTree(entry_of(cid, embedding) for cid, embedding in rows).root.hex(), len(rows)


def hold(running: NodeProcess, known: Known, stamps: Stamps, data: Path) -> None:
    """What must be so after every kill."""
    for namespace in known.stored:
        there = listed(running, namespace, stamps)
        assert known.stored[namespace] - known.deleted[namespace] - known.doubtful <= there
        assert not known.deleted[namespace] & there
        assert (
            committed(running, namespace, stamps)
            == rebuilt(data, namespace)
            == (rebuilt(data, namespace)[0], len(there))
        )
        fields = {"query_vector_b64": base64.b64encode(struct.pack("<384f", *[1.0] * 384)).decode(), "top_k": 100}
        answer = asked_until_told(running, "QuerySynapse", namespace, fields, stamps)
        assert answer["error"] is None, running.log()[-20_000:]
        hits = {hit["cid"] for hit in answer["results"]}
        assert hits <= there
        assert len(hits) == min(100, len(there))


def plan(block: int) -> list[Kill]:
    """Every kind at least once; a builder is killed first, since a worker tries again after a minute only."""
    rng = random.Random(SEED * 1_000 + block)
    rest: list[Kill] = [kill for kill in KILLS if kill != "builder"]
    rng.shuffle(rest)
    more: list[Kill] = [rng.choice(KILLS) for _ in range(12)] if NIGHTLY else []
    return ["builder", *rest, *more]


@pytest.mark.parametrize("block", range(12 if NIGHTLY else 1))
def test_nothing_is_lost_and_nothing_returns_whatever_process_of_a_node_is_killed(tmp_path: Path, block: int) -> None:
    rng = random.Random(SEED * 1_000 + block)
    known, stamps, data = Known(), Stamps(), tmp_path / "data"
    struck: set[Kill] = set()
    running = NodeProcess(tmp_path, miner=MinerSettings(requests_per_minute=0))  # three lanes may ask 100 a second
    running.entry = [str(ROOT / "tests" / "miner" / "small_graph_node.py")]
    try:
        running.start()
        for number, kill in enumerate(plan(block)):
            end = threading.Event()
            with concurrent.futures.ThreadPoolExecutor(len(LANES)) as lanes:
                begun = [
                    lanes.submit(load, running, lane, random.Random(f"{rng.random()}{number}"), known, stamps, end)
                    for lane in LANES
                ]
                enough = known.acknowledged + (120 if kill == "builder" else rng.randint(10, 80))
                give_up = time.monotonic() + 30
                while known.acknowledged < enough and time.monotonic() < give_up:
                    time.sleep(0.001)
                if strike(running, kill, rng):
                    struck.add(kill)
                after = known.acknowledged + rng.randint(1, 30)
                while known.acknowledged < after and running.process is not None and running.process.poll() is None:
                    time.sleep(0.001)
                    assert time.monotonic() < give_up + 60, "nothing is acknowledged any more"
                end.set()
                for lane in begun:
                    lane.result(timeout=60)
            assert running.process is not None
            if running.process.poll() is not None:
                if kill == "reindex":
                    reindex_and_kill(data, rng)
                running.start()
            hold(running, known, stamps, data)
        assert struck == set(KILLS)
        running.terminate()
        running.start()
        hold(running, known, stamps, data)
        assert not list(data.glob("index.*")), "what a killed reindexing left is still there"
    finally:
        if running.process is not None and running.process.poll() is None:
            running.kill()


@pytest.mark.parametrize("moment", ["while it builds", "amid the swap", "after the swap"])
def test_a_reindexing_that_was_killed_leaves_an_index_and_no_rest(tmp_path: Path, moment: str) -> None:
    for name in ("index", "index.building"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard").write_text(name)
    if moment == "amid the swap":
        (tmp_path / "index").rename(tmp_path / "index.old")
    if moment == "after the swap":
        (tmp_path / "index.building").rename(tmp_path / "index.old")
    data_files.finish(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert (tmp_path / "index" / "shard").read_text() == "index"
