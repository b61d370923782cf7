"""The local backend with the real miner: the same contract, and what a user trusts in it."""

import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from config.model import StatsSettings
from engram.hotkeys import Keypair, wallet
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.nodes.launch import EmbedderLaunch
from engram.provisioning import NodeSpec, Offers, local, processes
from engram.provisioning.health import health_probe
from engram.provisioning.local import LocalBackend, LocalSettings
from engram.provisioning.node_folder import NodeSettings
from engram.stats import ask_stats
from tests.provisioning import contract
from tests.provisioning.test_local import a_spec, no_processes_left, pid_of

ROOT = Path(__file__).resolve().parents[2]
UP_WITHIN_S = 30.0


class MinerBench(contract.Bench):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http = HttpClient()
        self.is_healthy = health_probe(self.http)
        self.seen: set[int] = set()
        backend = LocalBackend(
            LocalSettings(
                nodes_dir=folder / "nodes",
                ledger_id=contract.LEDGER_ID,
                command=(sys.executable, "-m", "engram.miner"),
                common=NodeSettings(
                    host="127.0.0.1", netuid=450, environment="local", embedder=EmbedderLaunch(kind="hash")
                ),
                offers=Offers(backend="local", places=4, first_port=18_100, port_count=1_000),
                grace_s=10.0,
                watch_interval_s=0.5,
                environment=local.scrubbed(os.environ) | {"PYTHONPATH": str(ROOT)},
            )
        )
        super().__init__(backend)

    async def spec(self, session_id: str = "s1", word: str = "t1") -> NodeSpec:
        key = self.folder / f"key-{session_id}"
        if not key.exists():
            wallet.write_hotkey_file(key, Keypair.generate())
        hotkey = wallet.read_hotkey_file(key)
        return msgspec.structs.replace(a_spec(session_id, word), hotkey=hotkey.public_key, hotkey_file=str(key))

    async def until_healthy(self, endpoint: str, node_token: str) -> None:
        with trio.fail_after(UP_WITHIN_S):
            while not await self.is_healthy(endpoint, node_token):  # noqa: ASYNC110  # another process's state
                await trio.sleep(0.05)
        node = await self.backend.inspect(node_token)
        assert node is not None
        self.seen.add(json.loads(node.reference)["pid"])

    async def kill(self, node_token: str) -> None:
        os.kill(pid_of(self.folder), signal.SIGKILL)

    async def starts(self, endpoint: str, node_token: str) -> int:
        return len(self.seen)

    async def post(self, endpoint: str, path: str, body: dict[str, object]) -> dict[str, object]:
        answer: dict[str, object] = (await self.http.request("POST", f"{endpoint}/{path}", json=body)).json()
        return answer


@pytest.fixture
async def miner(tmp_path: Path) -> AsyncIterator[MinerBench]:
    bench = MinerBench(tmp_path)
    with no_processes_left(tmp_path):
        yield bench
    await bench.http.aclose()


class TestRealMiner(contract.ProvisionerContract):
    @pytest.fixture
    def clock(self) -> None:
        return None

    @pytest.fixture
    def bench(self, miner: MinerBench) -> MinerBench:
        return miner


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path) -> Iterator[None]:
    with no_processes_left(tmp_path):
        yield


async def test_a_killed_miner_serves_the_same_memories_within_ten_seconds(miner: MinerBench) -> None:
    spec = await miner.spec()
    node = await miner.backend.launch(spec)
    await miner.until_healthy(node.endpoint, spec.token)
    stored = await miner.post(node.endpoint, "IngestSynapse", {"text": "a memory", "metadata": {"text": "a memory"}})
    assert stored["cid"]
    stats = await ask_stats(miner.http, node.endpoint, StatsSettings())
    assert (stats.status, stats.vectors) == ("ok", 1)
    async with contract.watched(miner.backend) as exits:
        began = time.perf_counter()
        await miner.kill(spec.token)
        with trio.fail_after(2.0):
            assert await exits.receive() == spec.token
        await miner.backend.launch(spec)
        await miner.until_healthy(node.endpoint, spec.token)
        found = await miner.http.request("GET", f"{node.endpoint}/retrieve/{stored['cid']}")
        assert found.json()["cid"] == stored["cid"]
        assert time.perf_counter() - began < 10.0


async def test_a_miner_ends_by_itself_at_the_end_it_was_told_last(miner: MinerBench) -> None:
    now = time.time()
    spec = msgspec.structs.replace(await miner.spec(), ends_at=now + 4.0)
    async with contract.watched(miner.backend) as exits:
        node = await miner.backend.launch(spec)
        await miner.backend.extend(spec.token, now + 7.0)
        await miner.until_healthy(node.endpoint, spec.token)
        with trio.fail_after(20.0):
            assert await exits.receive() == spec.token
        assert time.time() >= now + 6.9
    assert pid_of(miner.folder)
    assert processes.identify(pid_of(miner.folder), processes.boot_id()) is None
    with pytest.raises(HttpError):
        await miner.http.request("GET", f"{node.endpoint}/health", fresh=True)
