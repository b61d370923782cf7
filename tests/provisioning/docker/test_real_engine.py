"""The Docker backend on a real engine, with the real image of a node."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import msgspec
import pytest
import trio

from config.model import DockerSettings, MinerSettings, ProvisioningSettings, Settings, StatsSettings
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import Keypair, wallet
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.ledger import open_inline
from engram.provisioning import NoCapacity, NodeBackend, NodeSpec, Rejected
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.docker.factory import docker_backend
from engram.provisioning.health import health_probe
from engram.stats import ask_stats
from engram.telemetry.metrics import Metrics
from tests.engine import ADDRESS, IMAGE, RealEngine, on_an_engine, provide_image
from tests.provisioning import contract
from tests.provisioning.test_local import a_spec

pytestmark = on_an_engine
UP_WITHIN_S = 60.0
GB = 1024**3


def settings(**docker: object) -> Settings:
    return Settings(
        provisioning=ProvisioningSettings(backends=("docker",), miner_image=IMAGE, destroy_grace_s=5.0),
        docker=DockerSettings(host=ADDRESS, **docker),  # type: ignore[arg-type]  # of their types
        miner=MinerSettings(embedder="hash"),
    )


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    provide_image()


class DockerBench(contract.Bench):
    def __init__(self, folder: Path, chosen: Settings) -> None:
        self.folder = folder
        self.http = HttpClient()
        self.is_healthy = health_probe(self.http)
        self.seen: set[str] = set()
        self.engine = RealEngine()
        self.settings = chosen
        super().__init__(self.a_backend())

    def a_backend(self) -> NodeBackend:
        ledger = open_inline()
        ledger.close()  # this backend keeps nothing in it
        return docker_backend(
            BackendPorts(
                settings=self.settings,
                data_dir=self.folder,
                ledger_id=contract.LEDGER_ID,
                root=self.folder,
                ledger=ledger,
                http=self.http,
                clock=SystemClock(),
                ids=SeededIds(),
                metrics=Metrics(),
                rng=Random(0),
            )
        )

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
        self.seen.add((await self.engine.inspect(node_token))["State"]["StartedAt"])

    async def kill(self, node_token: str) -> None:
        status, said = await self.engine.ask("POST", f"/containers/engram-{node_token}/kill")
        assert status == 204, said

    async def starts(self, endpoint: str, node_token: str) -> int:
        return len(self.seen)

    async def post(self, endpoint: str, path: str, body: dict[str, object]) -> dict[str, object]:
        answer: dict[str, object] = (await self.http.request("POST", f"{endpoint}/{path}", json=body)).json()
        return answer


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[DockerBench]:
    bench = DockerBench(tmp_path, settings())
    yield bench
    with trio.CancelScope(shield=True):
        await bench.engine.remove_all()
        await bench.http.aclose()


class TestDocker(contract.ProvisionerContract):
    @pytest.fixture
    def clock(self) -> None:
        return None

    @pytest.fixture
    def bench(self, docker: DockerBench) -> DockerBench:
        return docker


async def test_a_container_is_held_to_its_tier(docker: DockerBench) -> None:
    spec = await docker.spec()
    await docker.backend.launch(spec)
    found = await docker.engine.inspect(spec.token)
    host = found["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (2 * GB, 2 * GB, 10**9)
    assert (host["PidsLimit"], host["ReadonlyRootfs"], host["Privileged"]) == (256, True, False)
    assert host["RestartPolicy"]["Name"] in ("no", "")
    assert "ALL" in host["CapDrop"] or len(host["CapDrop"]) > 10  # Podman lists them
    assert (
        found["Config"]["Labels"].items()
        >= {
            "engram.ledger": contract.LEDGER_ID,
            "engram.token": spec.token,
            "engram.session": "s1",
            "engram.port": str(spec.port),
        }.items()
    )
    assert "key-s1" not in json.dumps(found)
    offers = await docker.backend.offers()
    assert (offers.not_enforced, offers.first_port) == (("storage",), 28_100)


async def test_a_killed_node_serves_the_same_memories(docker: DockerBench) -> None:
    spec = await docker.spec()
    node = await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)
    stored = await docker.post(node.endpoint, "IngestSynapse", {"text": "a memory", "metadata": {"text": "a memory"}})
    assert stored["cid"]
    stats = await ask_stats(docker.http, node.endpoint, StatsSettings())
    assert (stats.status, stats.vectors) == ("ok", 1)
    await docker.kill(spec.token)
    await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)
    found = await docker.http.request("GET", f"{node.endpoint}/retrieve/{stored['cid']}")
    assert found.json()["cid"] == stored["cid"]


async def test_a_node_ends_by_itself_at_the_end_it_was_told_last(docker: DockerBench) -> None:
    now = time.time()
    spec = msgspec.structs.replace(await docker.spec(), ends_at=now + 10.0)
    async with contract.watched(docker.backend) as exits:
        node = await docker.backend.launch(spec)
        await docker.backend.extend(spec.token, now + 14.0)
        await docker.until_healthy(node.endpoint, spec.token)
        with trio.fail_after(60.0):
            assert await exits.receive() == spec.token
        assert time.time() >= now + 13.5
    with pytest.raises(HttpError):
        await docker.http.request("GET", f"{node.endpoint}/health", fresh=True)


async def test_a_node_is_found_again_by_the_next_gateway(docker: DockerBench) -> None:
    spec = await docker.spec()
    node = await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)
    later = docker.a_backend()
    assert list(await later.list()) == [node]
    assert await later.launch(spec) == node
    await later.destroy(spec.token)
    assert await docker.backend.inspect(spec.token) is None


async def test_what_a_node_stored_goes_with_it(docker: DockerBench) -> None:
    spec = await docker.spec()
    await docker.backend.launch(spec)
    _, before = await docker.engine.ask("GET", "/volumes")
    await docker.backend.destroy(spec.token)
    _, after = await docker.engine.ask("GET", "/volumes")
    assert (len(before["Volumes"] or []), len(after["Volumes"] or [])) == (1, 0)


async def test_a_later_launch_of_a_session_takes_the_place_of_the_former(docker: DockerBench) -> None:
    await docker.backend.launch(await docker.spec(word="t1"))
    second = await docker.spec(word="t2")
    await docker.backend.launch(second)
    assert [node.token for node in await docker.backend.list()] == [second.token]


async def test_a_paused_node_can_be_stopped_and_started_and_destroyed(docker: DockerBench) -> None:
    spec = await docker.spec()
    await docker.backend.launch(spec)
    for call in (docker.backend.stop, docker.backend.destroy):
        await docker.engine.ask("POST", f"/containers/engram-{spec.token}/pause")
        await call(spec.token)
        found = await docker.backend.inspect(spec.token)
        assert found is None or not found.alive
        await docker.backend.launch(spec)
    await docker.engine.ask("POST", f"/containers/engram-{spec.token}/pause")
    await docker.backend.launch(spec)
    assert not (await docker.engine.inspect(spec.token))["State"]["Paused"]


async def test_a_container_of_somebody_else_with_our_name_is_never_touched(docker: DockerBench) -> None:
    spec = await docker.spec()
    body = {"Image": IMAGE, "Labels": {"engram.ledger": "ffffffff"}}
    assert (await docker.engine.ask("POST", f"/containers/create?name=engram-{spec.token}", body))[0] == 201
    with pytest.raises(Rejected, match="not ours"):
        await docker.backend.launch(spec)
    await docker.backend.destroy(spec.token)
    assert await docker.backend.inspect(spec.token) is None
    assert await docker.backend.list() == []
    await docker.engine.inspect(spec.token)


async def test_a_port_that_is_taken_is_refused_and_leaves_nothing_running(docker: DockerBench) -> None:
    first = await docker.spec("s1", "t1")
    await docker.backend.launch(first)
    second = msgspec.structs.replace(await docker.spec("s2", "t2"), port=first.port)
    with pytest.raises(NoCapacity):
        await docker.backend.launch(second)
    left = await docker.backend.inspect(second.token)
    assert left is not None
    assert not left.alive
    await docker.backend.destroy(second.token)
    assert [node.token for node in await docker.backend.list()] == [first.token]


async def test_a_node_that_cannot_start_is_told_of_with_its_last_words(
    docker: DockerBench, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = await docker.spec()
    Path(spec.hotkey_file).write_text("{}")
    async with contract.watched(docker.backend) as exits:
        await docker.backend.launch(spec)
        with trio.fail_after(60.0):
            assert await exits.receive() == spec.token
            while "node_ended" not in (logged := capsys.readouterr().out):  # noqa: ASYNC110  # the engine's answer
                await trio.sleep(0.05)
    assert "exit_code=2" in logged
    assert "hotkey" in logged


async def test_a_node_that_runs_out_of_memory_ends_alone(docker: DockerBench) -> None:
    small = msgspec.structs.replace(contract.tier(), memory_gb=0.03)
    spec = msgspec.structs.replace(await docker.spec(), tier=small)
    async with contract.watched(docker.backend) as exits:
        await docker.backend.launch(spec)
        with trio.fail_after(30.0):
            assert await exits.receive() == spec.token
    assert (await docker.engine.inspect(spec.token))["State"]["ExitCode"] != 0


async def test_the_hotkey_of_a_foreign_machines_node_stays_here(tmp_path: Path) -> None:
    bench = DockerBench(tmp_path, settings(node_keys="session"))
    try:
        spec = await bench.spec()
        node = await bench.backend.launch(spec)
        await bench.until_healthy(node.endpoint, spec.token)
        status, _ = await bench.engine.ask("GET", f"/containers/engram-{spec.token}/archive?path=/data/hotkey")
        assert status == 404
    finally:
        with trio.CancelScope(shield=True):
            await bench.engine.remove_all()
            await bench.http.aclose()
