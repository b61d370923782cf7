"""A gateway with nodes in a real container engine: killed anywhere, beside local ones, and without the engine."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from config.engines import engine_at
from engram.demo import ANSWER
from tests.e2e.buyer import Buyer, balance
from tests.e2e.gateway_process import FAST, ROOT, GatewayProcess
from tests.engine import ADDRESS, IMAGE, RealEngine, on_an_engine, provide_image
from tests.sampling import sample

pytestmark = on_an_engine

EFFECTS = ("spawn:before", "container:created", "container:started", "spawn:after", "destroy:before", "destroy:after")
COMMITS = 13
POINTS = [*EFFECTS, *(f"{moment}:{number}" for number in range(1, COMMITS) for moment in ("begin", "commit"))]
OPENING_BALANCE, LITE_HOUR = 1_000_000_000, 100_000


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


@pytest.mark.parametrize("point", sample("kill points of containers", POINTS, 3))
def test_a_gateway_killed_anywhere_has_one_container_and_then_none(tmp_path: Path, point: str) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings('["docker"]')) as gateway:
        gateway.spawn(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        bought = ""
        try:
            if gateway.wait_ready():
                buyer.quote(gateway.url)
                bought = str(buyer.pay(gateway.url).body["session_id"])
                buyer.wait(gateway.url, bought, "active")
                buyer.stop(gateway.url, bought)
                buyer.wait(gateway.url, bought, "stopped")
        except (OSError, AssertionError, KeyError, ValueError):
            pass
        assert gateway.wait() == -9, f"{point} was not passed"
        gateway.start()
        if not buyer.payment:
            buyer.quote(gateway.url)
        session_id = str(buyer.pay(gateway.url).body["session_id"])
        assert bought in ("", session_id)
        if buyer.wait(gateway.url, session_id, "active", "stopped", timeout=60.0)["status"] == "active":
            assert len(containers(State="running")) == len(containers()) == 1
            assert buyer.stop(gateway.url, session_id).status == 200
        buyer.wait(gateway.url, session_id, "stopped")
        assert containers() == []
        assert balance(gateway.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE - LITE_HOUR
        assert gateway.terminate() == 0


def test_local_and_docker_sell_side_by_side_and_an_engine_that_is_gone_stops_neither(tmp_path: Path) -> None:
    socket = tmp_path / "engine.sock"
    socket.symlink_to(engine_at(ADDRESS).path)
    two = settings('["local", "docker"]', f"unix://{socket}")
    first, second, third = Buyer(), Buyer(), Buyer()
    with GatewayProcess(tmp_path / "data", settings=two) as gateway:
        gateway.start()
        one = buy(gateway, first)
        assert (len(gateway.nodes()), containers()) == (1, [])  # the first backend that has room
        other = buy(gateway, second)
        assert (len(gateway.nodes()), len(containers(State="running"))) == (1, 1)
        assert (nodes(gateway)["local"]["free"], nodes(gateway)["docker"]["free"]) == (0, 1)

        socket.unlink()
        assert first.stop(gateway.url, one).status == 200
        first.wait(gateway.url, one, "stopped")
        until(lambda: not nodes(gateway)["docker"]["answers"])
        again = buy(gateway, third)  # local's place is free, whatever became of the engine
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
        assert third.stop(gateway.url, again).status == 200
        third.wait(gateway.url, again, "stopped")
        assert gateway.nodes() == []


def buy(gateway: GatewayProcess, buyer: Buyer) -> str:
    buyer.quote(gateway.url)
    session_id = str(buyer.pay(gateway.url).body["session_id"])
    buyer.wait(gateway.url, session_id, "active", timeout=60.0)
    return session_id


def until(holds: Any, within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
