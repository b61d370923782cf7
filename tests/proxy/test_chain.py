"""Callers that the chain authorizes: the syncer's metagraph, and a proxy that follows an endpoint on a real socket."""

import http.client
import json
import random
import time
from pathlib import Path
from urllib.request import urlopen

import trio

from engram.chain import Subnets
from engram.chain.read.endpoints import open_endpoints
from engram.chain.sync.actor import MetagraphSyncer
from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.proxy.authorization import Passes, Policy, Refuses, decide
from engram.proxy.chain_view import NoChain, SyncedChain, chain_settings
from engram.proxy.settings.model import AuthSettings
from tests.fakes.chain import ChainDouble, ChainServer
from tests.proxy.process import ProxyProcess, document
from tests.proxy.signing import ALICE, EVE, headers_of

NETUID = 450


def test_the_originals_endpoint_is_asked_by_https() -> None:
    assert chain_settings(AuthSettings()).endpoints == ("https://entrypoint-finney.opentensor.ai:443",)
    assert chain_settings(AuthSettings(chain_endpoint="ws://127.0.0.1:9944")).endpoints == ("http://127.0.0.1:9944",)
    assert chain_settings(AuthSettings(chain_endpoint="")).endpoints == ()
    assert NoChain().age_s() is None
    assert NoChain().caller(ALICE.public_key) is None


async def test_hotkeys_of_the_metagraph_pass_by_permit_and_stake() -> None:
    clock, client = SystemClock(), HttpClient()
    async with trio.open_nursery() as nursery:
        server = ChainServer(ChainDouble())
        url = await nursery.start(server.run)
        settings = chain_settings(AuthSettings(chain_endpoint=url, netuid=NETUID))
        subnets = Subnets(clock, settings.netuids, settings.stall_after_s)
        syncer = MetagraphSyncer(open_endpoints(settings, client, clock), subnets, settings, clock, random.Random(1))
        with trio.fail_after(20):
            assert await syncer._poll()
        nursery.cancel_scope.cancel()
    await client.aclose()
    view, metagraph = SyncedChain(subnets, NETUID), subnets.get(NETUID)
    assert metagraph is not None
    assert (view.age_s() or 0.0) < 20
    policy = Policy(frozenset(), frozenset(), 0.0, "weighted", "the default", 60.0, has_chain=True)
    for neuron in metagraph.neurons:
        decision = decide(policy, view, neuron.hotkey)
        if neuron.validator_permit and neuron.stake_rao > 0:
            assert decision == Passes("permit")
        else:
            assert isinstance(decision, Refuses)
            assert decision.reason in ("no_permit", "stake_too_low")
    assert view.caller(EVE.public_key) is None
    assert view.caller(ALICE.public_key) is not None, "she is a validator of the recorded subnet"


async def test_a_proxy_follows_its_chain_and_says_how_old_its_view_is(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        server = ChainServer(ChainDouble())
        url = await nursery.start(server.run)
        auth = {"chain_endpoint": url, "netuid": NETUID, "allowed_senders": [], "min_stake": 0}
        with ProxyProcess(tmp_path, document(auth=auth)) as proxy:
            await trio.to_thread.run_sync(proxy.start)

            def status() -> dict[str, dict[str, dict[str, object]]]:
                with urlopen(f"{proxy.url}/status") as answer:
                    found: dict[str, dict[str, dict[str, object]]] = json.load(answer)
                    return found

            def call(by: Keypair) -> tuple[int, object]:
                while True:
                    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
                    connection.request("POST", "/inference", b"{}", headers_of(b"{}", by=by, ago_s=-1.8))
                    answer = connection.getresponse()
                    found = answer.status, json.loads(answer.read())["code"]
                    connection.close()
                    if found[1] != "before_start":
                        return found
                    time.sleep(0.1)

            def ready() -> bool:
                for _ in range(200):
                    if status()["authorization"]["chain"]["ready"]:
                        return True
                    time.sleep(0.05)
                return False

            assert await trio.to_thread.run_sync(ready)
            # She passes the chain; the backend behind it listens nowhere.
            assert await trio.to_thread.run_sync(call, ALICE) == (502, "not_connected")
            assert await trio.to_thread.run_sync(call, EVE) == (403, "not_registered")
        nursery.cancel_scope.cancel()
