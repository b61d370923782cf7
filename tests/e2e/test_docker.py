"""A gateway with nodes in a real container engine: killed anywhere, beside local ones, and without the engine."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from config.engines import engine_at
from engram.demo import ANSWER
from engram.http.errors import HttpError
from engram.sdk import NodeClient, SdkError
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import FAST, ROOT, GatewayProcess
from tests.e2e.purchases import assert_paid_once, buy, buy_killed_at, stop, until
from tests.engine import ADDRESS, IMAGE, RealEngine, on_an_engine, provide_image
from tests.sampling import sample

pytestmark = on_an_engine

EFFECTS = (
    "spawn:before",
    "container:volume",
    "container:created",
    "container:started",
    "spawn:after",
    "destroy:before",
    "destroy:after",
)
COMMITS = 13
POINTS = [*EFFECTS, *(f"{moment}:{number}" for number in range(1, COMMITS) for moment in ("begin", "commit"))]


def settings(backends: str, host: str = ADDRESS, more: str = "") -> str:
    return f"""{FAST}
[provisioning]
backends = {backends}
places = 1
miner_image = "{IMAGE}"
destroy_grace_s = 3.0
[docker]
host = "{host}"
places = 2
{more}
"""


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    provide_image()


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    trio.run(RealEngine().remove_all)


def containers(**state: object) -> list[dict[str, Any]]:
    async def ask() -> list[dict[str, Any]]:
        _, found = await RealEngine().ask("GET", '/containers/json?all=1&filters={"label":["engram.ledger"]}')
        return [each for each in found if each.items() >= state.items()]

    return trio.run(ask)


def volumes() -> list[dict[str, Any]]:
    _, found = trio.run(RealEngine().ask, "GET", '/volumes?filters={"label":["engram.ledger"]}')
    return list(found["Volumes"] or ())


def nodes(gateway: GatewayProcess) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{gateway.url}/nodes", timeout=5) as answer:
        return {each["name"]: each for each in json.load(answer)["backends"]}


def test_the_demo_runs_on_a_container_engine(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "engram.demo", "--backend", "docker"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert (result["demo"], result["query_top_text"], result["stopped"]) == ("ok", ANSWER, True)
    assert containers() == []


@pytest.mark.parametrize("point", sample("kill points of containers", POINTS, 1))
def test_a_gateway_killed_anywhere_has_one_container_and_then_none(tmp_path: Path, point: str) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings('["docker"]')) as gateway:
        session = buy_killed_at(gateway, buyer, point)
        if session["status"] == "active":
            assert len(containers(State="running")) == len(containers()) == 1
            stop(gateway, buyer, session["session_id"])
        assert (containers(), volumes()) == ([], [])
        assert_paid_once(gateway, buyer)
        assert gateway.terminate() == 0


def test_local_and_docker_sell_side_by_side_and_an_engine_that_is_gone_stops_neither(tmp_path: Path) -> None:
    socket = tmp_path / "engine.sock"
    socket.symlink_to(engine_at(ADDRESS).path)
    two = settings('["local", "docker"]', f"unix://{socket}")
    first, second, third = Buyer(), Buyer(), Buyer()
    with GatewayProcess(tmp_path / "data", settings=two) as gateway:
        gateway.start()
        one = str(buy(gateway, first)["session_id"])
        assert (len(gateway.nodes()), containers()) == (1, [])  # the first backend that has room
        other = str(buy(gateway, second)["session_id"])
        assert (len(gateway.nodes()), len(containers(State="running"))) == (1, 1)
        assert (nodes(gateway)["local"]["free"], nodes(gateway)["docker"]["free"]) == (0, 1)

        socket.unlink()
        stop(gateway, first, one)
        until(lambda: not nodes(gateway)["docker"]["answers"])
        again = str(buy(gateway, third)["session_id"])  # local's place is free, whatever became of the engine
        assert second.get(gateway.url, other).body["status"] == "active"
        until(lambda: nodes(gateway)["local"]["free"] == 0)

        gateway.kill()
        gateway.start()  # without the engine
        assert second.get(gateway.url, other).body["status"] == "active"
        assert second.stop(gateway.url, other).status == 200
        socket.symlink_to(engine_at(ADDRESS).path)
        second.wait(gateway.url, other, "stopped", timeout=60.0)
        assert containers() == []
        assert third.get(gateway.url, again).body["status"] == "active"
        stop(gateway, third, again)
        assert gateway.nodes() == []


def test_a_node_that_never_has_its_hotkey_is_certified_and_serves(tmp_path: Path) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings('["docker"]', more='node_keys = "session"')) as gateway:
        gateway.start()
        session = buy(gateway, buyer)
        (node,) = containers(State="running")
        files = trio.run(RealEngine().ask, "GET", f"/containers/{node['Id']}/archive?path=/data/hotkey")
        assert files[0] == 404
        with urllib.request.urlopen(f"{session['node_endpoint']}/health", timeout=5) as answer:
            assert json.load(answer)["ready"] is True
        trio.run(RealEngine().ask, "POST", f"/containers/{node['Id']}/kill")  # it comes back with another key
        until(lambda: buyer.get(gateway.url, str(session["session_id"])).body["status"] == "degraded")
        buyer.wait(gateway.url, str(session["session_id"]), "active", timeout=60.0)
        stop(gateway, buyer, str(session["session_id"]))


def by_hand(call: str, node: dict[str, Any]) -> None:
    method, _, rest = call.partition(" ")
    status, said = trio.run(RealEngine().ask, method, f"/containers/{node['Id']}{rest}")
    assert status < 300, said


def kill_engine(_: dict[str, Any]) -> None:
    """Kill the engine; return when its successor answers."""
    path = Path(os.environ["ENGRAM_ENGINE_PID"])
    killed = path.read_text()
    os.kill(int(killed), signal.SIGKILL)

    def is_back() -> bool:
        try:
            return path.read_text() not in ("", killed) and trio.run(RealEngine().ask, "GET", "/_ping")[0] == 200
        except (OSError, HttpError):
            return False

    until(is_back, 60.0)


def rename_and_kill(node: dict[str, Any]) -> None:
    by_hand("POST /rename?name=renamed", node)
    by_hand("POST /kill", node)


HANDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "the engine is killed": kill_engine,
    "its container is removed": partial(by_hand, "DELETE ?force=1&v=1"),
    "its container is paused": partial(by_hand, "POST /pause"),
    "its container is stopped": partial(by_hand, "POST /stop?t=3"),
    "its container is renamed and killed": rename_and_kill,
}


@pytest.mark.parametrize("what", sample("what happens to a container", list(HANDS), 1))
def test_a_node_comes_back_with_its_memory_whatever_is_done_to_its_container(tmp_path: Path, what: str) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings('["docker"]')) as gateway:
        gateway.start()
        session = buy(gateway, buyer)
        with NodeClient(session["node_endpoint"], buyer.keypair) as node:
            node.ingest_text(ANSWER)
        (before,) = containers(State="running")
        HANDS[what](before)

        def serves() -> bool:
            try:
                found = buyer.get(gateway.url, str(session["session_id"])).body
                with NodeClient(session["node_endpoint"], buyer.keypair) as node:
                    return found["status"] == "active" and node.query(ANSWER, top_k=1)[0].text == ANSWER
            except (SdkError, IndexError, OSError):
                return False

        until(lambda: len(containers(State="running")) == 1 and serves(), 90.0)
        assert (len(containers()), len(volumes())) == (1, 1)
        assert not buyer.get(gateway.url, str(session["session_id"])).body.get("emptied_at")
        stop(gateway, buyer, str(session["session_id"]))
        assert (containers(), volumes()) == ([], [])
