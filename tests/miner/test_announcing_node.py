"""A node that announces itself: its wiring, and the process against a chain on a real socket."""

import json
import random
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.model import MinerSettings
from engram.clock import SystemClock
from engram.hotkeys import ss58
from engram.miner.chain_children import follow
from engram.miner.errors import NodeError
from engram.nodes.launch import LaunchFile
from engram.telemetry.metrics import Metrics
from tests.cli.chains import served
from tests.fakes.living_chain import NETUID, LivingChain
from tests.miner.nodes import NODE, NodeProcess, node
from tests.sampling import SEED

ADDRESS = 0x7F000001
SUBMIT = "author_submitExtrinsic"


def launch(**told: Any) -> LaunchFile:
    fields = {"session_id": "s", "launch_token": "t", "port": 18_100, "data_dir": "d", "hotkey_file": "h"}
    return LaunchFile(**{**fields, "controller_public_key": "00" * 32, **told})


@pytest.mark.parametrize(
    ("announced", "told", "why"),
    [
        ("miner.example", {"chain_endpoint": "http://127.0.0.1:1"}, "is no IP address"),
        ("10.0.0.5", {"chain_endpoint": "http://127.0.0.1:1", "environment": "testnet"}, "cannot be reached"),
        ("10.0.0.5", {}, "set chain_endpoints"),
    ],
)
def test_what_cannot_be_announced_is_told_at_start(announced: str, told: dict[str, Any], why: str) -> None:
    settings = MinerSettings(announce=announced)
    with pytest.raises(NodeError, match=rf"miner\.announce.*{why}"):
        follow(launch(**told), settings, NODE, SystemClock(), Metrics())


def test_a_node_announces_its_own_port_and_shows_how_that_stands() -> None:
    metrics, settings = Metrics(), MinerSettings(announce="8.8.8.8")
    told = launch(chain_endpoint="http://127.0.0.1:1", environment="mainnet")
    following = follow(told, settings, NODE, SystemClock(), metrics)
    assert following.syncer is not None
    assert following.announcer is not None
    announcement = following.status().announcement
    assert announcement is not None
    assert (announcement.wanted, announcement.verdict.value) == ("8.8.8.8:18100", "unread")
    text = metrics.render().decode()
    assert 'engram_announcement{verdict="unread"} 1.0' in text
    assert 'engram_announcement{verdict="announced"} 0.0' in text


@pytest.mark.parametrize(("host", "announced", "warned"), [("127.0.0.1", "8.8.8.8", 1), ("0.0.0.0", "8.8.8.8", 0)])
def test_a_node_that_only_its_machine_reaches_is_warned_of(host: str, announced: str, warned: int) -> None:
    told = launch(chain_endpoint="http://127.0.0.1:1", host=host)
    with capture_logs() as logs:
        follow(told, MinerSettings(announce=announced), NODE, SystemClock(), Metrics())
    assert [line["event"] for line in logs] == ["announced_but_on_loopback"] * warned


def test_a_node_that_is_told_to_announce_nothing_announces_nothing() -> None:
    metrics = Metrics()
    following = follow(launch(chain_endpoint="http://127.0.0.1:1"), MinerSettings(), NODE, SystemClock(), metrics)
    assert following.syncer is not None
    assert following.announcer is None
    assert following.status().announcement is None
    assert "engram_announcement{" not in metrics.render().decode()


def registered() -> LivingChain:
    """The recorded subnet with the node's hotkey in the place of uid 9's."""
    chain = LivingChain()
    chain.put(9, "SubtensorModule", "Uids", NETUID, NODE.public_key)
    old = chain.get("SubtensorModule", "Keys", NETUID, 9)
    chain.metagraphs["0xc201"] = lambda scale: scale.replace(ss58.decode(old), NODE.public_key)
    return chain


def until(holds: Callable[[], Any], running: NodeProcess) -> None:
    give_up = time.monotonic() + 30
    while not holds():
        if time.monotonic() > give_up:
            raise AssertionError(running.log())
        time.sleep(0.05)


def operator(running: NodeProcess, path: str) -> str:
    at = json.loads((running.folder / "data" / "ops.json").read_text())["url"]
    with urllib.request.urlopen(f"{at}{path}", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def look(url: str) -> None:
    """Has the chain build a block."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"chain_getFinalizedHead","params":[]}'
    urllib.request.urlopen(urllib.request.Request(url, body), timeout=10).close()


@pytest.mark.serial
def test_a_node_that_is_killed_while_its_announcement_is_in_flight_sends_no_second_one(tmp_path: Path) -> None:
    chain = registered()
    chain.include = False
    with served(chain) as server:
        told: dict[str, Any] = {"chain_endpoint": server.url, "miner": MinerSettings(announce="127.0.0.1")}
        with node(tmp_path, **told) as running:
            until(lambda: SUBMIT in chain.asked, running)
            running.kill()
            assert (tmp_path / "data" / "announcement.json").exists()
            running.start()
            until(lambda: '"verdict":"in_flight"' in operator(running, "/status"), running)
            chain.include = True
            look(server.url)
            until(lambda: chain.get("SubtensorModule", "Axons", NETUID, NODE.public_key), running)
            axon = chain.get("SubtensorModule", "Axons", NETUID, NODE.public_key)
            assert (axon["ip"], axon["port"], axon["ip_type"]) == (ADDRESS, running.port, 4)
            assert chain.asked.count(SUBMIT) == 1
            status = json.loads(operator(running, "/status"))
            assert (status["hotkey"], status["announcement"]["wanted"]) == (NODE.ss58, f"127.0.0.1:{running.port}")
            assert "engram_announcement{" in operator(running, "/metrics")
            assert NODE.private_key().hex() not in running.log()
            assert running.terminate() == 0


@pytest.mark.nightly
@pytest.mark.serial
@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_a_node_that_is_killed_again_and_again_never_has_two_in_flight_and_is_announced_at_last(
    seed: int, tmp_path: Path
) -> None:
    rng, chain = random.Random(seed), registered()
    chain.include = False
    chain.seal_at_look = False
    with served(chain) as server:
        told: dict[str, Any] = {"chain_endpoint": server.url, "miner": MinerSettings(announce="127.0.0.1")}
        with node(tmp_path, **told) as running:
            for _ in range(8):
                time.sleep(rng.uniform(0.0, 1.6))
                running.kill()
                running.start()
            # No block came: nobody can have sent a second one.
            assert chain.asked.count(SUBMIT) <= 1
            chain.include = chain.seal_at_look = True
            for _ in range(70):
                look(server.url)
            until(lambda: chain.get("SubtensorModule", "Axons", NETUID, NODE.public_key), running)
            assert chain.asked.count(SUBMIT) == 1
            assert running.terminate() == 0
