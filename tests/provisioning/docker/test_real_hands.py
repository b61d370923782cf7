"""What somebody does by hand at a real engine, and nodes that behave badly in it."""

import time
from pathlib import Path

import pytest

from engram.provisioning.docker import container
from tests.engine import on_an_engine
from tests.provisioning.docker.real import DockerBench

pytestmark = on_an_engine

BOMB = """
import os, time
held = 0
try:
    while True:
        if not os.fork():
            time.sleep(30)
            os._exit(0)
        held += 1
except OSError:
    print(held, flush=True)
    os.kill(0, 9)
"""
FLOOD = """
with open("/proc/1/fd/1", "wb", buffering=0) as log:
    for _ in range(40 * 16):
        log.write((b"x" * 1023 + b"\\n") * 64)
print("flooded")
"""


async def test_a_renamed_container_is_the_node_until_it_is_destroyed(docker: DockerBench) -> None:
    spec = await docker.spec()
    node = await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)
    status, said = await docker.engine.ask("POST", f"{docker.container(spec.token)}/rename?name=renamed-by-hand")
    assert status == 204, said
    assert await docker.backend.launch(spec) == node
    assert list(await docker.backend.list()) == [node]
    await docker.backend.stop(spec.token)
    assert (await docker.backend.launch(spec)).alive
    await docker.backend.destroy(spec.token)
    assert (await docker.engine.ask("GET", "/containers/renamed-by-hand/json"))[0] == 404
    assert list(await docker.backend.list()) == []


async def test_a_container_that_is_removed_by_hand_takes_no_memory_with_it(docker: DockerBench) -> None:
    spec = await docker.spec()
    node = await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)
    stored = await docker.post(node.endpoint, "IngestSynapse", {"text": "a memory", "metadata": {"text": "a memory"}})
    await docker.kill(spec.token)
    status, said = await docker.engine.ask("DELETE", f"{docker.container(spec.token)}?force=1&v=1")
    assert status in (200, 204), said
    (left,) = await docker.backend.list()
    assert (left.alive, left.store) == (False, node.store)
    again = await docker.backend.launch(spec)
    assert again.store == node.store
    await docker.until_healthy(again.endpoint, spec.token)
    found = await docker.http.request("GET", f"{again.endpoint}/retrieve/{stored['cid']}")
    assert found.json()["cid"] == stored["cid"]


async def test_a_container_of_a_committed_image_bears_our_labels_and_is_not_ours(docker: DockerBench) -> None:
    spec = await docker.spec()
    node = await docker.backend.launch(spec)
    labels = container.labels(spec, spec.token.partition("-")[0], "x")
    body = {"Image": "engram-node:latest", "Labels": labels}
    status, made = await docker.engine.ask("POST", "/containers/create?name=look-into-it", body)
    assert status == 201, made
    try:
        assert list(await docker.backend.list()) == [node]
        await docker.backend.destroy(spec.token)
        assert (await docker.engine.ask("GET", "/containers/look-into-it/json"))[0] == 200
        assert list(await docker.backend.list()) == []
    finally:
        await docker.engine.ask("DELETE", "/containers/look-into-it?force=1&v=1")


async def test_a_node_that_does_not_hear_its_end_is_killed_after_the_grace(docker: DockerBench) -> None:
    spec = await docker.spec()
    node = await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)
    status, said = await docker.engine.ask("POST", f"{docker.container(spec.token)}/kill?signal=STOP")
    assert status == 204, said
    began = time.monotonic()
    await docker.backend.stop(spec.token)
    found = await docker.backend.inspect(spec.token)
    assert found is not None
    assert not found.alive
    assert time.monotonic() - began >= docker.settings.provisioning.destroy_grace_s


async def test_a_node_that_forks_without_end_is_held_to_its_processes(docker: DockerBench) -> None:
    spec = await docker.spec()
    node = await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)
    held = int((await docker.run_inside(spec.token, BOMB)).split()[0])
    assert 1 <= held < container.PIDS
    await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)


async def test_a_node_that_logs_without_end_fills_no_disk(docker: DockerBench) -> None:
    spec = await docker.spec()
    node = await docker.backend.launch(spec)
    await docker.until_healthy(node.endpoint, spec.token)
    assert "flooded" in await docker.run_inside(spec.token, FLOOD)
    log = Path((await docker.engine.inspect(spec.token))["LogPath"])
    if not log.is_absolute():
        pytest.fail(f"the engine names no log: {log}")
    written = sum(each.stat().st_size for each in log.parent.glob(f"{log.name}*"))
    assert written <= container.LOG_BYTES * 1.1
    await docker.until_healthy(node.endpoint, spec.token)
