"""Fixtures of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from config.model import DockerSettings, MinerSettings, ProvisioningSettings, Settings
from engram.provisioning.docker import factory as factories
from engram.provisioning.docker.backend import DockerBackend
from tests.engine import provide_image
from tests.fakes.engine import EngineDouble
from tests.provisioning.conftest import MakePorts
from tests.provisioning.docker.doubled import Bench
from tests.provisioning.docker.real import DockerBench, settings


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery, backend_ports: MakePorts) -> Bench:
    double = EngineDouble()
    chosen = Settings(
        provisioning=ProvisioningSettings(backends=("docker",), miner_image="engram-node:latest"),
        docker=DockerSettings(host=await double.serve(nursery), places=3),
        miner=MinerSettings(embedder="hash"),
    )
    backend = factories.docker_backend(backend_ports(chosen))
    assert isinstance(backend, DockerBackend)
    return Bench(tmp_path, double, backend)


@pytest.fixture(scope="session")
def node_image() -> None:
    """The real engine has the image of a node."""
    provide_image()


@pytest.fixture
async def docker(node_image: None, tmp_path: Path) -> AsyncIterator[DockerBench]:
    bench = DockerBench(tmp_path, settings())
    yield bench
    with trio.CancelScope(shield=True):
        await bench.engine.remove_all()
        await bench.http.aclose()
