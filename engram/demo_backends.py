"""Where the demo's node runs: what each backend needs to be running, and the settings that name it.

`akash` runs on the double of Akash that the tests use (a chain and providers on this machine), so it needs a checkout
of the repository with its development packages: `make demo ARGS="--backend akash"`. `docker` runs in the engine at
ENGRAM_ENGINE, else in this machine's, from the image that `make image` builds.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import trio

from config.model import DockerSettings
from engram import children
from engram.children import Program
from engram.provisioning.akash.account import Signer
from engram.provisioning.docker.factory import engine as engine_of
from engram.provisioning.errors import ProvisioningError

ROOT: Final = Path(__file__).parents[1]
DOUBLE_READY_S: Final = 60.0

Prepared: TypeAlias = Callable[[Path], AbstractContextManager[str]]
"""Takes a folder for its files; yields a fragment of the settings file."""

AKASH_SETTINGS: Final = """
[provisioning]
backends = ["akash"]
miner_image = "registry.example/engram@sha256:{digest}"
[akash]
owner_address = "{owner}"
key_file = "{key_file}"
endpoints = {endpoints}
chain_id = "{chain_id}"
allow_private_providers = true
bids_first_s = 1.0
bids_enough_s = 4.0
poll_s = 0.25
watch_s = 2.0
"""
AKASH_CHAIN: Final = "akash-double-1"


DOCKER_SETTINGS: Final = """
[provisioning]
backends = ["docker"]
miner_image = "{image}"
[docker]
host = "{host}"
"""
IMAGE: Final = "engram-node:latest"
"""What the builder calls the image."""
BUNDLE: Final = ROOT / "build" / "image" / "engram-node.tar"


class DemoFailed(Exception):
    """The demo could not do its job; the message says at which step and why."""


def ready_line(descriptor: int, timeout_s: float) -> bytes:
    """Return what a starting process writes to the pipe; empty when it ends or takes longer."""
    readable, _, _ = select.select([descriptor], [], [], timeout_s)
    return os.read(descriptor, 8_192) if readable else b""


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and wait until it is gone: at most 35 s."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@contextlib.contextmanager
def _local(_folder: Path) -> Iterator[str]:
    yield ""


@contextlib.contextmanager
def _akash(folder: Path) -> Iterator[str]:
    """Run the double, with an account of its own that has coins. Raises DemoFailed."""
    if not (ROOT / "tests" / "doubles" / "akash").is_dir():
        raise DemoFailed("the double of Akash is not installed: run the demo in a checkout of the repository")
    key, key_file, log = secrets.token_bytes(32), folder / "akash.key", folder / "akash.log"
    key_file.touch(mode=0o600)
    key_file.write_text(key.hex(), encoding="ascii")
    owner = Signer(key).address
    wanted = ("--fund", owner, "--chain-id", AKASH_CHAIN, "--block-s", "0.5")
    command = children.command(Program.AKASH_DOUBLE, *wanted)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=children.environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        with process.stdout:
            line = ready_line(process.stdout.fileno(), DOUBLE_READY_S)
        if not line:
            raise DemoFailed(f"the double of Akash did not start:\n{log.read_text(errors='replace')[-2_000:]}")
        yield AKASH_SETTINGS.format(
            digest="0" * 64,
            owner=owner,
            key_file=key_file,
            endpoints=json.dumps(json.loads(line)["endpoints"]),
            chain_id=AKASH_CHAIN,
        )
    finally:
        end(process)


@contextlib.contextmanager
def _docker(_folder: Path) -> Iterator[str]:
    """See that the engine has the image, loading what was built. Raises DemoFailed."""
    host = os.environ.get("ENGRAM_ENGINE", "") or DockerSettings().host
    image = os.environ.get("ENGRAM_MINER_IMAGE", "") or IMAGE
    try:
        trio.run(_with_image, host, image)
    except (ProvisioningError, OSError, ValueError) as error:
        raise DemoFailed(f"{host}: {error}; start the engine, or name another one by ENGRAM_ENGINE") from error
    yield DOCKER_SETTINGS.format(image=image, host=host)


async def _with_image(host: str, image: str) -> None:
    engine = engine_of(DockerSettings(host=host))
    await engine.ping()
    if image == IMAGE and BUNDLE.exists():
        await engine.load(BUNDLE)
    elif not await engine.has_image(image):
        raise DemoFailed(f"it has no image {image}: run `make image` in a checkout, or set ENGRAM_MINER_IMAGE")


BACKENDS: Final[Mapping[str, Prepared]] = MappingProxyType({"local": _local, "docker": _docker, "akash": _akash})

WHERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "local": "as processes of this machine",
        "docker": "in containers of this machine",
        "akash": "on a double of Akash on this machine",
    }
)
"""Where nodes run, for the operator who reads along."""
