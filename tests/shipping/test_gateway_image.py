"""The image of the program: in a bare root, and in a real engine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from config.model import DockerSettings
from engram.provisioning.docker.factory import engine as engine_of
from shipping import gateway_image
from shipping.folder import Variant
from tests.engine import ADDRESS, RealEngine, needs_engine
from tests.shipping import bare_root

pytestmark = [pytest.mark.heavy, pytest.mark.nightly, pytest.mark.external, pytest.mark.xdist_group("engine")]
NO_ENGINE = "docker.host=unix:///tmp/no-engine.sock"
GATEWAY = ["gateway", "--profile", "local", "--set", "provisioning.backend=docker", "--set", NO_ENGINE]
"""Nodes would run elsewhere: the image has none of their libraries."""
RUN = """
ip link set lo up 2>/dev/null
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"
mount -t tmpfs none "$1/dev" && mknod -m 666 "$1/dev/null" c 1 3 && mknod -m 666 "$1/dev/urandom" c 1 9
mount -t proc none "$1/proc" && mount -t tmpfs none "$1/data" && chown 65532:65532 "$1/data"
mount -t tmpfs -o mode=1777 none "$1/tmp"
inside="$(command -v chroot) --userspec=65532:65532 $1 /opt/engram/engram"
shift
$inside "$@" &
gateway=$!
for _ in $(seq 300); do
    $inside health && echo healthy && break
    kill -0 $gateway || break
    sleep 0.2
done
$inside demo; echo "demo=$?"
kill -TERM $gateway; wait $gateway; echo "status=$?"
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("gateway-image")
    gateway_image.build(folder, Variant.GATEWAY)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a bare root")
def test_it_becomes_healthy_on_a_root_that_cannot_be_written_and_ends_cleanly(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    bare_root.unpack(built, root)
    config = bare_root.document(built, bare_root.manifest(built)["config"]["digest"])["config"]
    environ = dict(variable.split("=", 1) for variable in config["Env"])
    environ["PATH"] = f"{os.environ['PATH']}:{environ['PATH']}"
    command = ["unshare", "-nm", "bash", "-c", RUN, "bash", str(root), *GATEWAY]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=200)
    assert "\nhealthy\n" in done.stdout, done.stdout + done.stderr[-3_000:]
    assert "status=0" in done.stdout
    assert "this program was built without what nodes need" in done.stdout
    shutil.rmtree(root)


@needs_engine
async def test_an_engine_runs_it_confined_and_finds_it_healthy(built: Path) -> None:
    engine = engine_of(DockerSettings(host=ADDRESS))
    await engine.load(built / gateway_image.BUNDLE)
    asking = RealEngine()
    status, created = await asking.ask(
        "POST",
        "/containers/create?name=engram-of-test",
        json={
            "Image": "engram:latest",
            "Cmd": GATEWAY,
            "HostConfig": {
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "Tmpfs": {"/tmp": "mode=1777"},
            },
        },
    )
    assert status == 201, created
    container = f"/containers/{created['Id']}"
    try:
        assert (await asking.ask("POST", f"{container}/start"))[0] == 204
        with trio.fail_after(120):
            await healthy(asking, container)
        assert (await asking.ask("POST", f"{container}/stop?t=30"))[0] == 204
        assert (await state(asking, container))["ExitCode"] == 0
    finally:
        await asking.ask("DELETE", f"{container}?force=1&v=1")


async def healthy(asking: RealEngine, container: str) -> None:
    """Return when the engine's own check succeeds."""
    for _ in range(1_000):
        if (await state(asking, container))["Health"]["Status"] == "healthy":
            return
        await trio.sleep(0.5)


async def state(asking: RealEngine, container: str) -> dict[str, Any]:
    _, found = await asking.ask("GET", f"{container}/json")
    return dict(found["State"])
