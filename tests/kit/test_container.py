"""The container recipe of a generated project, built and run in a real engine."""

import io
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engram.http.client import HttpClient
from engram.kit.inspection import Inspection, Question
from tests.engine import API, RealEngine, on_an_engine
from tests.kit import base_image
from tests.kit.projects import project
from tests.proxy.signing import ALICE, BOB
from tests.shared import free_port

pytestmark = [*on_an_engine, pytest.mark.nightly]
NAME = "engram-test-kit:latest"
WITHIN_S = 600.0


def packed(folder: Path) -> bytes:
    """The folder as a build takes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(folder, arcname=".")
    return made.getvalue()


async def posted(engine: RealEngine, path: str, content: bytes) -> str:
    """POST a tar; return what the engine says about it."""
    answer = await engine.http.request(
        "POST",
        API + path,
        content=content,
        headers={"Content-Type": "application/x-tar"},
        read_s=WITHIN_S,
        total_s=WITHIN_S,
        max_bytes=20_000_000,
        fresh=True,
    )
    assert answer.status == 200, answer.content
    return answer.content.decode()


async def built(engine: RealEngine, folder: Path) -> str:
    """Build the folder's recipe; return what the build printed, and its error."""
    said = await posted(engine, f"/build?t={NAME}&dockerfile=Containerfile&networkmode=none&rm=1", packed(folder))
    lines = [msgspec.json.decode(line) for line in said.splitlines()]
    return "".join(line.get("stream", "") + line.get("error", "") for line in lines)


async def is_podman(engine: RealEngine) -> bool:
    _, version = await engine.ask("GET", "/version")
    return any(each["Name"] == "Podman Engine" for each in version["Components"])


async def look_after(engine: RealEngine, container: str) -> None:
    """Run the container's health check, as systemd's timers have podman do it, which are not everywhere."""
    path = f"http://engine/v4.0.0/libpod/containers/{container}/healthcheck"
    await engine.http.request("GET", path, read_s=60.0, total_s=60.0, fresh=True)


async def inspected(engine: RealEngine, container: str) -> dict[str, Any]:
    status, found = await engine.ask("GET", f"/containers/{container}/json")
    assert status == 200, found
    return dict(found)


async def test_the_recipe_of_a_new_project_builds_and_its_container_is_healthy_and_looked_at(tmp_path: Path) -> None:
    folder, port, engine = tmp_path / "mine", free_port(), RealEngine()
    project(folder, port=port)
    (folder / "hotkey").write_text("the secret key, which no image may hold")
    settings = (folder / "miner.toml").read_text().replace("allowed = []", f'allowed = ["{ALICE.ss58}"]')
    (folder / "miner.toml").write_text(settings)
    requirements = (folder / "requirements.txt").read_text().split()
    base = await trio.to_thread.run_sync(base_image.image, requirements)
    changes = "".join(f"&changes=ENV%20{each.replace('=', '%3D')}" for each in (base_image.PATH, "PIP_NO_INDEX=1"))
    await posted(engine, f"/images/create?fromSrc=-&repo={base_image.NAME}&tag={base_image.TAG}{changes}", base)
    if podman := await is_podman(engine):  # which tags what it takes as `latest`, whatever it is told
        named = f"/images/{base_image.NAME}:latest/tag?repo={base_image.NAME}&tag={base_image.TAG}"
        assert (await engine.ask("POST", named))[0] == 201

    assert "No matching distribution found for engram" in await built(engine, folder), "and no file was missed before"
    await trio.to_thread.run_sync(base_image.wheels, requirements, folder / "wheels")
    said = await built(engine, folder)
    assert "Successfully tagged" in said, said

    # On the machine's network, where the proxy would find it.
    status, made = await engine.ask(
        "POST", "/containers/create", {"Image": NAME, "HostConfig": {"NetworkMode": "host"}}
    )
    assert status == 201, made
    container = made["Id"]
    try:
        status, answer = await engine.ask("POST", f"/containers/{container}/start")
        assert status == 204, answer
        found = await inspected(engine, container)
        with trio.move_on_after(60):
            while found["State"]["Health"]["Status"] != "healthy":
                await trio.sleep(0.5)  # the engine tells of no change
                if podman:
                    await look_after(engine, container)
                found = await inspected(engine, container)
        assert found["State"]["Health"]["Status"] == "healthy", found["State"]["Health"]
        assert found["Config"]["User"] == "65532"
        http = HttpClient()
        seen = await Inspection(f"http://127.0.0.1:{port}", BOB.public_key, ALICE, http).run(Question())
        await http.aclose()
        findings = [*seen.reach, *seen.work, *seen.signatures]
        assert all(each.good for each in findings), findings
        for file, status in (("miner.py", 200), ("hotkey", 404), ("test_miner.py", 404)):
            assert (await engine.ask("GET", f"/containers/{container}/archive?path=/miner/{file}"))[0] == status, file
        await engine.ask("POST", f"/containers/{container}/stop?t=20")
        assert (await inspected(engine, container))["State"]["ExitCode"] == 0, "it stops in order"
    finally:
        await engine.ask("DELETE", f"/containers/{container}?force=1&v=1")
        await engine.ask("DELETE", f"/images/{NAME}?force=1")
