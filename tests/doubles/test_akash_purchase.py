"""A whole lease on the double, by its HTTP surfaces alone: created, bid for, leased, served, closed."""

import json
import sys
import time
from pathlib import Path

import httpx2
import pytest
import trio

from engram.hotkeys import Keypair
from engram.nodes import environment
from engram.nodes.launch import EmbedderLaunch, LaunchFile
from tests.doubles.akash.account import Account, manifest
from tests.doubles.akash.client import Client, leased, pinned
from tests.doubles.akash.double import Options, running
from tests.doubles.akash.workloads import TOKEN_VARIABLE


async def test_a_node_is_bought_served_and_given_back(client: Client) -> None:
    document = manifest({TOKEN_VARIABLE: "abc-1", "ENGRAM_QUERY": "a<b&c>d"})
    provider, url = await leased(client, 7, document)
    async with await pinned(client, provider) as gateway:
        put = await gateway.put(f"{url}/deployment/7/manifest", json=document, headers=client.bearer())
        assert (put.status_code, put.content) == (200, b"")
        with trio.fail_after(5):
            while True:
                status = await gateway.get(f"{url}/lease/7/1/1/status", headers=client.bearer())
                if status.json()["services"]["miner"]["available"] == 1:
                    break
                await trio.sleep(0.01)
    ports = status.json()["forwarded_ports"]["miner"]
    health = await client.http.get(f"http://{ports[0]['host']}:{ports[0]['externalPort']}/health")
    assert health.json()["launch_token"] == "abc-1"
    client.double.make_blocks(10, 6.0)
    assert (await client.done(client.owner.close(7)))["code"] == 0
    info = await client.get(
        "/akash/deployment/v1beta4/deployments/info", {"id.owner": client.owner.address, "id.dseq": "7"}
    )
    assert info.json()["deployment"]["state"] == "closed"
    assert info.json()["escrow_account"]["state"]["deposits"] == []
    state = await client.http.get(client.double.control_url + "/state")
    assert state.json()["chain"]["problems"] == []
    assert state.json()["chain"]["active_leases"] == 0


async def test_a_second_certificate_of_the_same_name_is_refused_in_the_handshake(client: Client) -> None:
    provider, url = await leased(client, 7, manifest())
    name = next(name for name, each in client.double.providers.items() if each.address == provider)
    client.double.faults.providers[name].impostor = True
    async with await pinned(client, provider) as gateway:
        with pytest.raises(httpx2.ConnectError):
            await gateway.get(f"{url}/lease/7/1/1/status", headers=client.bearer())


async def test_the_process_says_where_it_is_and_ends_when_it_is_told() -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.doubles.akash", "--stub-nodes", "--block-s", "0.2"], stdout=-1
    )
    assert process.stdout is not None
    with trio.fail_after(30):
        line = bytes(await process.stdout.receive_some())
        ready = json.loads(line)
        started = time.monotonic()
        async with httpx2.AsyncClient() as http:
            while True:
                block = await http.get(ready["endpoints"][0] + "/cosmos/base/tendermint/v1beta1/blocks/latest")
                if int(block.json()["block"]["header"]["height"]) > 3:
                    break
                await trio.sleep(0.05)
        assert time.monotonic() - started < 20
        process.terminate()
        assert await process.wait() == 0


async def test_what_a_lease_runs_is_a_real_node_that_the_manifest_alone_describes(
    owner: Account, certificates: Path
) -> None:
    launch = LaunchFile(
        session_id="s1",
        launch_token="abc-1",
        host=environment.HOST,
        port=environment.PORT,
        data_dir=environment.DATA_DIR,
        hotkey=Keypair.generate().ss58,
        controller_public_key=Keypair.generate().ss58,
        embedder=EmbedderLaunch(kind="hash"),
    )
    document = manifest(environment.variables(launch))
    options = Options(block_s=0, funded=(owner.address,), stub_nodes=False, certificates=str(certificates))
    async with running(options) as double, httpx2.AsyncClient(timeout=10) as http:
        client = Client(double, owner, http)
        provider, url = await leased(client, 7, document)
        async with await pinned(client, provider) as gateway:
            await gateway.put(f"{url}/deployment/7/manifest", json=document, headers=client.bearer())
        holder = next(each for each in double.providers.values() if each.address == provider)
        tenancy = holder.tenancy(owner.address, 7)
        assert tenancy
        with trio.fail_after(60):
            await holder.ready(tenancy)
        assert tenancy.workload
        health = (await http.get(f"http://127.0.0.1:{tenancy.workload.port}/health")).json()
        assert health["launch_token"] == "abc-1"
        await client.done(owner.close(7))
        with trio.fail_after(30), pytest.raises(httpx2.TransportError):
            while True:
                await http.get(f"http://127.0.0.1:{tenancy.workload.port}/health")
