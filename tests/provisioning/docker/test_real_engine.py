"""The Docker backend on a real engine, with the real image of a node."""

import json
import time
from pathlib import Path

import msgspec
import pytest
import trio

from config.model import StatsSettings
from engram.http.errors import HttpError
from engram.provisioning import NoCapacity, Rejected
from engram.stats import ask_stats
from tests.engine import IMAGE, on_an_engine
from tests.provisioning import contract
from tests.provisioning.docker.real import DockerBench, settings

pytestmark = on_an_engine
GB = 1024**3


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
