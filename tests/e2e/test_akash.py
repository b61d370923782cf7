"""A gateway that sells nodes on Akash: real nodes on the double's providers, one of which is not what it says."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.transactions import TxState
from engram.sdk import NodeClient
from tests.doubles.akash.process import DoubleProcess
from tests.e2e.akash_writer import second_writer
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.e2e.purchases import assert_paid_once, buy, buy_killed_at, stop, until
from tests.sampling import sample

pytestmark = pytest.mark.heavy

KEY: Final = b"\7" * 32
CHAIN_ID: Final = "akash-double-1"
COMMITS: Final = 16
POINTS: Final = (
    *(f"broadcast:{what}:{when}" for what in ("create", "lease", "close") for when in ("before", "after")),
    *("manifest:before", "manifest:after", "certify:noted", "certify:delivered"),
    *(f"{moment}:{number}" for number in range(1, COMMITS) for moment in ("begin", "commit")),
)
TEXT: Final = "A physician prescribed tablets to bring the child's fever down."


def settings(double: DoubleProcess, folder: Path) -> str:
    key_file = folder / "akash.key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY.hex())
    return f"""{FAST}
[provisioning]
backends = ["akash"]
miner_image = "registry.example/engram@sha256:{"0" * 64}"
launch_timeout_s = 6.0
[akash]
owner_address = "{Signer(KEY).address}"
key_file = "{key_file}"
endpoints = {double.endpoints}
chain_id = "{CHAIN_ID}"
allow_private_providers = true
bids_first_s = 0.5
bids_enough_s = 1.5
poll_s = 0.1
watch_s = 0.5
""".replace("'", '"')


@pytest.fixture
def double() -> Iterator[DoubleProcess]:
    with DoubleProcess("--fund", Signer(KEY).address, "--chain-id", CHAIN_ID, "--block-s", "0.2") as process:
        yield process


def nodes(gateway: GatewayProcess) -> dict[str, dict[str, Any]]:
    """What `/nodes` says of each backend."""
    with urllib.request.urlopen(f"{gateway.url}/nodes", timeout=10) as answer:
        return {each["name"]: each for each in json.load(answer)["backends"]}


def nothing_left(double: DoubleProcess) -> None:
    """No deployment is active, and every coin is accounted for."""
    until(lambda: double.state()["chain"]["active_deployments"] == 0)
    chain = double.state()["chain"]
    assert chain["problems"] == []
    assert chain["active_leases"] == 0


@pytest.mark.nightly
def test_a_provider_that_answers_in_the_nodes_place_serves_no_one(double: DoubleProcess, tmp_path: Path) -> None:
    """It is the cheapest and knows the launch token, which stands in the manifest; it has no key of the node."""
    double.post("/faults", providers={"ada": {"answers_itself": True}})
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings(double, tmp_path)) as gateway:
        gateway.start()
        buyer.quote(gateway.url)
        session_id = str(buyer.pay(gateway.url).body["session_id"])
        session = buyer.wait(gateway.url, session_id, "active", "failed", timeout=120.0)
        assert session["status"] == "active", gateway.log()[-4_000:]
        providers = double.state()["providers"]
        assert providers["ada"]["manifests"] >= 1
        assert providers["ada"]["leases"] == 0
        assert sum(each["leases"] for each in providers.values()) == 1
        with NodeClient(session["node_endpoint"], buyer.keypair) as node:
            node.ingest_text(TEXT)
            assert node.query(TEXT, top_k=1)[0].text == TEXT
        stop(gateway, buyer, session_id)
        nothing_left(double)


@pytest.mark.nightly  # it is looked at once a minute
def test_a_provider_that_takes_the_place_of_a_node_is_noticed(double: DoubleProcess, tmp_path: Path) -> None:
    """The buyer's client refuses what has no certificate, and the session goes on elsewhere."""
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings(double, tmp_path)) as gateway:
        gateway.start()
        session = buy(gateway, buyer)
        session_id = str(session["session_id"])
        (name,) = [name for name, each in double.state()["providers"].items() if each["leases"]]
        double.post("/swap", provider=name)
        buyer.wait(gateway.url, session_id, "degraded", timeout=150.0)
        double.post("/faults", providers={name: {"answers_itself": True}})
        until(lambda: buyer.get(gateway.url, session_id).body["node_endpoint"] != session["node_endpoint"], 90.0)
        session = buyer.wait(gateway.url, session_id, "active", timeout=60.0)
        providers = double.state()["providers"]
        assert providers[name]["leases"] == 0
        with NodeClient(session["node_endpoint"], buyer.keypair) as node:
            node.ingest_text(TEXT)
        assert double.state()["chain"]["active_leases"] == 1
        stop(gateway, buyer, session_id)
        nothing_left(double)


@pytest.mark.parametrize("point", sample("kill points of a gateway on Akash", POINTS, 2))
def test_a_gateway_killed_anywhere_has_one_deployment_and_then_none(
    double: DoubleProcess, tmp_path: Path, point: str
) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings(double, tmp_path)) as gateway:
        session = buy_killed_at(gateway, buyer, point, timeout=120.0)
        if session["status"] == "active":
            chain = double.state()["chain"]
            assert (chain["active_deployments"], chain["active_leases"]) == (1, 1)
            stop(gateway, buyer, session["session_id"])
        nothing_left(double)
        assert double.state()["chain"]["doubled_hashes"] == 0
        assert_paid_once(gateway, buyer)
        assert gateway.terminate() == 0


def test_local_and_akash_sell_side_by_side_and_a_chain_that_does_not_answer_stops_neither(
    double: DoubleProcess, tmp_path: Path
) -> None:
    two = settings(double, tmp_path).replace('["akash"]', '["local", "akash"]\nplaces = 1')
    first, second, third = Buyer(), Buyer(), Buyer()
    with GatewayProcess(tmp_path / "data", settings=two) as gateway:
        gateway.start()
        until(lambda: all(each["answers"] for each in nodes(gateway).values()))
        assert list(nodes(gateway)) == ["local", "akash"]
        one = str(buy(gateway, first)["session_id"])
        assert (len(gateway.nodes()), double.state()["chain"]["active_leases"]) == (1, 0)
        assert (nodes(gateway)["local"]["free"], nodes(gateway)["local"]["places"]) == (0, 1)
        akash = nodes(gateway)["akash"]
        assert akash["free"] == akash["places"] > 0
        other = buy(gateway, second, timeout=120.0)
        assert (len(gateway.nodes()), double.state()["chain"]["active_leases"]) == (1, 1)
        assert nodes(gateway)["akash"]["free"] == akash["free"] - 1

        down = [str(number) for number in range(len(double.endpoints))]
        double.post("/faults", nodes={number: {"down": True} for number in down})
        until(lambda: not nodes(gateway)["akash"]["answers"])
        stop(gateway, first, one)
        again = str(buy(gateway, third)["session_id"])
        assert nodes(gateway)["local"]["free"] == 0
        with NodeClient(other["node_endpoint"], second.keypair) as node:
            node.ingest_text(TEXT)  # the node itself goes on
        double.post("/faults", nodes={number: {"down": False} for number in down})
        until(lambda: nodes(gateway)["akash"]["answers"])
        stop(gateway, second, str(other["session_id"]))
        nothing_left(double)
        stop(gateway, third, again)
        assert gateway.nodes() == []


@pytest.mark.nightly
def test_five_real_nodes_are_bought_at_once_beside_a_second_writer_and_given_back(
    double: DoubleProcess, tmp_path: Path
) -> None:
    """Each buyer has a deployment, a lease and a node of its own, and finds its own text there alone."""
    buyers = [Buyer() for _ in range(5)]
    with GatewayProcess(tmp_path / "data", settings=settings(double, tmp_path)) as gateway:
        gateway.start()
        for buyer in buyers:
            buyer.quote(gateway.url)
        with second_writer(double.endpoints, CHAIN_ID, Signer(KEY)) as writer:
            ids = [str(buyer.pay(gateway.url).body["session_id"]) for buyer in buyers]
            sessions = [
                buyer.wait(gateway.url, session_id, "active", timeout=180.0)
                for buyer, session_id in zip(buyers, ids, strict=True)
            ]
        assert writer.states
        assert set(writer.states) == {TxState.INCLUDED}
        assert double.state()["failed"] == []
        assert len({each["node_endpoint"] for each in sessions}) == len({each["node_hotkey"] for each in sessions}) == 5
        chain = double.state()["chain"]
        assert (chain["active_deployments"], chain["active_leases"], chain["doubled_hashes"]) == (5, 5, 0)
        for number, (buyer, session) in enumerate(zip(buyers, sessions, strict=True)):
            with NodeClient(session["node_endpoint"], buyer.keypair) as node:
                node.ingest_text(f"{TEXT} {number}")
                assert [found.text for found in node.query(TEXT, top_k=9)] == [f"{TEXT} {number}"]
        for buyer, session_id in zip(buyers, ids, strict=True):
            buyer.stop(gateway.url, session_id)
        for buyer, session_id in zip(buyers, ids, strict=True):
            buyer.wait(gateway.url, session_id, "stopped", timeout=60.0)
        nothing_left(double)
