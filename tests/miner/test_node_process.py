"""The node as a process: started as the gateway starts it, spoken to over HTTP, ended in every way."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import pytest

from engram.durable.driver import sqlite3
from engram.memory.embed import weights
from engram.memory.model import PUBLIC
from engram.memory.proof.keyed_tree import KeyedTree, entry_of
from engram.miner.folder import boot_id, start_ticks
from engram.nodes import launch
from tests.miner.nodes import CONTROLLER, ROOT, NodeProcess, encoded, in_namespace, node, signed
from tests.sampling import NIGHTLY, SEED

pytestmark = pytest.mark.serial


def installed() -> bool:
    try:
        return bool(version(weights.PACKAGE))
    except PackageNotFoundError:
        return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[NodeProcess]:
    with node(tmp_path) as made:
        yield made


def vector(*numbers: float) -> list[float]:
    return [*numbers, *[0.0] * (384 - len(numbers))]


def worker_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int, within_s: float) -> None:
    give_up = time.monotonic() + within_s
    while is_alive(pid):
        assert time.monotonic() < give_up, f"process {pid} is still there"
        time.sleep(0.01)


def root_of_the_truth(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as truth:
        rows = truth.execute("SELECT cid, embedding FROM records WHERE namespace = ?", (PUBLIC,)).fetchall()
    return KeyedTree(entry_of(cid, embedding) for cid, embedding in rows).root.hex()


def refused_by_its_length(running: NodeProcess, length: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.putrequest("POST", "/IngestSynapse")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_node_serves_what_it_is_given(tmp_path: Path) -> None:
    with node(tmp_path) as running:
        assert running.process is not None
        health = running.get("/health")
        assert (health["launch_token"], health["session_id"], health["vectors"]) == ("token-1", "session-1", 0)
        noted = json.loads((tmp_path / "data" / "node.json").read_bytes())
        pid = running.process.pid
        assert (noted["pid"], noted["port"], noted["launch_token"]) == (pid, running.port, "token-1")
        assert (noted["boot_id"], noted["start_ticks"]) == (boot_id(), start_ticks(pid))
        stored = running.post("/IngestSynapse", text="the red house", metadata={"n": 1})
        status, record = running.retrieve(stored["cid"])
        assert (status, record) == (200, {"cid": stored["cid"], "metadata": {"n": "1"}})
        assert running.retrieve("v1::" + "0" * 64)[0] == 404
        assert running.post("/QuerySynapse", query_text="a red house")["results"][0]["cid"] == stored["cid"]
        assert running.post("/list")["count"] == 1
        assert running.get("/commitment")["count"] == 1
        private = running.post("/IngestSynapse", text="mine", **in_namespace(CONTROLLER, "notes"))
        assert running.retrieve(private["cid"])[0] == 404
        assert running.retrieve(private["cid"], **in_namespace(CONTROLLER, "notes"))[0] == 200
        assert running.get("/stats")["vectors"] == 1
        assert running.delete(stored["cid"]) == (200, {"deleted": True, "cid": stored["cid"]})
        assert running.ask("POST", "/IngestSynapse", b"{")[0] == 400
        assert refused_by_its_length(running, 11_000_000) == 413
        assert running.ask("GET", "/nowhere")[0] == 404
        assert running.terminate() == 0
        assert "Traceback" not in running.log()


def test_a_node_is_there_within_three_seconds(tmp_path: Path) -> None:
    with node(tmp_path, embedder=launch.EmbedderLaunch(kind="minilm", cache_dir=str(tmp_path / "cache"))) as running:
        running.terminate()
        running.is_warm = False
        running.start()
        assert running.process is not None
        # On a quiet machine 0.5 s by the clock; the processor's time does not depend on who else is running.
        ticks = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        assert sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") < 3


@pytest.mark.skipif(not installed(), reason=f"needs the package {weights.PACKAGE}")
def test_a_text_is_found_by_meaning_over_http(tmp_path: Path) -> None:
    embedder = launch.EmbedderLaunch(kind="minilm", cache_dir=str(tmp_path / "cache"))
    with node(tmp_path, embedder=embedder) as running:
        texts = ["The kitten sleeps on the sofa all afternoon.", "Inflation made groceries dearer this spring."]
        for text in texts:
            assert running.post("/IngestSynapse", text=text, metadata={"text": text})["error"] is None
        (best, _) = running.post("/QuerySynapse", query_text="Where do cats rest?")["results"]
        assert best["metadata"]["text"] == texts[0]
        assert running.get("/health")["embedder"] == "ready"


def test_a_node_without_weights_still_serves_vectors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    embedder = launch.EmbedderLaunch(kind="minilm", weights_dir=str(tmp_path / "empty"))
    with node(tmp_path, embedder=embedder) as running:
        status, refusal = running.ask("POST", "/IngestSynapse", encoded({"text": "a text"}))
        assert (status, refusal["cid"], refusal["code"]) == (503, None, "embedder_unavailable")
        assert running.get("/health")["embedder"] == "failed"
        assert running.post("/IngestSynapse", raw_embedding=vector(1))["error"] is None


def test_a_second_node_does_not_take_the_folder(running: NodeProcess) -> None:
    second = [sys.executable, "-m", "engram.miner", "--config", str(running.launch_file)]
    assert subprocess.run(second, cwd=ROOT, check=False, timeout=20).returncode == 2
    assert "in use" in running.log()
    assert running.get("/health")["status"] == "ok"


def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    missing = subprocess.run(
        [sys.executable, "-m", "engram.miner", "--config", str(tmp_path / "none.json")],
        cwd=ROOT,
        check=False,
        capture_output=True,
        timeout=20,
    )
    assert missing.returncode == 2
    assert b"none.json" in missing.stderr


def test_a_term_lets_running_requests_finish(running: NodeProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    body = encoded({"text": "the last one"})
    connection.putrequest("POST", "/IngestSynapse")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[:5])
    assert running.process is not None
    os.kill(running.process.pid, signal.SIGTERM)
    while True:
        try:
            socket.create_connection(("127.0.0.1", running.port), timeout=1).close()
        except ConnectionRefusedError:
            break
        time.sleep(0.01)
    connection.send(body[5:])
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer["error"] is None
    began = time.monotonic()
    assert running.process.wait(timeout=10) == 0
    assert time.monotonic() - began < 5
    running.start()
    assert running.retrieve(answer["cid"])[0] == 200


def test_a_term_to_the_whole_group_ends_it_as_well(running: NodeProcess) -> None:
    assert running.process is not None
    stored = running.post("/IngestSynapse", raw_embedding=vector(1))["cid"]
    worker = worker_of(running.process.pid)
    os.killpg(running.process.pid, signal.SIGTERM)
    assert running.process.wait(timeout=10) == 0
    wait_until_dead(worker, 3)
    assert "Crashed" not in running.log()
    running.start()
    assert running.retrieve(stored)[0] == 200


def test_a_node_ends_at_its_end_by_itself_unless_the_end_was_moved(tmp_path: Path) -> None:
    with node(tmp_path) as running:
        running.terminate()
        unhurried = 3 * running.start() + 1
        running.terminate()
        for move_by, ends in ((60.0, False), (0.0, True)):
            end = time.time() + unhurried
            running.launch = msgspec.structs.replace(running.launch, ends_at=end)
            running.start()
            assert running.process is not None
            worker = worker_of(running.process.pid)
            launch.write(running.launch_file, msgspec.structs.replace(running.launch, ends_at=end + move_by))
            if ends:
                assert running.process.wait(timeout=unhurried + 10) == 0
                assert "end_reached" in running.log()
                wait_until_dead(worker, 3)
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    running.process.wait(timeout=end + 0.5 - time.time())
                assert running.get("/health")["status"] == "ok"
                running.terminate()


def test_the_worker_dies_with_a_killed_node(running: NodeProcess) -> None:
    assert running.process is not None
    worker = worker_of(running.process.pid)
    running.kill()
    wait_until_dead(worker, 3)


def test_a_killed_worker_is_replaced_while_the_node_serves(running: NodeProcess) -> None:
    assert running.process is not None
    stored = running.post("/IngestSynapse", raw_embedding=vector(1))["cid"]
    worker = worker_of(running.process.pid)
    os.kill(worker, signal.SIGKILL)
    assert running.get("/health")["status"] == "ok"
    later = running.post("/IngestSynapse", raw_embedding=vector(1, 1))["cid"]
    found = running.post("/QuerySynapse", query_vector=vector(1))["results"]
    assert [hit["cid"] for hit in found] == [stored, later]
    assert worker_of(running.process.pid) != worker


def test_a_full_folder_is_refused_with_a_clear_error(tmp_path: Path) -> None:
    with node(tmp_path, storage_bytes=1_500_000) as running:
        answers = [running.post("/IngestSynapse", raw_embedding=vector(1, i)) for i in range(300)]
        assert answers[0]["error"] is None
        assert answers[-1]["code"] == "over_quota"
        assert running.get("/health")["status"] == "ok"


@pytest.mark.parametrize("round_number", range(2 if NIGHTLY else 1))
def test_nothing_acknowledged_is_lost_and_nothing_deleted_returns_when_the_node_is_killed(
    tmp_path: Path, round_number: int
) -> None:
    rng = random.Random(SEED * 1_000 + round_number)
    stored: set[str] = set()
    deleted: set[str] = set()
    doubtful: set[str] = set()
    lock = threading.Lock()

    def load(running: NodeProcess, lane: int, kill: threading.Event) -> None:
        mine: list[str] = []
        i = 0
        while not kill.is_set():
            i += 1
            try:
                answer = running.post("/IngestSynapse", text=f"lane {lane} kill {len(kills)} text {i}")
                with lock:
                    stored.add(answer["cid"])
                mine.append(answer["cid"])
                if i % 4 == 0:
                    gone = mine.pop(0)
                    with lock:
                        doubtful.add(gone)
                    assert running.delete(gone)[0] == 200
                    with lock:
                        deleted.add(gone)
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                return

    kills: list[float] = []
    with node(tmp_path) as running, concurrent.futures.ThreadPoolExecutor(3) as lanes:
        for _ in range(3):
            kill = threading.Event()
            running_lanes = [lanes.submit(load, running, lane, kill) for lane in range(3)]
            enough = len(stored) + rng.randint(5, 60)
            while len(stored) < enough:
                time.sleep(0.001)
            running.kill()
            kill.set()
            for lane in running_lanes:
                lane.result(timeout=20)
            kills.append(running.start())
        assert max(kills) < 10
        for cid in stored - doubtful:
            assert running.retrieve(cid)[0] == 200
        for cid in deleted:
            assert running.retrieve(cid)[0] == 404
        there = stored - doubtful
        listed: set[str] = set()
        while page := running.post("/list", limit=200, offset=len(listed))["records"]:
            listed |= {record["cid"] for record in page}
        assert there <= listed
        assert not deleted & listed
        assert running.get("/commitment")["count"] == len(listed) == running.get("/health")["vectors"]
        assert running.get("/commitment")["root_hex"] == root_of_the_truth(tmp_path / "data" / "truth.db")
        results = running.post("/QuerySynapse", query_text="lane 0 kill 0 text 1", top_k=100)["results"]
        assert {hit["cid"] for hit in results} <= listed
        assert len(results) == min(100, len(listed))


def test_a_controllers_signature_is_checked_over_the_wire(running: NodeProcess) -> None:
    body = signed(CONTROLLER, "IngestSynapse", {"text": "é — signed", "metadata": {"x": 1e-7}, "namespace": "notes"})
    assert running.ask("POST", "/IngestSynapse", body)[1]["error"] is None
    assert running.ask("POST", "/IngestSynapse", body)[0] == 403  # a replay is nobody's


def test_the_operator_has_a_listener_of_its_own(tmp_path: Path) -> None:
    with node(tmp_path, chain_endpoint="http://127.0.0.1:9") as running:
        running.post("/IngestSynapse", raw_embedding=vector(1))
        noted = json.loads((tmp_path / "data" / "ops.json").read_bytes())
        assert noted["host"] == "127.0.0.1"
        connection = http.client.HTTPConnection("127.0.0.1", noted["port"], timeout=10)
        connection.request("GET", "/metrics")
        assert b"engram_miner_vectors 1.0" in connection.getresponse().read()
        connection.close()
        assert running.get("/metagraph") == {"neurons": [], "block": None}  # the chain cannot be reached
        assert running.terminate() == 0


def test_shares_and_conversations_outlive_a_kill(tmp_path: Path) -> None:
    share = {"share_index": 1, "share_hex": "ab", "threshold": 2, "total": 3, "namespace": "vault"}
    with node(tmp_path) as running:
        assert running.ask("POST", "/KeyShareSynapse", signed(CONTROLLER, "KeyShareSynapse", share))[0] == 200
        said = {"user_id": "u", "messages": [{"role": "user", "content": "hi", "ts": 1}]}
        assert running.ask("POST", "/chat-history", signed(CONTROLLER, "SaveChat", said))[0] == 200
        running.kill()
        running.start()
        kept = running.ask("POST", "/KeyShareRetrieve", signed(CONTROLLER, "KeyShareRetrieve", {"namespace": "vault"}))
        assert (kept[0], kept[1]["share_hex"]) == (200, "ab")


@pytest.mark.parametrize("named_by", ["launch file", "ENGRAM_ENV"])
def test_where_mainnet_is_named_everything_must_be_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    if named_by == "ENGRAM_ENV":
        monkeypatch.setenv("ENGRAM_ENV", "mainnet")
    with node(tmp_path, environment="mainnet" if named_by == "launch file" else "local") as running:
        assert running.ask("POST", "/QuerySynapse", encoded({"query_vector": vector(1)}))[0] == 401
        assert running.ask("POST", "/list", b"{}")[0] == 401
        body = signed(CONTROLLER, "QuerySynapse", {"query_vector": vector(1)})
        assert running.ask("POST", "/QuerySynapse", body)[0] == 200
        assert running.ask("POST", "/QuerySynapse", body)[0] == 401
